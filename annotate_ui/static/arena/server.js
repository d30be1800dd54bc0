// What the arena asks the server.
import { ownBadge } from "../board/server.js";

/** Ask the server. `status` is 0 where no answer came; `body` is null where none came that can be read. */
export async function call(action, message) {
  try {
    const answer = await post(action, message);
    return { status: answer.status, body: await answer.json().catch(() => null) };
  } catch (fault) {
    console.warn(fault);
    return { status: 0, body: null };
  }
}

/** Post a message; the answer may be one object or lines of them (see `lines`). */
export function post(action, message, signal = null) {
  const headers = { "content-type": "application/json", "x-plumbline-badge": ownBadge() };
  return fetch(`/arena-work/${action}`, { method: "POST", headers, body: JSON.stringify(message), signal });
}

/** Who is signed in; null where no answer came. */
export async function readSession() {
  try {
    return await (await fetch("/session")).json();
  } catch (fault) {
    console.warn(fault);
    return null;
  }
}

/** The lines of an answer, one object each. The last one may have no end: a refusal is an object without one. */
export async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
  if (rest) yield JSON.parse(rest);
}
