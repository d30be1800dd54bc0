// What the annotator has entered for the shown task, kept in this browser at once and on the server soon after.
import { call } from "./server.js";

const SAVE_AFTER = 1000; // milliseconds without a change
const LONGEST_PAUSE = 30_000;
const PREFIX = "plumbline:draft:";
const KEEP_DAYS = 14;

/** Seconds for which the page was visible since the task was shown. */
class Stopwatch {
  constructor(spent) {
    this.spent = spent;
    this.since = document.hidden ? null : performance.now();
  }
  pause() {
    this.spent = this.seconds();
    this.since = null;
  }
  resume() {
    this.since ??= performance.now();
  }
  seconds() {
    const running = this.since === null ? 0 : (performance.now() - this.since) / 1000;
    return Math.round((this.spent + running) * 10) / 10;
  }
}

export class Draft {
  /**
   * `task` is what the server sent: `draft_key` (task and annotator), `lease`, and `begin`, the draft or the earlier
   * answer to start from. What this browser kept counts when it is newer. `tell` is called with "saved", "local" or "";
   * `refused` with what the server answered, where the task is no longer theirs or the draft was not taken.
   */
  constructor(task, tell, refused) {
    this.place = PREFIX + task.draft_key;
    this.lease = task.lease;
    Object.assign(this, { tell, refused });
    const kept = readKept(this.place);
    const begin = kept && kept.at >= (task.begin.at ?? 0) ? kept : task.begin;
    // The key names this view of the task: sent again after a lost answer, it does not count twice.
    this.key = kept?.key ?? newKey();
    this.ranks = new Map(Object.entries(begin.ranks ?? {}));
    this.gaps = new Map(Object.entries(begin.gaps ?? {}));
    this.scores = structuredClone(begin.scores ?? {});
    this.reason = begin.reason ?? "";
    this.allBad = begin.all_bad ?? false;
    this.edited = begin.edited ?? null; // {of: response id, text}
    this.watch = new Stopwatch(begin.seconds ?? 0);
    this.pause = SAVE_AFTER;
    this.unsaved = false;
  }

  content() {
    return {
      at: Date.now(),
      ranks: Object.fromEntries(this.ranks),
      gaps: Object.fromEntries(this.gaps),
      scores: this.scores,
      reason: this.reason,
      all_bad: this.allBad,
      edited: this.edited,
      seconds: this.watch.seconds(),
    };
  }

  /** Something was entered. */
  save() {
    keep(this.place, { ...this.content(), key: this.key });
    this.unsaved = true;
    this.tell("");
    this.later(SAVE_AFTER);
  }

  later(pause) {
    clearTimeout(this.timer);
    this.pause = pause;
    this.timer = setTimeout(() => this.saveOnServer(), pause);
  }

  /** Send what is not saved yet; without an answer, again after a longer pause. */
  async saveOnServer({ last = false } = {}) {
    clearTimeout(this.timer);
    if (!this.unsaved) return;
    this.unsaved = false;
    this.saving = call("draft", { lease_id: this.lease, content: this.content() }, { last });
    const { status, body } = await this.saving;
    if (this.over) return;
    const taken = status === 200 && !body?.error;
    if (taken) this.tell(this.unsaved ? "" : "saved");
    else this.tell("local");
    this.refused(status, body);
    if (taken || status === 200) return;
    this.unsaved = true;
    const final = status >= 400 && status < 500; // it would be refused again, until something else is entered
    if (!final) this.later(Math.min(this.pause * 2, LONGEST_PAUSE));
  }

  /** An answer is on its way, which carries all of it. */
  hold() {
    clearTimeout(this.timer);
  }

  /** The answer is stored. */
  forget() {
    this.leave();
    localStorage.removeItem(this.place);
  }

  /** Another task is shown. */
  leave() {
    this.over = true;
    this.unsaved = false;
    clearTimeout(this.timer);
  }
}

/** 128 random bits. Not `crypto.randomUUID`, which browsers have at https and localhost alone. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Forget all drafts of this browser: somebody else may sit here next. The server has them. */
export function forgetDrafts(isOld = () => true) {
  for (const place of Object.keys(localStorage)) {
    if (place.startsWith(PREFIX) && isOld(readKept(place))) localStorage.removeItem(place);
  }
}

export function forgetOldDrafts() {
  const oldest = Date.now() - KEEP_DAYS * 24 * 3600 * 1000;
  forgetDrafts((kept) => !(kept?.at > oldest));
}

function readKept(place) {
  try {
    return JSON.parse(localStorage.getItem(place) ?? "null");
  } catch {
    return null;
  }
}

function keep(place, content) {
  try {
    localStorage.setItem(place, JSON.stringify(content));
  } catch (fault) {
    console.warn(fault); // no room left: the server's copy has to do
  }
}
