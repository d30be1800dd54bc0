// One shown task: ranks, strengths, scores and the improved response, and how they look.
import { showDiff } from "./diff.js";
import { make } from "./server.js";

const GRADES = 4;
const DIFF_AFTER = 120; // milliseconds without typing

export class Task {
  /** `sent` is what came with the HTML; `t` gives texts; `say` tells those who listen to the page. */
  constructor(root, sent, draft, t, say) {
    Object.assign(this, { root, texts: sent.texts, lease: sent.lease, draft, t, say });
    Object.assign(this, { asksReason: sent.asks_reason, mask: sent.mask });
    this.shown = root.querySelector("[data-lease]");
    this.cards = [...this.shown.querySelectorAll(".pl-card")];
    this.correcting = this.shown.dataset.correcting === "yes";
    this.strength = this.shown.dataset.strength === "yes";
    this.axes = JSON.parse(this.shown.dataset.axes);
    if (sent.begin.gaps_between) this.takeGaps(sent.begin.gaps_between);
    this.current = 0;
    this.mark(0, false);
    this.showReason();
    this.show();
    if (draft.edited) this.openEditor(false);
  }

  part(name) {
    return this.shown.querySelector(`[data-pl="${name}"]`);
  }

  changed() {
    this.draft.save();
    this.show();
  }

  // --- what was entered ------------------------------------------------------------------------------------------

  rankOf(card) {
    return this.draft.ranks.get(card.dataset.response);
  }

  unranked() {
    return this.cards.filter((card) => !this.rankOf(card));
  }

  /** Cards by rank, the best first; cards of one rank are together. */
  groups() {
    const groups = new Map();
    for (const card of this.cards) {
      const rank = this.rankOf(card);
      if (rank) groups.set(rank, [...(groups.get(rank) ?? []), card]);
    }
    return [...groups.keys()].sort((a, b) => a - b).map((rank) => groups.get(rank));
  }

  /** Neighbouring ranks, each with the name under which its grade is kept while these two stay neighbours. */
  steps() {
    const groups = this.unranked().length ? [] : this.groups();
    const name = (group) => group.map((card) => card.dataset.response).sort().join("=");
    return groups.slice(1).map((worse, index) => {
      const better = groups[index];
      return { better, worse, name: `${name(better)}>${name(worse)}` };
    });
  }

  takeGaps(between) {
    if (this.draft.gaps.size) return;
    this.steps().forEach((step, index) => between[index] && this.draft.gaps.set(step.name, between[index]));
  }

  missingGaps() {
    return this.strength ? this.steps().filter((step) => !this.draft.gaps.has(step.name)) : [];
  }

  missingScores() {
    if (this.draft.allBad) return [];
    const missing = ([card, axis]) => !this.draft.scores[axis]?.[card.dataset.response];
    return this.cards.flatMap((card) => this.axes.map((axis) => [card, axis])).filter(missing);
  }

  /** The case in which this ranking, as it is entered, needs a reason; undefined where it needs none. */
  reasonCase() {
    const strong = this.strength && this.steps().some((step) => this.draft.gaps.get(step.name) === GRADES);
    const stands = { strong, all_bad: this.draft.allBad, adjudication: true, always: true };
    return this.asksReason.find((one) => stands[one]);
  }

  /** The case for which a reason is missing: it has at least a letter or digit. */
  missingReason() {
    return /[\p{L}\p{N}]/u.test(this.draft.reason) ? undefined : this.reasonCase();
  }

  /** The best response; of several, the one shown first. Undefined until every response has a rank. */
  best() {
    return this.unranked().length ? undefined : this.groups()[0][0];
  }

  textOf(card) {
    return this.texts[card.dataset.response];
  }

  /** The improved response, where it differs from what it was. */
  improved() {
    const { edited } = this.draft;
    const text = edited?.text.trim();
    return text && text !== this.texts[edited.of]?.trim() ? edited : null;
  }

