// Drafts as this browser keeps them, each under the showing that it is of:
// {content, key, lease, badge, after, saved}; `saved` says that the server has all of it.
import { ofBrowser } from "../storage.js";
import { call, ownBadge } from "./server.js";

const PREFIX = "plumbline:draft:";
const KEEP_DAYS = 14;
const DECIDED = [undefined, 200, 401, 409]; // nothing to send, taken or refused for good, nobody or somebody else is in

/** The drafts that are on the page, by showing: they save themselves. */
export const shown = new Map();

export function readKept(showing) {
  try {
    const kept = JSON.parse(ofBrowser.get(PREFIX + showing));
    return kept?.content ? kept : null; // not as an earlier version kept it
  } catch {
    return null;
  }
}

/** Returns whether the browser keeps it. */
export function keep(showing, kept) {
  return ofBrowser.set(PREFIX + showing, JSON.stringify({ badge: ownBadge(), ...kept }));
}

export function forget(showing) {
  ofBrowser.remove(PREFIX + showing);
}

/** Bring to the server what it does not have yet; returns whether nothing is left that it might still take. */
export async function handOver() {
  const statuses = await Promise.all(showings().map((showing) => shown.get(showing)?.saveOnServer() ?? send(showing)));
  return statuses.every((status) => DECIDED.includes(status));
}

/** Forget what the server has: somebody else may sit here next. */
export function forgetSaved() {
  for (const draft of shown.values()) draft.leave();
  forgetThose((kept) => kept?.saved);
}

export function forgetOld() {
  const oldest = Date.now() - KEEP_DAYS * 24 * 3600 * 1000;
  forgetThose((kept) => !(kept?.content?.at > oldest));
}

/** What a draft is sent as: `revision` names this state of it, `after` those from which it may go on. */
export function asMessage({ lease, content, after }, revision) {
  return { lease_id: lease, after, content: { ...content, revision } };
}

/** 128 random bits. Not `crypto.randomUUID`, which browsers have at https and localhost alone. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function send(showing) {
  const kept = readKept(showing);
  if (!kept || kept.saved) return undefined;
  const revision = newKey();
  const { status, body } = await call("draft", asMessage(kept, revision), { badge: kept.badge });
  const saved = status === 200 && !body?.newer; // one that is refused is of an answered task
  keep(showing, { ...kept, saved, after: saved ? [revision] : [...kept.after, revision] });
  return status;
}

function forgetThose(isOver) {
  for (const showing of showings()) {
    if (isOver(readKept(showing))) forget(showing);
  }
}

function showings() {
  return ofBrowser.places(PREFIX).map((place) => place.slice(PREFIX.length));
}
