// Which key votes.
import { keysAreOff } from "../board/keys.js";

const VOTES = { 1: "left", 2: "right", 3: "tie", 4: "both-bad", ArrowLeft: "left", ArrowRight: "right", "=": "tie", 0: "both-bad" };
const TAKES_KEYS = "input, textarea, select, [role=tab]";
const SCROLLS = "pre, table, .pl-scroll"; // by the arrows, so these do not vote there

/** What a key press votes; undefined where it does not. A vote stands for good, so a key that is held votes nothing. */
export function voteOf(event) {
  if (event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || keysAreOff()) return undefined;
  const elsewhere = event.key.startsWith("Arrow") ? `${TAKES_KEYS}, ${SCROLLS}` : TAKES_KEYS;
  return event.target.closest?.(elsewhere) ? undefined : VOTES[event.key];
}
