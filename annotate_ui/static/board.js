// The annotation board: what is entered stays here until the service has acknowledged it. The server sends tasks as
// sanitised HTML; every other text is put into the page as text.
import { Dialogs, showGuideline } from "./board/dialogs.js";
import { Draft } from "./board/draft.js";
import { forgetOld } from "./board/kept.js";
import { actionOf, keysAreOff, showKeys, switchKeys } from "./board/keys.js";
import { Quiz } from "./board/quiz.js";
import { call, session, textsOf } from "./board/server.js";
import { Task } from "./board/task.js";
import { showTimes } from "./board/times.js";
import { ofBrowser } from "./storage.js";

const RENEW_AFTER = 1 / 3; // share of the lease's time
const LOOK_AGAIN_SECONDS = 30;
const AWAY_SECONDS = 1; // who comes back to the page after that is told whether the task is still theirs
const TOAST_SECONDS = 2.5;
const SLOW_SECONDS = 1; // an answer that takes longer is told to be waited for
const LONGEST_PAUSE = 30; // seconds between two tries
const EARLIER_OPEN = "plumbline:earlier-open";
const ANSWERS = ["judge", "skip", "flag"];
const DISPUTED = "#disputed"; // the address at which adjudicators decide
const LEADS = ["lead", "admin"];

class Board extends HTMLElement {
  connectedCallback() {
    if (this.t) return;
    this.t = textsOf(this);
    this.dialogs = new Dialogs(this, this.t);
    this.task = null;
    this.pending = null; // {action, message, tries}: what was sent and is not answered yet
    this.active = false; // whether the annotator did anything since the lease was renewed
    this.timers = [];
    forgetOld();
    showGuideline(this);
    this.part("single-keys").checked = !keysAreOff();
    showKeys(this);
    this.listen();
    this.next();
  }

  part(name) {
    return this.querySelector(`[data-pl="${name}"]`);
  }

  // --- the server ------------------------------------------------------------------------------------------------

  /**
   * Call the server and show its answer, one thing at a time. Where none comes, it is asked again; what was entered
   * stays. `first` is done before, and meanwhile nothing else is begun.
   */
  async ask(action, message, first) {
    if (this.pending) return;
    this.pending = { action, message, tries: 0 };
    if (first) {
      this.showBusy(true);
      await first();
    }
    this.send();
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    clearTimeout(this.retryTimer);
    this.showBusy(true);
    const { status, body } = await call(this.pending.action, this.pending.message);
    this.sending = false;
    this.showBusy(false);
    const refused = status >= 400 && status < 500; // it would be refused again
    if (!refused && (!body || status >= 500)) return this.sendLater(status, body?.error);
    const { action } = this.pending;
    this.pending = null;
    this.part("task").inert = false;
    this.showError("");
    if (this.isNotTheirs(status)) return;
    if (!body?.error && refused) return this.showError(this.t("refused", { status }), "next", this.t("go_on"));
    if (status === 413) return this.showError(body.error); // to be shortened here
    this.take(body, action);
  }

  /** Try again after a pause that grows, or at once when asked to. */
  sendLater(status, reason) {
    const pause = Math.min(2 ** this.pending.tries++, LONGEST_PAUSE);
    const what = reason ?? this.t(status ? "no_answer" : "unreachable");
    this.part("task").inert = true; // what was sent must not change until it is known what became of it
    this.showError(`${what} ${this.t("retry_in", { seconds: pause })}`, "send", this.t("retry_now"));
    if (this.pending.tries === 1) this.part("error-button").focus(); // once: they may read the guideline meanwhile
    this.retryTimer = setTimeout(() => this.send(), pause * 1000);
  }

  take(reply, action) {
    if (reply.error) return this.showError(reply.error, "next", this.t("go_on"));
    const leaves = action === "release";
    // Who hands a disputed item back goes on with work: they would get the same one again.
    if (leaves && !this.task?.correcting) history.replaceState(null, "", location.pathname);
    const deciding = isDeciding() && (leaves || [...ANSWERS, "consent"].includes(action) || (action === "quiz" && !reply.html));
    if (ANSWERS.includes(action) || (leaves && this.task?.correcting)) this.task?.draft.forget();
    if (deciding) this.next();
    if (action === "consent") showGuideline(this);
    if (reply.html !== undefined && !deciding) this.showTask(reply, action);
    if (reply.notice) this.notify(reply.notice);
  }

  /** Keep the lease while the annotator works; an abandoned page lets it run out. */
  async renew() {
    const { task } = this;
    if (!task || !this.active || this.pending) return;
    this.active = false;
    this.renewedAt = performance.now();
    const { status, body } = await call("renew", { lease_id: task.lease });
    if (task === this.task) this.refused(status, body);
  }

  /** Who comes back to the page learns at once whether the task is still theirs. */
  comeBack() {
    if (document.hidden || performance.now() - this.renewedAt < AWAY_SECONDS * 1000) return;
    this.active = true;
    this.renew();
  }