  /** What to send; null, with the reason told, where something is missing. */
  answer() {
    const { draft, t } = this;
    const [card] = this.unranked();
    if (card) return this.refuse(t("no_rank", { letter: card.dataset.letter }), () => this.mark(this.cards.indexOf(card)));
    const [gap] = this.missingGaps();
    if (gap) return this.refuse(t("no_strength"), () => this.focusGap(gap.name));
    const [score] = this.missingScores();
    if (score) return this.refuse(t("no_score", { letter: score[0].dataset.letter }), () => this.focusAxis(...score));
    const why = this.missingReason();
    if (why) return this.refuse(t(`no_reason_${why}`), () => this.focusReason());
    const improved = this.improved();
    if (this.mask && improved?.text.includes(this.mask)) {
      return this.refuse(t("edit_masked", { mask: this.mask }), () => this.openEditor());
    }
    if (improved && improved.of !== this.best().dataset.response && !this.isBest(improved.of)) {
      return this.refuse(t("edit_not_best"), () => this.openEditor());
    }
    return {
      lease_id: this.lease,
      key: draft.key,
      ranking: Object.fromEntries(draft.ranks),
      seconds: draft.watch.seconds(),
      reason: draft.reason,
      gaps: this.strength ? this.steps().map((step) => draft.gaps.get(step.name)) : [],
      scores: draft.scores,
      all_bad: draft.allBad,
      edited: improved?.text ?? null,
    };
  }

  isBest(response) {
    return this.groups()[0].some((card) => card.dataset.response === response);
  }

  refuse(text, go) {
    this.say(text);
    this.part("todo").textContent = text;
    go();
    return null;
  }

  // --- showing ---------------------------------------------------------------------------------------------------

  show() {
    for (const card of this.cards) {
      const rank = this.rankOf(card);
      card.dataset.rank = rank ?? "";
      check(card.querySelectorAll(".pl-ranks input"), rank);
      for (const axis of card.querySelectorAll(".pl-axis")) {
        check(axis.querySelectorAll("input"), this.draft.scores[axis.dataset.axis]?.[card.dataset.response]);
      }
    }
    this.showGaps();
    const unranked = this.unranked();
    const summary = this.part("summary");
    const empty = unranked.length === this.cards.length;
    summary.toggleAttribute("data-empty", empty);
    summary.textContent = empty ? this.t("give_ranks") : this.inWords(unranked);
    const todo = unranked.length ? "" : this.todo();
    this.part("todo").textContent = todo && this.t(todo);
    this.showReasonNeeded();
    this.part("submit").setAttribute("aria-disabled", String(Boolean(unranked.length || todo)));
    this.part("all-bad").setAttribute("aria-pressed", String(this.draft.allBad));
    this.showEditor();
  }

  /** What is still missing once all are ranked. */
  todo() {
    if (this.missingGaps().length) return "give_strength";
    if (this.missingScores().length) return "give_scores";
    return this.missingReason() ? "give_reason" : "";
  }

  /** The ranking as people write it: `B > A = C`, and what is still missing. */
  inWords(unranked) {
    const letters = (cards) => cards.map((card) => card.dataset.letter);
    const ranking = this.groups().map((group) => letters(group).join(" = ")).join("  >  ");
    if (!unranked.length) return ranking;
    return `${ranking}   (${this.t("missing", { letters: letters(unranked).join(", ") })})`;
  }

  showReason() {
    const reason = this.part("reason");
    reason.value = this.draft.reason;
    reason.closest("details").open = Boolean(this.draft.reason);
  }

  /** Mark the reason as needed, or not; what is open stays open. */
  showReasonNeeded() {
    const reason = this.part("reason");
    const needed = Boolean(this.reasonCase());
    if (reason.required === needed) return;
    reason.required = needed;
    this.part("reason-needed").hidden = !needed;
    if (needed) reason.closest("details").open = true;
  }

