// What the board asks the server, and the words of the interface.

const PATIENCE = 15_000; // milliseconds after which no answer is expected any more

/** What tells the person whose page this is from others. */
export const ownBadge = () => document.documentElement.dataset.badge ?? "";

/**
 * Ask the server. `status` is 0 where no answer came in time; `body` is null where none came that can be read.
 * `last` lets the request outlive the page. `badge` says for whom it is: the server refuses it (409) where somebody else
 * is signed in.
 */
export async function call(action, message, { last = false, badge = ownBadge() } = {}) {
  try {
    const headers = { "content-type": "application/json", "x-plumbline-badge": badge };
    const body = JSON.stringify(message);
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch(`/annotate-work/${action}`, { method: "POST", headers, body, keepalive: last, signal });
    return { status: answer.status, body: await bodyOf(answer) };
  } catch (fault) {
    console.warn(fault);
    return { status: 0, body: null };
  }
}

/** Who is signed in: {name, role}, without them where nobody is or no answer came. */
export async function session() {
  try {
    return await (await fetch("/session", { signal: AbortSignal.timeout(PATIENCE) })).json();
  } catch (fault) {
    console.warn(fault);
    return {};
  }
}

async function bodyOf(answer) {
  try {
    return await answer.json();
  } catch (fault) {
    if (fault.name === "SyntaxError") return null;
    throw fault; // the connection was lost in the middle of it
  }
}

/** The texts that the server put into the page: `t("ranked", {letter: "A", rank: 1})`. */
export function textsOf(root) {
  const texts = JSON.parse(root.dataset.texts);
  return (key, values = {}) => texts[key].replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
}

/** An element with attributes and children; strings become text, never HTML. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
