// What the annotator has entered for the shown task, kept in this browser at once and on the server soon after.
import { asMessage, forget, keep, newKey, readKept, shown } from "./kept.js";
import { call } from "./server.js";

const SAVE_AFTER = 1000; // milliseconds without a change
const LONGEST_PAUSE = 30_000;
const MOST_AFTER = 50; // revisions that a message may name

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
   * `task` is what the server sent: `showing` (what is asked, and of whom), `lease`, and `begin`, the draft or the
   * earlier answer to start from. `tell` is called with "saved", "local", "unkept" or ""; `refused` with what the server
   * answered, where the task is no longer theirs or the draft was not taken.
   */
  constructor(task, tell, refused) {
    Object.assign(this, { showing: task.showing, lease: task.lease, tell, refused });
    const { revision } = task.begin;
    const kept = readKept(this.showing);
    const goesOn = kept !== null && isNewest(kept, revision);
    const begin = goesOn ? kept.content : task.begin;
    // The key names this showing of the task: sent again after a lost answer, it does not count twice.
    this.key = kept?.key ?? newKey();
    // The revisions from which the next one goes on: the one that the server told last, and those of which it is not
    // known whether they arrived.
    this.after = goesOn ? kept.after : [revision ?? []].flat();
    this.ranks = new Map(Object.entries(begin.ranks ?? {}));
    this.gaps = new Map(Object.entries(begin.gaps ?? {}));
    this.scores = structuredClone(begin.scores ?? {});
    this.reason = begin.reason ?? "";
    this.allBad = begin.all_bad ?? false;
    this.edited = begin.edited ?? null; // {of: response id, text}
    this.watch = new Stopwatch(begin.seconds ?? 0);
    this.changes = 0;
    this.sending = null;
    this.unsaved = goesOn && !kept.saved;
    if (this.unsaved) this.later(SAVE_AFTER);
    shown.set(this.showing, this);
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
    this.changes += 1;
    this.unsaved = true;
    this.keep();
    this.tell("");
    this.later(SAVE_AFTER);
  }

  keep() {
    const { lease, key, after, unsaved } = this;
    this.isKept = keep(this.showing, { content: this.content(), lease, key, after, saved: !unsaved });
  }

  later(pause) {
    clearTimeout(this.timer);
    this.pause = pause;
    this.timer = setTimeout(() => this.saveOnServer(), pause);
  }

  /**
   * Send what is not saved yet, one state after the other; without an answer, again after a longer pause. `last` does not
   * wait: the page may go. Returns the status of the answer; undefined where nothing was to be sent.
   */
  async saveOnServer({ last = false } = {}) {
    clearTimeout(this.timer);
    while (this.sending && !last) await this.sending;
    if (!this.unsaved || this.over) return undefined;
    this.sending = this.send(last).finally(() => (this.sending = null));
    return this.sending;
  }

  async send(last) {
    const revision = newKey();
    const sent = this.changes;
    const message = asMessage({ lease: this.lease, after: this.after, content: this.content() }, revision);
    this.after = [...this.after, revision];
    if (this.after.length > MOST_AFTER) this.after.splice(1, 1);
    this.keep();
    const { status, body } = await call("draft", message, { last });
    if (this.over) return status;
    const taken = status === 200 && !body?.error && !body?.newer;
    if (taken) {
      this.after = this.after.slice(this.after.indexOf(revision));
      this.unsaved = this.changes !== sent;
      this.keep();
    }
    this.tell(taken ? (this.unsaved ? "" : "saved") : this.isKept ? "local" : "unkept");
    this.refused(status, body);
    const final = status >= 200 && status < 500; // it would be refused again, until something else is entered
    if (!final) this.later(Math.min(this.pause * 2, LONGEST_PAUSE));
    return status;
  }

  /** An answer is on its way, which carries all of it. */
  hold() {
    clearTimeout(this.timer);
  }

  /** The answer is stored, or given up. */
  forget() {
    this.leave();
    forget(this.showing);
  }

  /** Another task is shown, or it is given up: nothing more is saved. */
  leave() {
    this.over = true;
    clearTimeout(this.timer);
    if (shown.get(this.showing) === this) shown.delete(this.showing);
  }
}

/** Whether what the browser kept is newer than the server's draft: it goes on from that, or there is none yet. */
function isNewest(kept, revision) {
  return revision ? kept.after.includes(revision) : !kept.saved;
}