  giveReason(text) {
    this.draft.reason = text;
    this.changed();
  }

  focusReason() {
    const reason = this.part("reason");
    reason.closest("details").open = true;
    return focusOn(reason);
  }

  showGaps() {
    const place = this.part("gaps");
    const steps = this.strength ? this.steps() : [];
    place.hidden = !steps.length;
    const shown = [...place.querySelectorAll("fieldset")];
    if (shown.map((gap) => gap.dataset.step).join() !== steps.map((step) => step.name).join()) {
      shown.forEach((gap) => gap.remove());
      place.append(...steps.map((step, index) => this.gapElement(step, index)));
    }
    for (const gap of place.querySelectorAll("fieldset")) {
      check(gap.querySelectorAll("input"), this.draft.gaps.get(gap.dataset.step));
    }
  }

  gapElement(step, index) {
    const letters = (cards) => cards.map((card) => card.dataset.letter).join(" = ");
    const values = { better: letters(step.better), worse: letters(step.worse) };
    const grade = (number) => {
      const input = make("input", { type: "radio", name: `gap-${index}`, value: number });
      const key = make("b", { "aria-hidden": "true" }, String(number));
      return make("label", { class: "pl-grade" }, input, make("span", {}, key, this.t(`grade_${number}`)));
    };
    const grades = Array.from({ length: GRADES }, (_, number) => grade(number + 1));
    const legend = make("legend", {}, this.t("better_by", values));
    return make("fieldset", { class: "pl-gap", tabindex: "-1", "data-step": step.name }, legend, make("div", {}, ...grades));
  }

  // --- ranking ---------------------------------------------------------------------------------------------------

  mark(index, focus = true) {
    this.current = Math.min(Math.max(index, 0), this.cards.length - 1);
    this.cards.forEach((card, i) => card.classList.toggle("pl-current", i === this.current));
    if (!focus) return;
    this.cards[this.current].focus({ preventScroll: true });
    this.cards[this.current].scrollIntoView({ block: "nearest" });
  }

  rank(card, rank) {
    this.draft.ranks.set(card.dataset.response, rank);
    this.changed();
    this.say(this.t("ranked", { letter: card.dataset.letter, rank }));
  }

  rankCurrent(rank) {
    if (rank < 1 || rank > this.cards.length) return;
    const was = this.unranked().length;
    this.rank(this.cards[this.current], rank);
    if (was === 1 && this.goOn()) return;
    this.mark(this.current + 1);
  }

  isRanked() {
    return !this.unranked().length;
  }

  /** Put the focus on what is asked next: strengths, then scores, then the reason. */
  goOn() {
    return this.goOnByDigit() || (this.missingReason() ? this.focusReason() : false);
  }

  goOnByDigit() {
    const [gap] = this.missingGaps();
    if (gap) return this.focusGap(gap.name);
    const [score] = this.isRanked() ? this.missingScores() : [];
    return score ? this.focusAxis(...score) : false;
  }

  /** Put the focus where the next digit belongs. */
  goOnOrMark() {
    if (!this.goOnByDigit()) this.mark(this.current);
  }

  tieWithPrevious() {
    const rank = this.current > 0 && this.rankOf(this.cards[this.current - 1]);
    if (rank) this.rankCurrent(rank);
  }

  takeBack() {
    const ranked = (index) => index >= 0 && this.rankOf(this.cards[index]);
    const index = ranked(this.current) ? this.current : this.current - 1;
    if (!ranked(index)) return;
    this.draft.ranks.delete(this.cards[index].dataset.response);
    this.changed();
    this.mark(index);
  }

