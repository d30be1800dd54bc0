// Which key does what.
import { ofBrowser } from "../storage.js";

const TEXT_FIELDS = "textarea, select, input:not([type=radio]):not([type=checkbox])";
const ANYWHERE = { u: "undo", w: "work", g: "guideline", "?": "help" };
const ON_TASK = { s: "skip", f: "flag", b: "allBad", e: "edit", d: "compare", n: "note", r: "scores", h: "release" };
const SCROLLS = "pre, table, .pl-diff, #pl-sidebar"; // there arrows scroll
const MOVES = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };

const KEYS_OFF = "plumbline:keys-off"; // who dictates, or hits keys by accident, has no keys of one character

export function keysAreOff() {
  return Boolean(ofBrowser.get(KEYS_OFF));
}

export function switchKeys(on) {
  ofBrowser.set(KEYS_OFF, on ? "" : "yes");
}

/** Let buttons name their key only where it does something. */
export function showKeys(root) {
  const [on, off] = ["aria-keyshortcuts", "data-keyshortcuts"];
  const [from, to] = keysAreOff() ? [on, off] : [off, on];
  for (const button of root.querySelectorAll(`[${from}]`)) {
    const key = button.getAttribute(from);
    if (key.length > 1) continue;
    button.setAttribute(to, key);
    button.removeAttribute(from);
  }
}

/** What a key press asks of the board, as a function; undefined for keys that are not ours. */
export function actionOf(event, board) {
  if (event.isComposing || event.repeat || document.querySelector("dialog[open]")) return undefined;
  const typing = event.target.closest?.(TEXT_FIELDS);
  if (typing) return inText(event, typing, board);
  if (event.ctrlKey || event.altKey || event.metaKey) return undefined;
  if (event.key.length === 1 && keysAreOff()) return undefined;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const { task } = board;
  if (Object.hasOwn(ANYWHERE, key)) return () => board[ANYWHERE[key]]();
  if (!task) return board.quiz ? inQuiz(key, event.target, board) : undefined;
  if (Object.hasOwn(ON_TASK, key)) return () => board[ON_TASK[key]]();
  return onTask(key, event.target, task, board);
}

/** In a text field only leaving it and submitting are ours. */
function inText(event, field, board) {
  if (!board.task || !field.closest(".pl-task")) return undefined;
  if (event.key === "Escape") return () => board.task.goOnOrMark();
  return event.key === "Enter" && (event.ctrlKey || event.metaKey) ? () => board.judge() : undefined;
}

function inQuiz(key, target, board) {
  if (/^[1-9]$/.test(key)) return () => board.quiz.digit(Number(key));
  return key === "Enter" && !target.closest?.("button, a, summary, input") ? () => board.handIn() : undefined;
}

function onTask(key, target, task, board) {
  const field = target.closest?.(".pl-gap, .pl-axis");
  if (/^[1-9]$/.test(key)) return () => (field ? task.digitIn(field, Number(key)) : task.rankCurrent(Number(key)));
  if (key === "=") return () => task.tieWithPrevious();
  const onControl = target.closest?.("button, a, summary, input");
  if (key === "Enter") return onControl && !onControl.matches("input[type=radio]") ? undefined : () => board.judge();
  if (onControl) return undefined;
  if (MOVES[key] && target.closest?.(SCROLLS)) return undefined;
  if (MOVES[key]) return () => (field ? focusBeside(field, MOVES[key], task) : task.mark(task.current + MOVES[key]));
  return key === "Backspace" ? () => task.takeBack() : undefined;
}

function focusBeside(field, step, task) {
  const fields = [...task.shown.querySelectorAll(field.matches(".pl-gap") ? ".pl-gap" : ".pl-axis")];
  fields[fields.indexOf(field) + step]?.focus();
}
