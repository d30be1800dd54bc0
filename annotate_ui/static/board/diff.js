// Which words two texts share: longest common subsequence, after what they have in common at both ends.

const WORDS = /\s+|\p{Script=Han}|[\p{L}\p{N}\p{M}_]+|./gsu;
const MOST_CELLS = 16_000_000; // of the table; longer texts are shown as wholly replaced

/** Pieces `[kind, text]` that make `after` of `before`; kind is "same", "del" or "ins". */
export function diffWords(before, after) {
  const [old, fresh] = [before, after].map((text) => text.match(WORDS) ?? []);
  let start = 0;
  while (start < old.length && start < fresh.length && old[start] === fresh[start]) start++;
  let end = 0;
  const shorter = Math.min(old.length, fresh.length) - start;
  while (end < shorter && old.at(-1 - end) === fresh.at(-1 - end)) end++;
  const head = old.slice(0, start).map((word) => ["same", word]);
  const tail = old.slice(old.length - end).map((word) => ["same", word]);
  const middle = compare(old.slice(start, old.length - end), fresh.slice(start, fresh.length - end));
  return joined([...head, ...middle, ...tail]);
}

/** The pieces as an element: inserted words underlined, deleted ones struck through. */
export function showDiff(place, before, after) {
  const pieces = diffWords(before, after).map(([kind, text]) => {
    if (kind === "same") return document.createTextNode(text);
    const element = document.createElement(kind);
    element.textContent = text;
    return element;
  });
  place.replaceChildren(...pieces);
}

function compare(old, fresh) {
  if (old.length * fresh.length > MOST_CELLS) {
    return [...old.map((word) => ["del", word]), ...fresh.map((word) => ["ins", word])];
  }
  const width = fresh.length + 1;
  const length = new Uint16Array((old.length + 1) * width); // of the longest common subsequence from (i, j) on
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = fresh.length - 1; j >= 0; j--) {
      const place = i * width + j;
      length[place] =
        old[i] === fresh[j] ? length[place + width + 1] + 1 : Math.max(length[place + width], length[place + 1]);
    }
  }
  const pieces = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      pieces.push(["same", old[i++]]);
      j++;
    } else if (j === fresh.length || (i < old.length && length[(i + 1) * width + j] >= length[i * width + j + 1])) {
      pieces.push(["del", old[i++]]);
    } else {
      pieces.push(["ins", fresh[j++]]);
    }
  }
  return pieces;
}

/** Neighbours of one kind as one piece; changes that only white space parts are one change. */
function joined(pieces) {
  const result = [];
  let change = null;
  const close = () => {
    if (change?.del) result.push(["del", change.del]);
    if (change?.ins) result.push(["ins", change.ins]);
    change = null;
  };
  pieces.forEach(([kind, text], index) => {
    if (kind !== "same") {
      change ??= { del: "", ins: "" };
      change[kind] += text;
    } else if (change && /^\s+$/.test(text) && pieces[index + 1] && pieces[index + 1][0] !== "same") {
      change.del += text;
      change.ins += text;
    } else {
      close();
      if (result.at(-1)?.[0] === "same") result.at(-1)[1] += text;
      else result.push(["same", text]);
    }
  });
  close();
  return result;
}
