// What the board asks the server, and the words of the interface.

/**
 * Ask the server. `status` is 0 where no answer came; `body` is null where none came that can be read.
 * `last` lets the request outlive the page.
 */
export async function call(action, message, { last = false } = {}) {
  try {
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify(message);
    const answer = await fetch(`/annotate-work/${action}`, { method: "POST", headers, body, keepalive: last });
    return { status: answer.status, body: await answer.json().catch(() => null) };
  } catch (fault) {
    console.warn(fault);
    return { status: 0, body: null };
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
