// The page of accounts: its buttons ask `/people/…` and show the list that comes back.
"use strict";
(() => {
  const part = (name) => document.querySelector(`[data-pl="${name}"]`);

  const SURE = {
    reset: (name) => [
      `Reset the password of ${name}?`,
      "They are signed out everywhere and come back with a one-time password, which you give to them.",
      "Reset password",
    ],
    deactivate: (name) => [
      `Close the account of ${name}?`,
      "They are signed out, and the task in their hands goes back to the others. What they judged stays.",
      "Close account",
    ],
  };

  const commands = {
    openCreate() {
      ask(part("create-dialog"), (form) => send("create", Object.fromEntries(new FormData(form))));
    },
    reset: (row) => ifSure("reset", row),
    deactivate: (row) => ifSure("deactivate", row),
    activate: (row) => send("activate", { annotator_id: row.dataset.account }),
    closeDialog: () => document.querySelector("dialog[open]").close("cancel"),
  };

  /** Open a dialog and go on with its form when it is answered by its button. */
  function ask(dialog, goOn) {
    const form = dialog.querySelector("form");
    form.reset();
    dialog.returnValue = "cancel";
    dialog.onclose = () => dialog.returnValue === "ok" && goOn(form);
    dialog.showModal();
  }

  function ifSure(action, row) {
    const [title, text, button] = SURE[action](row.dataset.name);
    part("sure-title").textContent = title;
    part("sure-text").textContent = text;
    part("sure-button").textContent = button;
    ask(part("sure-dialog"), () => send(action, { annotator_id: row.dataset.account }));
  }

  async function send(action, message) {
    let reply;
    try {
      const headers = { "Content-Type": "application/json" };
      const answer = await fetch(`/people/${action}`, { method: "POST", headers, body: JSON.stringify(message) });
      reply = await answer.json();
    } catch {
      reply = { error: "The annotation app could not answer. Try again." };
    }
    show(reply);
  }

  function show(reply) {
    for (const [name, text] of [["error", reply.error], ["notice", reply.notice]]) {
      part(name).textContent = text ?? "";
      part(name).hidden = !text;
    }
    if (reply.html !== undefined) part("rows").innerHTML = reply.html;
    else for (const option of document.querySelectorAll("option[selected]")) option.selected = true;
    if (reply.password) {
      part("password-name").textContent = reply.name;
      part("password").textContent = reply.password;
      const dialog = part("password-dialog");
      dialog.onclose = () => (part("password").textContent = "");
      dialog.showModal();
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) commands[button.dataset.do](button.closest("[data-account]"));
  });
  document.addEventListener("change", (event) => {
    const row = event.target.closest("[data-account]");
    if (row && event.target.dataset.change === "role") {
      send("role", { annotator_id: row.dataset.account, role: event.target.value });
    }
  });
})();
