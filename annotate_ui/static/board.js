// The annotation board: ranks live here until the service has acknowledged them. The server sends tasks as sanitised HTML.
"use strict";
(() => {
  const RENEW_AFTER = 1 / 3; // share of the lease's time
  const LOOK_AGAIN_SECONDS = 30;
  const TOAST_SECONDS = 2.5;
  const TEXT_FIELDS = "textarea, select, input:not([type=radio]):not([type=checkbox])";

  /** Ask the server; null where no answer came, or none that can be read. */
  async function call(action, message) {
    try {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(`/work/${action}`, { method: "POST", headers, body: JSON.stringify(message) });
      return await answer.json();
    } catch (fault) {
      console.error(fault);
      return null;
    }
  }

  /** The ranks of one shown task, kept in this tab so that a reload or a lost connection loses nothing. */
  class Draft {
    constructor(leaseId, correcting) {
      this.place = `plumbline:${leaseId}`;
      const kept = JSON.parse(sessionStorage.getItem(this.place) || "null");
      // The key names this view of the task: sent again after a lost answer, it does not count twice.
      this.key = kept?.key ?? crypto.randomUUID();
      this.ranks = new Map(kept?.ranks ?? correcting);
      this.reason = kept?.reason ?? "";
    }
    save() {
      sessionStorage.setItem(this.place, JSON.stringify({ key: this.key, ranks: [...this.ranks], reason: this.reason }));
    }
    forget() {
      sessionStorage.removeItem(this.place);
    }
  }

  /** Seconds for which the page was visible since the task was shown. */
  class Stopwatch {
    constructor() {
      this.spent = 0;
      this.since = document.hidden ? null : performance.now();
    }
    pause() {
      this.spent = this.milliseconds();
      this.since = null;
    }
    resume() {
      this.since ??= performance.now();
    }
    milliseconds() {
      return this.spent + (this.since === null ? 0 : performance.now() - this.since);
    }
    seconds() {
      return Math.round(this.milliseconds() / 100) / 10;
    }
  }

  /** On wide screens the guideline stands open until the annotator closes it; narrow ones show it when asked. */
  function openGuideline() {
    const toggle = document.querySelector("#pl-sidebar .toggle-button");
    if (!toggle) return;
    toggle.setAttribute("aria-label", "Guideline");
    const place = "plumbline:guideline-closed";
    const wide = window.matchMedia("(min-width: 64rem)");
    const isOpen = () => toggle.closest("#pl-sidebar").classList.contains("open");
    const fit = () => {
      const open = wide.matches && !localStorage.getItem(place);
      if (isOpen() !== open) toggle.click();
    };
    fit();
    wide.addEventListener("change", fit);
    toggle.addEventListener("click", () => {
      if (wide.matches) localStorage.setItem(place, isOpen() ? "yes" : "");
    });
  }

  class Board {
    constructor(root) {
      this.root = root;
      this.task = null; // {leaseId, cards, draft, watch}
      this.current = 0;
      this.busy = false;
      this.active = false; // whether the annotator did anything since the lease was renewed
      this.timers = [];
      this.listen();
      this.ask("next", {});
    }

    part(name) {
      return this.root.querySelector(`[data-pl="${name}"]`);
    }

    // --- the server ------------------------------------------------------------------------------------------------

    /** Call the server and show its answer. What the annotator entered stays unless the answer replaces it. */
    async ask(action, message) {
      if (this.busy) return;
      this.setBusy(true);
      this.showError("");
      const reply = await call(action, message);
      if (reply) this.take(reply, action);
      else this.showError(...(await this.whyUnreachable()));
      this.setBusy(false);
    }

    take(reply, action) {
      if (reply.error) return this.showError(reply.error, "next", "Go on with the next item");
      if (reply.html !== undefined) {
        if (["judge", "skip", "flag"].includes(action)) this.task?.draft.forget();
        this.showTask(reply);
      }
      if (reply.notice) this.notify(reply.notice);
    }

    /** What to tell when no answer came, and what to offer. */
    async whyUnreachable() {
      const kept = "What you entered is kept on this page";
      try {
        const session = await (await fetch("/session")).json();
        if (!session.name) return [`You are signed out. ${kept}.`, "reload", "Sign in again"];
      } catch {
        return [`The annotation app cannot be reached. ${kept}: try again when it runs.`];
      }
      return [`The annotation app could not answer. ${kept}: try again.`];
    }

    /** Keep the lease while the annotator works; an abandoned page lets it run out. */
    async renew() {
      if (!this.task || !this.active || this.busy) return;
      this.active = false;
      const reply = await call("renew", { lease_id: this.task.leaseId });
      if (reply?.error) this.showError(reply.error, "next", "Go on with the next item");
    }

    // --- showing ---------------------------------------------------------------------------------------------------

    showTask(reply) {
      this.timers.forEach(clearInterval);
      this.part("task").innerHTML = reply.html;
      const shown = this.root.querySelector("[data-lease]");
      this.task = shown ? this.openTask(shown) : null;
      if (this.task) {
        this.timers = [setInterval(() => this.renew(), Math.max(1, reply.expires_in * RENEW_AFTER) * 1000)];
        this.mark(0, false);
        this.showRanks();
      } else {
        this.timers = [setInterval(() => document.hidden || this.ask("next", {}), LOOK_AGAIN_SECONDS * 1000)];
      }
      window.scrollTo({ top: 0 });
    }

    openTask(shown) {
      const cards = [...shown.querySelectorAll(".pl-card")];
      const earlier = cards.filter((c) => c.dataset.earlier).map((c) => [c.dataset.response, Number(c.dataset.earlier)]);
      const draft = new Draft(shown.dataset.lease, earlier);
      const reason = this.part("reason");
      reason.value = draft.reason;
      reason.closest("details").open = Boolean(draft.reason);
      return { leaseId: shown.dataset.lease, cards, draft, watch: new Stopwatch() };
    }

    showRanks() {
      const { cards, draft } = this.task;
      for (const card of cards) {
        const rank = draft.ranks.get(card.dataset.response);
        card.dataset.rank = rank ?? "";
        for (const radio of card.querySelectorAll("input[type=radio]")) radio.checked = Number(radio.value) === rank;
      }
      const missing = cards.filter((card) => !card.dataset.rank);
      const summary = this.part("summary");
      summary.toggleAttribute("data-empty", missing.length === cards.length);
      summary.textContent = missing.length === cards.length ? "Give each response a rank" : this.inWords(missing);
      this.root.querySelector("[data-do=judge]").setAttribute("aria-disabled", String(missing.length > 0));
    }

    /** The ranking as people write it: `B > A = C`, and what is still missing. */
    inWords(missing) {
      const groups = new Map();
      for (const card of this.task.cards.filter((card) => card.dataset.rank)) {
        const rank = Number(card.dataset.rank);
        groups.set(rank, [...(groups.get(rank) ?? []), card.dataset.letter]);
      }
      const order = [...groups.keys()].sort((a, b) => a - b);
      const ranking = order.map((rank) => groups.get(rank).join(" = ")).join("  >  ");
      return missing.length ? `${ranking}   (missing: ${missing.map((c) => c.dataset.letter).join(", ")})` : ranking;
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

    /** Tell everybody, for a moment. */
    notify(text) {
      const toast = this.part("toast");
      toast.textContent = text;
      clearTimeout(this.toastTimer);
      this.toastTimer = setTimeout(() => (toast.textContent = ""), TOAST_SECONDS * 1000);
    }

    setBusy(busy) {
      this.busy = busy;
      this.part("task").setAttribute("aria-busy", String(busy));
    }

    // --- ranking ---------------------------------------------------------------------------------------------------

    mark(index, focus = true) {
      const { cards } = this.task;
      this.current = Math.min(Math.max(index, 0), cards.length - 1);
      cards.forEach((card, i) => card.classList.toggle("pl-current", i === this.current));
      if (focus) {
        cards[this.current].focus({ preventScroll: true });
        cards[this.current].scrollIntoView({ block: "nearest" });
      }
    }

    rank(card, rank) {
      this.task.draft.ranks.set(card.dataset.response, rank);
      this.task.draft.save();
      this.showRanks();
      this.say(`Response ${card.dataset.letter}: rank ${rank}`);
    }

    rankCurrent(rank) {
      if (rank < 1 || rank > this.task.cards.length) return;
      this.rank(this.task.cards[this.current], rank);
      this.mark(this.current + 1);
    }

    tieWithPrevious() {
      const { cards, draft } = this.task;
      const rank = this.current > 0 && draft.ranks.get(cards[this.current - 1].dataset.response);
      if (rank) this.rankCurrent(rank);
    }

    takeBack() {
      const { cards, draft } = this.task;
      const ranked = (index) => index >= 0 && draft.ranks.has(cards[index].dataset.response);
      const index = ranked(this.current) ? this.current : this.current - 1;
      if (!ranked(index)) return;
      draft.ranks.delete(cards[index].dataset.response);
      draft.save();
      this.showRanks();
      this.mark(index);
    }

    // --- answers ---------------------------------------------------------------------------------------------------

    judge() {
      if (!this.task) return;
      const { cards, draft, leaseId, watch } = this.task;
      const missing = cards.findIndex((card) => !draft.ranks.has(card.dataset.response));
      if (missing >= 0) {
        this.say(`Response ${cards[missing].dataset.letter} has no rank yet`);
        return this.mark(missing);
      }
      const ranking = Object.fromEntries(draft.ranks);
      this.ask("judge", { lease_id: leaseId, key: draft.key, ranking, seconds: watch.seconds(), reason: draft.reason });
    }

    skip() {
      this.openDialog("skip", (form) => ({ reason: form.get("reason") || form.get("note") || "Another reason" }));
    }

    flag() {
      this.openDialog("flag", (form) => ({ kind: form.get("kind"), note: form.get("note") }));
    }

    guideline() {
      document.querySelector("#pl-sidebar .toggle-button").click();
    }

    help() {
      this.part("help-dialog").showModal();
    }

    undo() {
      this.ask("undo", { lease_id: this.task?.leaseId ?? null });
    }

    /** Leave a correction: the earlier answer stands. */
    async release() {
      this.task.draft.forget();
      await this.ask("release", { lease_id: this.task.leaseId });
      this.next();
    }

    next() {
      this.ask("next", {});
    }

    reload() {
      window.location.reload();
    }

    closeDialog() {
      this.root.querySelector("dialog[open]").close("cancel");
    }

    /** Ask in a dialog, then send what was chosen; closing it any other way sends nothing. */
    openDialog(action, read) {
      if (!this.task || this.busy) return;
      const dialog = this.part(`${action}-dialog`);
      const form = dialog.querySelector("form");
      form.reset();
      dialog.returnValue = "cancel";
      dialog.onclose = () => {
        if (dialog.returnValue !== "ok" || !this.task) return;
        this.ask(action, { lease_id: this.task.leaseId, key: this.task.draft.key, ...read(new FormData(form)) });
      };
      dialog.showModal();
    }

    // --- events ----------------------------------------------------------------------------------------------------

    listen() {
      this.root.addEventListener("click", (event) => {
        const action = event.target.closest("[data-do]")?.dataset.do;
        if (action) this[action]();
      });
      this.root.addEventListener("change", (event) => {
        const card = event.target.closest(".pl-card");
        if (card && event.target.type === "radio") this.rank(card, Number(event.target.value));
      });
      this.root.addEventListener("focusin", (event) => {
        const card = event.target.closest(".pl-card");
        if (card && this.task) this.mark(this.task.cards.indexOf(card), false);
      });
      this.root.addEventListener("input", (event) => {
        if (event.target === this.part("reason")) this.task.draft.reason = event.target.value;
        if (event.target.name === "note") event.target.form.elements.reason?.forEach((r) => (r.checked = r.value === ""));
        this.task?.draft.save();
      });
      this.root.querySelector("form[action='/sign-out']").addEventListener("submit", (event) => this.signOut(event));
      document.addEventListener("keydown", (event) => this.onKey(event));
      for (const sign of ["keydown", "pointerdown", "wheel"]) {
        document.addEventListener(sign, () => (this.active = true), { passive: true });
      }
      document.addEventListener("visibilitychange", () => {
        if (document.hidden) this.task?.watch.pause();
        else this.task?.watch.resume();
      });
    }

    /** Hand the shown task back first, so that others need not wait for its lease to run out. */
    async signOut(event) {
      event.preventDefault();
      if (this.task) await call("release", { lease_id: this.task.leaseId });
      event.target.submit();
    }

    onKey(event) {
      const typing = event.target.closest?.(TEXT_FIELDS) || document.querySelector("dialog[open]");
      if (typing || event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const onControl = event.target.closest?.("button, a, summary, input");
      const action = this.actionOf(key, onControl);
      if (!action || this.busy) return;
      event.preventDefault();
      action();
    }

    actionOf(key, onControl) {
      const always = { u: () => this.undo(), "?": () => this.help() };
      if (always[key] || !this.task) return always[key];
      if (/^[1-9]$/.test(key)) return () => this.rankCurrent(Number(key));
      const keys = { "=": () => this.tieWithPrevious(), s: () => this.skip(), f: () => this.flag() };
      if (keys[key]) return keys[key];
      if (key === "Enter") return onControl && !onControl.matches("input[type=radio]") ? undefined : () => this.judge();
      if (onControl) return undefined;
      const moves = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };
      if (moves[key]) return () => this.mark(this.current + moves[key]);
      return key === "Backspace" ? () => this.takeBack() : undefined;
    }
  }

  function openBoard(root) {
    openGuideline();
    return new Board(root);
  }

  window.plumbline = { openBoard };
})();