  /** Tell where a call that keeps the shown task was refused; what was entered stays, as a draft. */
  refused(status, body) {
    const why = body?.newer ?? body?.lost ?? body?.error;
    if (this.pending || this.isNotTheirs(status)) return; // the answer to what is pending tells
    if (status === 200 && why && why !== this.part("error-text").textContent) {
      this.showError(why, "next", this.t(body.newer ? "load" : "go_on"));
    }
  }

  /** Tell where this page's annotator is not signed in any more, or somebody else is; returns whether it is so. */
  isNotTheirs(status) {
    if (status === 401) this.showError(this.t("signed_out"), "reload", this.t("sign_in"));
    if (status === 409) this.showError(this.t("somebody_else"), "reload", this.t("reload"));
    return status === 401 || status === 409;
  }

  // --- showing ---------------------------------------------------------------------------------------------------

  showTask(reply, action) {
    this.timers.forEach(clearInterval);
    const waiting = !reply.task;
    const again = () => document.hidden || this.querySelector("dialog[open]") || this.next();
    if (waiting && !reply.stays) this.timers = [setInterval(again, LOOK_AGAIN_SECONDS * 1000)];
    if (waiting && !this.task && reply.html === this.shownHtml) return; // looked again, nothing new
    const goesThere = this.shownHtml !== undefined && (action === "reopen" || this.hasFocus());
    this.shownHtml = reply.html;
    this.task?.draft.leave();
    this.part("task").innerHTML = reply.html;
    showTimes(this.part("task"));
    showKeys(this.part("task"));
    this.task = waiting ? null : this.openTask(reply.task);
    const form = this.part("quiz");
    this.quiz = form && new Quiz(form, this.t);
    const earlier = this.querySelector(".pl-earlier");
    if (earlier) earlier.open = ofBrowser.get(EARLIER_OPEN) === "yes";
    if (this.task) {
      this.renewedAt = performance.now();
      this.timers = [setInterval(() => this.renew(), Math.max(1, reply.expires_in * RENEW_AFTER) * 1000)];
    }
    window.scrollTo({ top: 0 });
    if (goesThere) this.querySelector("[data-focus]")?.focus({ preventScroll: true });
    else if (this.task?.isRanked()) this.task.goOnOrMark();
    if (reply.consent) this.readGuideline();
  }

  /** Whether the focus is at the shown item, or nowhere: then it is to be at the next one, which is read out so. */
  hasFocus() {
    const { activeElement } = document;
    return activeElement === document.body || this.part("task").parentElement.contains(activeElement);
  }

  openTask(sent) {
    const tell = (state) => this.showDraft(state);
    const draft = new Draft(sent, tell, (status, body) => this.refused(status, body));
    return new Task(this.part("task"), sent, draft, this.t, (text) => this.say(text));
  }

  /** Whether an answer is waited for; when it takes long, the page says so. */
  showBusy(busy) {
    const place = this.part("task");
    place.setAttribute("aria-busy", String(busy));
    clearTimeout(this.busyTimer);
    if (busy) this.busyTimer = setTimeout(() => this.showSlow(), SLOW_SECONDS * 1000);
    else if (place.hasAttribute("data-slow")) this.notify("");
    if (!busy) place.removeAttribute("data-slow");
  }

  showSlow() {
    this.part("task").setAttribute("data-slow", "");
    this.notify(this.t("waiting"), { stays: true });
  }

  showDraft(state) {
    this.part("draft").textContent = state && this.t(`draft_${state}`);
  }

  showError(text, action, label) {
    this.part("error-text").textContent = text;
    this.part("error").hidden = !text;
    const button = this.part("error-button");
    button.hidden = !action;
    button.dataset.do = action ?? "";
    button.textContent = label ?? "";
    if (text) this.part("error").scrollIntoView({ block: "nearest" });
  }

  /** Tell those who listen to the page. */
  say(text) {
    this.part("status").textContent = text;
  }

  /** Tell everybody, for a moment, or until something else is told. */
  notify(text, { stays = false } = {}) {
    const toast = this.part("toast");
    toast.textContent = text;
    clearTimeout(this.toastTimer);
    if (!stays) this.toastTimer = setTimeout(() => (toast.textContent = ""), TOAST_SECONDS * 1000);
  }

  // --- what buttons and keys do ----------------------------------------------------------------------------------

  next() {
    this.ask("next", {}, async () => {
      await this.save();
      if (isDeciding()) this.pending.action = await decideCall();
    });
  }

  /** What is entered comes to the server before something else is shown. */
  async save() {
    await this.task?.draft.saveOnServer();
  }

  judge() {
    if (this.pending) return;
    const answer = this.task?.answer();
    if (!answer) return;
    this.task.draft.hold();
    this.ask("judge", answer);
  }

  skip() {
    this.leave("skip", (form) => ({ reason: skipReason(form) }));
  }

  flag() {
    this.leave("flag", (form) => ({ kind: form.get("kind"), note: form.get("note") }));
  }

  leave(action, read) {
    const { task } = this;
    if (!task || this.pending) return;
    this.dialogs.ask(action, (form) => {
      task.draft.hold();
      this.ask(action, { lease_id: task.lease, key: task.draft.key, ...read(form) });
    });
  }

