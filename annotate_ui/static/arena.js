// The arena: what both models say arrives as lines of JSON and is shown as plain text; the server sends the whole
// answers as sanitised HTML. What the annotator wrote stays in its box until the server has taken it.
"use strict";
(() => {
  const SIDES = ["left", "right"];
  const KEYS = { 1: "left", 2: "right", 3: "tie", 4: "both-bad", ArrowLeft: "left", ArrowRight: "right", "=": "tie", 0: "both-bad" };
  const KEPT_PROMPT = "plumbline:arena-prompt";
  const KEYS_OFF = "plumbline:keys-off"; // as the list of keys on the board sets it
  const LEADS = ["lead", "admin"];
  const characters = (text) => [...text].length; // as the server counts them

  /** Ask the server; null where no answer came, or none that can be read. */
  async function call(action, message) {
    try {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(`/arena-work/${action}`, { method: "POST", headers, body: JSON.stringify(message) });
      return await answer.json();
    } catch (fault) {
      console.error(fault);
      return null;
    }
  }

  /** The lines of a streamed answer, one object each. */
  async function* lines(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      const parts = (rest + (value ?? "")).split("\n");
      rest = parts.pop();
      for (const part of parts) yield JSON.parse(part);
      if (done) return;
    }
  }

  class Arena {
    constructor(root) {
      this.root = root;
      this.texts = JSON.parse(root.querySelector("[data-pl=texts]").dataset.texts);
      this.battle = null; // {id, goesOn, vote, seen: {left, right}, since}
      this.listening = null; // an AbortController while the models speak
      this.drawn = null; // {key, prompt} of the prompt that was drawn
      this.busy = false;
      this.listen();
      this.restore();
    }

    part(name) {
      return this.root.querySelector(`[data-pl="${name}"]`);
    }

    side(name) {
      return this.root.querySelector(`[data-side="${name}"]`);
    }

    text(key, values = {}) {
      return this.texts[key].replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
    }

    // --- the server ------------------------------------------------------------------------------------------------

    /** Call the server; null, and an error on the page, where it refused or did not answer. */
    async ask(action, message) {
      if (this.busy) return null;
      this.setBusy(true);
      this.showError("");
      const reply = await call(action, message);
      this.setBusy(false);
      if (reply === null) return this.showError(...(await this.whyUnreachable()));
      if (reply.quiz) return this.showError(reply.error, () => location.assign("/annotate/"), this.text("to_quiz"));
      if (reply.error) return this.showError(reply.error);
      return reply;
    }

    async whyUnreachable() {
      try {
        const session = await (await fetch("/session")).json();
        if (!session.name) return [this.text("signed_out"), () => location.reload(), this.text("sign_in")];
      } catch {
        // told below
      }
      return [this.text("unreachable")];
    }

    /** After a reload: the conversation that is open. */
    async restore() {
      this.part("prompt").value = sessionStorage.getItem(KEPT_PROMPT) ?? "";
      const session = await (await fetch("/session")).json();
      this.part("tabs").hidden = !LEADS.includes(session.role);
      const state = await this.ask("state", {});
      this.part("draw").hidden = !state?.draws;
      this.draws = Boolean(state?.draws);
      if (state?.battle) await this.show(state);
      else this.showPrompt();
    }

    async start() {
      const field = this.part("prompt");
      const prompt = field.value; // as it was written: code begins with white space
      if (!prompt.trim()) return field.focus();
      const going = this.battle?.vote && this.battle.goesOn;
      const drawn = this.drawn?.prompt === prompt ? this.drawn.key : null;
      const reply = going
        ? await this.ask("go_on", { battle: this.battle.id, prompt })
        : await this.ask("start", { prompt, drawn });
      if (!reply) return;
      if (reply.consent) return this.readGuideline(reply.consent);
      this.keepPrompt("");
      this.drawn = null;
      await this.show(reply);
    }

    /** The guideline comes before the first turn; the prompt waits in its box. */
    readGuideline(dialog) {
      this.part("consent").innerHTML = dialog;
      this.part("consent-dialog").showModal();
    }

    async consent(button) {
      this.closeDialog();
      if (await this.ask("consent", { version: Number(button.dataset.version) })) await this.start();
    }

    closeDialog() {
      this.part("consent-dialog").close();
    }

    async draw() {
      const reply = await this.ask("draw", {});
      if (!reply) return;
      this.keepPrompt(reply.prompt);
      this.drawn = { key: reply.drawn, prompt: this.part("prompt").value };
      this.part("before").innerHTML = reply.before;
      this.part("before").hidden = !reply.before;
      this.part("send").focus();
    }

    async vote(choice) {
      const battle = this.battle;
      if (!battle || battle.vote || this.part("votes").hidden) return;
      if (!this.ready()) return this.say(this.text("too_early"));
      battle.frozen = true; // what arrives from now on was not seen
      const seen = SIDES.map((side) => battle.seen[side]);
      const seconds = Math.round((performance.now() - battle.since) / 100) / 10;
      const reply = await this.ask("vote", { battle: battle.id, vote: choice, seconds, seen });
      if (!reply) return void (battle.frozen = false);
      this.listening?.abort();
      this.listening = null;
      await this.show(reply);
      this.say(this.text("voted"));
    }

    async end() {
      this.listening?.abort();
      this.listening = null;
      const reply = await this.ask("end", { battle: this.battle.id });
      if (!reply) return;
      this.battle = null;
      this.part("votes").hidden = true;
      this.part("say").hidden = true;
      this.part("reveal").innerHTML = reply.reveal;
      this.part("reveal").hidden = !reply.reveal;
      this.part("anew").hidden = false;
      (reply.reveal ? this.part("reveal") : this.part("anew").querySelector("button")).focus();
      if (!reply.reveal) this.anew();
    }

    anew() {
      this.battle = null;
      this.showPrompt();
      this.part("prompt").focus();
    }

    /** Listen to both models until they are done, the vote is given, or the page goes away. */
    async hear(battle) {
      const control = (this.listening = new AbortController());
      const shown = Object.fromEntries(SIDES.map((side) => [side, ""]));
      this.note(this.text("thinking"));
      try {
        const answer = await fetch("/arena-work/listen", {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ battle: battle.id }),
          signal: control.signal,
        });
        for await (const line of lines(answer)) {
          if (battle !== this.battle || battle.frozen) continue;
          if (line.error) return this.failed(line.error);
          if (line.waiting) this.note(this.text("waiting", { number: line.waiting }));
          else if (line.done) return this.showSides(line.done, true);
          else this.add(battle, shown, line);
        }
        if (battle === this.battle && !battle.frozen) this.failed(this.text("lost"));
      } catch (fault) {
        if (fault.name === "AbortError") return;
        console.error(fault);
        if (battle === this.battle && !battle.frozen) this.failed(this.text("lost"));
      } finally {
        if (this.listening === control) this.listening = null;
      }
    }

    failed(message) {
      this.note("");
      this.showError(message, () => this.restore(), this.text("again"));
    }

    // --- showing ---------------------------------------------------------------------------------------------------

    showPrompt() {
      for (const name of ["talk", "turn", "duel", "votes", "reveal", "anew", "end", "before"]) this.part(name).hidden = true;
      this.part("intro").hidden = false;
      this.part("say").hidden = false;
      this.part("draw").hidden = !this.draws;
      this.part("send").hidden = this.part("prompt").hidden = this.part("say-label").hidden = false;
      this.askFor("first");
    }

    /** A turn as the server tells it. */
    async show(turn) {
      const battle = { id: turn.battle, vote: turn.vote, goesOn: turn.goes_on, seen: {}, since: performance.now() };
      if (this.battle?.id === battle.id) battle.since = this.battle.since;
      this.battle = battle;
      for (const name of ["intro", "reveal", "anew", "before"]) this.part(name).hidden = true;
      this.part("talk").innerHTML = turn.talk;
      this.part("talk").hidden = false;
      this.part("turn").textContent = this.text("turn", { number: turn.number, turns: turn.turns });
      this.part("turn").hidden = turn.number === 1 && turn.turns === 1;
      this.part("duel").hidden = false;
      this.part("votes").hidden = Boolean(turn.vote);
      const says = Boolean(turn.vote);
      this.part("say").hidden = !says;
      this.part("draw").hidden = true;
      this.part("end").hidden = !says;
      this.part("send").hidden = !turn.goes_on;
      this.part("prompt").hidden = !turn.goes_on;
      this.part("say-label").hidden = !turn.goes_on;
      this.askFor("next");
      this.part("end").classList.toggle("pl-primary", !turn.goes_on);
      for (const side of SIDES) {
        const card = this.side(side);
        card.classList.toggle("pl-chosen", turn.vote === side);
        card.querySelector("[data-pl=text]").textContent = "";
        battle.seen[side] = 0;
      }
      this.readyVotes();
      if (turn.said) this.showSides(turn.said, false);
      else await this.hear(battle);
    }

    askFor(what) {
      this.part("say-label").textContent = this.text(what);
      this.part("prompt").placeholder = this.text(`${what}_hint`);
    }

    add(battle, shown, line) {
      this.note(this.text("writing"));
      for (const side of SIDES) {
        if (!line[side]) continue;
        shown[side] += line[side];
        battle.seen[side] = characters(shown[side]);
        const place = this.side(side).querySelector("[data-pl=text]");
        place.classList.add("pl-plain");
        place.textContent = shown[side];
      }
      this.readyVotes();
    }

    /** Whole answers, rendered and sanitised by the server. */
    showSides(said, announce) {
      for (const side of SIDES) {
        const place = this.side(side).querySelector("[data-pl=text]");
        place.classList.remove("pl-plain");
        if (said[side].html.trim()) place.innerHTML = said[side].html;
        else place.innerHTML = `<p class="pl-nothing"></p>`;
        const nothing = place.querySelector(".pl-nothing");
        if (nothing) nothing.textContent = this.text("empty");
        this.side(side).querySelector("[data-pl=note]").textContent = [said[side].plain && "plain", !said[side].finished && "cut_off"].filter(Boolean).map((key) => this.text(key)).join(" ");
        this.battle.seen[side] = said[side].characters;
        this.battle.whole = true;
      }
      this.readyVotes();
      if (announce) this.say(this.text("answered"));
    }

    ready() {
      return this.battle?.whole || SIDES.every((side) => this.battle?.seen[side] > 0);
    }

    readyVotes() {
      for (const button of this.root.querySelectorAll("[data-vote]")) button.setAttribute("aria-disabled", String(!this.ready()));
    }

    note(text) {
      for (const side of SIDES) this.side(side).querySelector("[data-pl=note]").textContent = text;
    }

    say(text) {
      this.part("status").textContent = text;
    }

    showError(text, act = null, label = "") {
      const alert = this.part("error");
      const button = this.part("error-button");
      alert.hidden = !text;
      this.part("error-text").textContent = text;
      button.hidden = !act;
      button.textContent = label;
      button.onclick = () => {
        this.showError("");
        act();
      };
      return null;
    }

    keepPrompt(text) {
      this.part("prompt").value = text;
      sessionStorage.setItem(KEPT_PROMPT, text);
    }

    setBusy(busy) {
      this.busy = busy;
      this.part("talk-page").setAttribute("aria-busy", String(busy));
    }

    // --- views and keys --------------------------------------------------------------------------------------------

    openTalk() {
      this.openView(false);
    }

    async openBoard() {
      this.openView(true);
      const reply = await this.ask("board", {});
      if (reply) this.part("board-page").innerHTML = reply.html;
    }

    openView(board) {
      this.part("talk-page").hidden = board;
      this.part("board-page").hidden = !board;
      for (const [name, on] of [["talk", !board], ["board", board]]) {
        this.root.querySelector(`#pl-tab-${name}`).setAttribute("aria-selected", String(on));
      }
    }

    listen() {
      this.root.addEventListener("click", (event) => {
        const button = event.target.closest("[data-do]");
        if (button) this[button.dataset.do](button);
        const vote = event.target.closest("[data-vote]")?.dataset.vote;
        if (vote) this.vote(vote);
      });
      this.part("say").addEventListener("submit", (event) => {
        event.preventDefault();
        this.start();
      });
      this.part("prompt").addEventListener("input", (event) => sessionStorage.setItem(KEPT_PROMPT, event.target.value));
      document.addEventListener("keydown", (event) => {
        if (event.target === this.part("prompt")) {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.start();
          return;
        }
        const off = event.key.length === 1 && localStorage.getItem(KEYS_OFF);
        const elsewhere = off || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, [role=tab]");
        if (elsewhere || !(event.key in KEYS) || this.part("votes").hidden) return;
        event.preventDefault();
        this.vote(KEYS[event.key]);
      });
    }
  }

  class ArenaElement extends HTMLElement {
    connectedCallback() {
      this.arena ??= new Arena(this);
    }
  }

  customElements.define("pl-arena", ArenaElement);
})();