  /** Even the best is not good enough; without any ranks all are as bad. */
  toggleAllBad() {
    const { draft } = this;
    draft.allBad = !draft.allBad;
    const untouched = draft.allBad ? !draft.ranks.size : this.tiedByAllBad;
    this.tiedByAllBad = draft.allBad && untouched;
    if (untouched) {
      if (draft.allBad) this.cards.forEach((card) => draft.ranks.set(card.dataset.response, 1));
      else draft.ranks.clear();
    }
    this.changed();
    this.say(this.t(draft.allBad ? "all_bad_on" : "all_bad_off"));
  }

  // --- strength and scores ---------------------------------------------------------------------------------------

  focusGap(name) {
    const gap = [...this.part("gaps").querySelectorAll("fieldset")].find((one) => one.dataset.step === name);
    return focusOn(gap);
  }

  setGap(gap, grade) {
    if (grade < 1 || grade > GRADES) return;
    this.draft.gaps.set(gap.dataset.step, grade);
    this.changed();
    this.say(`${gap.querySelector("legend").textContent} ${this.t(`grade_${grade}`)}`);
  }

  focusAxis(card, axis) {
    return focusOn([...card.querySelectorAll(".pl-axis")].find((one) => !axis || one.dataset.axis === axis));
  }

  setScore(axis, score) {
    const card = axis.closest(".pl-card");
    if (score < 1 || score > axis.querySelectorAll("input").length) return;
    const scores = (this.draft.scores[axis.dataset.axis] ??= {});
    scores[card.dataset.response] = score;
    this.changed();
    this.say(this.t("scored", { letter: card.dataset.letter, axis: axis.querySelector("legend span").textContent, score }));
  }

  /** A digit in a strength or an axis; the focus goes on to what is asked next, or to the submit button. */
  digitIn(field, number) {
    if (field.matches(".pl-gap")) this.setGap(field, number);
    else this.setScore(field, number);
    if (!this.unranked().length) return this.goOn() || focusOn(this.part("submit"));
    const axes = [...this.shown.querySelectorAll(".pl-axis")];
    const next = axes[axes.indexOf(field) + 1];
    if (next) focusOn(next);
    else this.mark(0);
  }

  // --- the improved response -------------------------------------------------------------------------------------

  /** Open the editor with the best response's text, or go on with what was written there. */
  openEditor(focus = true) {
    const editor = this.part("editor");
    if (!editor) return;
    const best = this.best();
    if (!best) return this.say(this.t("rank_before_edit"));
    this.draft.edited ??= { of: best.dataset.response, text: this.textOf(best) };
    editor.hidden = false;
    this.part("edited").value = this.draft.edited.text;
    this.showEditor();
    this.showEdits();
    if (focus) focusOn(this.part("edited"));
  }

  /** Of which response the edit is, and whether that is still the best one. */
  showEditor() {
    const editor = this.part("editor");
    const { edited } = this.draft;
    if (!editor || editor.hidden || !edited) return;
    const card = this.cards.find((one) => one.dataset.response === edited.of);
    this.part("edit-title").textContent = this.t("edit_of", { letter: card?.dataset.letter ?? "?" });
    this.part("edit-stale").hidden = !this.best() || this.isBest(edited.of);
  }

  /** Show what was typed after a while without typing. */
  edit(text) {
    this.draft.edited.text = text;
    this.draft.save();
    clearTimeout(this.diffTimer);
    this.diffTimer = setTimeout(() => this.showEdits(), DIFF_AFTER);
  }

  showEdits() {
    const { edited } = this.draft;
    if (edited) showDiff(this.part("edit-diff"), this.texts[edited.of] ?? "", edited.text, this.t);
  }

  /** Begin anew from the response that is best now. */
  editBest() {
    this.draft.edited = null;
    this.openEditor();
    this.draft.save();
  }

  discardEdit() {
    this.draft.edited = null;
    this.part("editor").hidden = true;
    this.changed();
    this.mark(this.current);
  }
}

function check(radios, value) {
  for (const radio of radios) radio.checked = Number(radio.value) === value;
}

function focusOn(element) {
  if (!element) return false;
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "nearest" });
  return true;
}
