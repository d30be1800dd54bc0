// The dialogs of the board: skip, flag, keys, my work, comparing two responses, accepting the guideline.
import { showDiff } from "./diff.js";
import { call, make } from "./server.js";
import { showTimes } from "./times.js";
import { ofBrowser } from "../storage.js";

export class Dialogs {
  constructor(root, t) {
    Object.assign(this, { root, t });
  }

  get(name) {
    return this.root.querySelector(`[data-pl="${name}-dialog"]`);
  }

  open(name) {
    const dialog = this.get(name);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0; // the focus may be on a button at the end
    return dialog;
  }

  close() {
    this.root.querySelector("dialog[open]")?.close("cancel");
  }

  /** Ask in a dialog; `then` gets the form's data. Closing it any other way does nothing. */
  ask(name, then) {
    const dialog = this.get(name);
    const form = dialog.querySelector("form");
    form.reset();
    dialog.returnValue = "cancel";
    dialog.onclose = () => dialog.returnValue === "ok" && then(new FormData(form));
    dialog.showModal();
  }

  /** The annotator's last answers; `fail` is told when they cannot be shown. */
  async myWork(fail) {
    const { body } = await call("history", {});
    if (body?.html === undefined) return fail(body?.error);
    const list = this.root.querySelector("[data-pl=work-list]");
    list.innerHTML = body.html;
    showTimes(list);
    this.open("work");
  }

  /** Fill an opened own answer with all of it. */
  async readOwn(details) {
    const place = details.querySelector("[data-pl=own-whole]");
    if (place.childElementCount) return;
    const { body } = await call("own", { answer_id: details.dataset.answer });
    if (body?.html === undefined) place.textContent = body?.error ?? this.t("unreachable");
    else place.innerHTML = body.html;
  }

  /** Older answers below those that are shown. */
  async moreWork(button) {
    const { body } = await call("history", { before: button.dataset.before });
    const fault = button.parentElement.querySelector("[role=alert]");
    if (body?.html === undefined) return void (fault.textContent = body?.error ?? this.t("unreachable"));
    button.closest("li").remove();
    const list = this.root.querySelector("[data-pl=work-list]");
    const before = list.children.length;
    list.insertAdjacentHTML("beforeend", body.html);
    showTimes(list);
    list.children[before]?.querySelector("button")?.focus();
  }

  /** Compare the marked response with the best one, or with the next where it is the best itself. */
  compare(task) {
    const marked = task.cards[task.current];
    const best = task.best();
    const other = best && best !== marked ? best : task.cards[(task.current + 1) % task.cards.length];
    const selects = [...this.get("diff").querySelectorAll("select")];
    const option = (card) => make("option", { value: card.dataset.response }, card.dataset.letter);
    for (const select of selects) select.replaceChildren(...task.cards.map(option));
    const [from, to] = selects;
    [from.value, to.value] = [marked.dataset.response, other.dataset.response];
    const place = this.root.querySelector("[data-pl=diff]");
    const show = () => {
      showDiff(place, task.texts[from.value], task.texts[to.value], this.t);
      place.querySelector("del, ins")?.scrollIntoView({ block: "nearest" });
    };
    selects.forEach((select) => (select.onchange = show));
    this.open("diff");
    show();
  }
}

/** Fill the guideline panel; without a guideline there is no button that opens it. */
export async function showGuideline(root) {
  const { body } = await call("guideline", {});
  if (!body?.html) return;
  document.querySelector("#pl-sidebar .pl-guideline").outerHTML = body.html;
  const button = root.querySelector("[data-do=guideline]");
  if (button.dataset.ready) return;
  button.dataset.ready = "yes";
  button.hidden = false;
  placePanel(button.textContent);
}

/** On wide screens the guideline stands open until the annotator closes it; narrow ones show it when asked. */
function placePanel(label) {
  const toggle = document.querySelector("#pl-sidebar .toggle-button");
  if (!toggle) return;
  toggle.setAttribute("aria-label", label);
  const place = "plumbline:guideline-closed";
  const wide = window.matchMedia("(min-width: 64rem)");
  const isOpen = () => toggle.closest("#pl-sidebar").classList.contains("open");
  const fit = () => {
    const open = wide.matches && !ofBrowser.get(place);
    if (isOpen() !== open) toggle.click();
  };
  fit();
  wide.addEventListener("change", fit);
  toggle.addEventListener("click", () => {
    if (wide.matches) ofBrowser.set(place, isOpen() ? "yes" : "");
  });
}