  undo() {
    this.ask("undo", {}, () => this.save());
  }

  reopen(button) {
    this.dialogs.close();
    this.ask("reopen", { answer_id: button.dataset.answer }, () => this.save());
  }

  /** Hand the item back, with what was entered; of a correction, the earlier answer stands. */
  release() {
    const { task } = this;
    if (!task || this.pending) return;
    if (task.correcting) task.draft.leave();
    this.ask("release", { lease_id: task.lease }, () => this.save());
  }

  readGuideline() {
    this.dialogs.open("consent");
  }

  consent(button) {
    this.dialogs.close();
    this.ask("consent", { version: Number(button.dataset.version), deciding: isDeciding() });
  }

  handIn() {
    const answer = this.quiz.answer();
    if (answer) this.ask("quiz", { ...answer, deciding: isDeciding() });
  }

  guideline() {
    const { ready } = this.querySelector("[data-do=guideline]").dataset;
    if (ready) document.querySelector("#pl-sidebar .toggle-button")?.click();
  }

  help() {
    this.dialogs.open("help");
  }

  work() {
    this.dialogs.myWork((error) => this.notify(error ?? this.t("unreachable")));
  }

  moreWork(button) {
    this.dialogs.moreWork(button);
  }

  compare() {
    this.dialogs.compare(this.task);
  }

  allBad() {
    this.task.toggleAllBad();
  }

  edit() {
    this.task.openEditor();
  }

  editBest() {
    this.task.editBest();
  }

  discardEdit() {
    this.task.discardEdit();
  }

  scores() {
    this.task.focusAxis(this.task.cards[this.task.current]);
  }

  note() {
    this.task.focusReason();
  }

  reload() {
    window.location.reload();
  }

  closeDialog() {
    this.dialogs.close();
  }

  // --- events ----------------------------------------------------------------------------------------------------

  listen() {
    window.addEventListener("hashchange", () => this.next());
    this.addEventListener("click", (event) => {
      const button = event.target.closest("[data-do]");
      if (button?.dataset.do) this[button.dataset.do](button);
    });
    this.addEventListener("toggle", (event) => this.onFold(event.target), { capture: true }); // it does not bubble
    this.addEventListener("change", (event) => this.onChoice(event.target));
    this.addEventListener("focusin", (event) => {
      const card = event.target.closest(".pl-card");
      if (card && this.task) this.task.mark(this.task.cards.indexOf(card), false);
    });
    this.addEventListener("submit", (event) => {
      if (event.target !== this.quiz?.form) return;
      event.preventDefault();
      this.handIn();
    });
    this.addEventListener("input", (event) => this.onText(event.target));
    document.addEventListener("keydown", (event) => {
      const action = actionOf(event, this);
      if (!action || this.pending) return;
      event.preventDefault();
      action();
    });
    for (const sign of ["keydown", "pointerdown", "wheel"]) {
      document.addEventListener(sign, () => (this.active = true), { passive: true });
    }
    document.addEventListener("visibilitychange", () => {
      if (!this.task) return;
      const { draft } = this.task;
      if (document.hidden) {
        draft.watch.pause();
        if (!this.pending) draft.saveOnServer({ last: true });
      } else {
        draft.watch.resume();
        this.comeBack();
      }
    });
    window.addEventListener("focus", () => this.comeBack());
  }

  onChoice(input) {
    if (input === this.part("single-keys")) {
      switchKeys(input.checked);
      showKeys(this);
    }
    if (input.type !== "radio" || !this.task?.shown.contains(input)) return;
    const field = input.closest(".pl-gap, .pl-axis");
    if (field?.matches(".pl-gap")) this.task.setGap(field, Number(input.value));
    else if (field) this.task.setScore(field, Number(input.value));
    else this.task.rank(input.closest(".pl-card"), Number(input.value));
  }

  /** Who wants to see earlier turns, or not, wants it for the next items too. */
  onFold(details) {
    if (details.matches(".pl-own-whole") && details.open) this.dialogs.readOwn(details);
    if (details.matches(".pl-earlier")) ofBrowser.set(EARLIER_OPEN, details.open ? "yes" : "");
  }

  onText(field) {
    if (field.name === "note") field.form.elements.reason?.forEach((radio) => (radio.checked = radio.value === ""));
    if (!this.task?.shown.contains(field)) return;
    if (field === this.task.part("edited")) this.task.edit(field.value);
    if (field === this.task.part("reason")) this.task.giveReason(field.value);
  }
}

/** Whether this is the page of disputed tasks. */
const isDeciding = () => location.hash === DISPUTED;

/** Leads decide as such, wherever they are in no pool. */
async function decideCall() {
  return LEADS.includes((await session()).role) ? "decide_as_lead" : "decide";
}

/** The chosen reason, and what was written beside it. */
function skipReason(form) {
  return [form.get("reason"), form.get("note").trim()].filter(Boolean).join(": ") || "Another reason";
}

customElements.define("pl-board", Board);
