// The page of accounts: its buttons ask `/people/…` and show the list that comes back.
"use strict";
(() => {
  const part = (name) => document.querySelector(`[data-pl="${name}"]`);

  const MAY = {
    annotator: "They rank, and see neither quality nor exports.",
    lead: "They also see who said what, quality and exports, and decide disputes.",
    admin: "They also open, change and close accounts, yours too.",
  };
  const SURE = {
    role: (name, { role }) => [`Make ${name} ${/^[aeiou]/.test(role) ? "an" : "a"} ${role}?`, MAY[role], `Make ${role}`],
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
  function ask(dialog, goOn, giveUp) {
    const form = dialog.querySelector("form");
    form.reset();
    dialog.returnValue = "cancel";
    dialog.onclose = () => (dialog.returnValue === "ok" ? goOn(form) : giveUp?.());
    dialog.showModal();
  }

  function ifSure(action, row, values = {}) {
    const [title, text, button] = SURE[action](row.dataset.name, values);
    part("sure-title").textContent = title;
    part("sure-text").textContent = text;
    part("sure-button").textContent = button;
    ask(part("sure-dialog"), () => send(action, { annotator_id: row.dataset.account, ...values }), showRolesAsTheyAre);
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
    if (reply.html !== undefined) replaceRows(reply.html);
    else showRolesAsTheyAre();
    if (reply.password) {
      part("password-name").textContent = reply.name;
      part("password").textContent = reply.password;
      const dialog = part("password-dialog");
      dialog.onclose = () => (part("password").textContent = "");
      dialog.showModal();
    }
  }

  /** The new list, with the focus on the account where it was. */
  function replaceRows(html) {
    const focused = part("rows").contains(document.activeElement) ? document.activeElement : null;
    const account = focused?.closest("[data-account]").dataset.account;
    part("rows").innerHTML = html;
    if (!focused) return;
    const controls = [...part("rows").querySelectorAll(`[data-account="${account}"] :is(select, button)`)];
    (controls.find((one) => one.dataset.do === focused.dataset.do) ?? controls.at(-1))?.focus();
  }

  function showRolesAsTheyAre() {
    for (const option of document.querySelectorAll("option[selected]")) option.selected = true;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) commands[button.dataset.do](button.closest("[data-account]"));
  });
  document.addEventListener("change", (event) => {
    const row = event.target.closest("[data-account]");
    if (row && event.target.dataset.change === "role") {
      ifSure("role", row, { role: event.target.value }); // an arrow key on the closed list changes it at once
    }
  });
})();
