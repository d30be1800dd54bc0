// The arena: what both models say arrives as lines of JSON and is shown as plain text; the server sends the whole
// answers as sanitised HTML. What the annotator wrote stays in its box until the server has taken it.
import { voteOf } from "./arena/keys.js";
import { PromptBox } from "./arena/prompt.js";
import { call, lines, post, readSession } from "./arena/server.js";
import { make, textsOf } from "./board/server.js";

const SIDES = ["left", "right"];
const LEADS = ["lead", "admin"];
const characters = (text) => [...text].length; // as the server counts them

class Arena {
  constructor(root) {
    this.root = root;
    this.text = textsOf(this.part("texts"));
    this.prompt = new PromptBox(this.part("prompt"), this.part("before"), this.part("left-out"));
    this.battle = null; // {id, goesOn, vote, seen: {left, right}, since}
    this.listening = null; // an AbortController while the models speak
    this.doing = null; // what the server was asked to do with this conversation
    this.listen();
    this.restore();
  }

  part(name) {
    return this.root.querySelector(`[data-pl="${name}"]`);
  }

  side(name) {
    return this.root.querySelector(`[data-side="${name}"]`);
  }

  // --- the server ------------------------------------------------------------------------------------------------

  /**
   * Ask something of the conversation; null, and an error on the page, where the server refused or did not answer.
   * `again` is what a button beside the error does.
   */
  async ask(action, message, again = null) {
    if (this.doing) return this.doing === action ? null : this.showError(this.text("busy"));
    this.setDoing(action);
    this.showError("");
    const { status, body } = await call(action, message);
    this.setDoing(null);
    if (status === 401) return this.tellSignedOut();
    if (status === 409) return this.showError(body?.error ?? "", () => location.reload());
    if (body?.quiz) return this.showError(body.error, () => location.assign("/annotate/"), this.text("to_quiz"));
    if (!body || body.error) return this.showError(body?.error ?? this.text("unreachable"), again);
    return body;
  }

  /** After a reload, or a fault: who is signed in, and the conversation that is open. */
  async restore() {
    const again = () => this.restore();
    const session = await readSession();
    if (!session) return this.showError(this.text("unreachable"), again);
    this.part("tabs").hidden = !LEADS.includes(session.role);
    const state = await this.ask("state", {}, again);
    if (!state) return;
    this.draws = state.draws;
    this.prompt.openFor(state.person);
    if (state.battle) await this.show(state);
    else this.showPrompt();
  }

  async start() {
    const { text, drawnKey } = this.prompt; // as it was written: code begins with white space
    if (!text.trim()) return this.part("prompt").focus();
    const going = this.battle?.vote && this.battle.goesOn;
    const reply = going
      ? await this.ask("go_on", { battle: this.battle.id, prompt: text })
      : await this.ask("start", { prompt: text, drawn: drawnKey });
    if (!reply) return;
    if (reply.consent) return this.readGuideline(reply.consent);
    this.prompt.taken(text);
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
    if (this.prompt.isOwn() && !window.confirm(this.text("overwrite"))) return;
    this.prompt.put(reply.prompt, { key: reply.drawn, before: reply.before });
    this.part("send").focus();
  }

  async vote(choice) {
    const battle = this.battle;
    if (!battle || battle.vote || battle.frozen) return;
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
      const answer = await post("listen", { battle: battle.id }, control.signal);
      if (answer.status === 401) {
        this.note("");
        return this.tellSignedOut();
      }
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
    this.showError(message, () => this.restore());
  }

  tellSignedOut() {
    return this.showError(this.text("signed_out"), () => location.reload(), this.text("sign_in"));
  }

  // --- showing ---------------------------------------------------------------------------------------------------

  showPrompt() {
    for (const name of ["talk", "turn", "duel", "votes", "reveal", "anew", "end"]) this.part(name).hidden = true;
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
    for (const name of ["intro", "reveal", "anew"]) this.part(name).hidden = true;
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
    this.prompt.ask(what === "first");
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

  /** An error; where there is something to `act` on it, with a button. */
  showError(text, act = null, label = this.text("again")) {
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

  setDoing(action) {
    this.doing = action;
    this.part("talk-page").setAttribute("aria-busy", String(action !== null));
  }

  // --- views and keys --------------------------------------------------------------------------------------------

  openTalk() {
    this.openView(false);
  }

  /** The leaderboard stands beside the conversation: neither waits for the other, nor clears its errors. */
  async openBoard() {
    this.openView(true);
    const { status, body } = await call("board", {});
    const told = status === 401 ? this.text("signed_out") : (body?.error ?? this.text("unreachable"));
    if (body?.html) this.part("board-page").innerHTML = body.html;
    else this.part("board-page").replaceChildren(make("p", { class: "pl-hint", role: "alert" }, told));
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
    document.addEventListener("keydown", (event) => {
      if (event.target === this.part("prompt")) {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.start();
        return;
      }
      const vote = voteOf(event);
      if (!vote || this.part("votes").hidden || this.part("talk-page").hidden) return;
      event.preventDefault();
      this.vote(vote);
    });
  }
}

class ArenaElement extends HTMLElement {
  connectedCallback() {
    this.arena ??= new Arena(this);
  }
}

customElements.define("pl-arena", ArenaElement);
