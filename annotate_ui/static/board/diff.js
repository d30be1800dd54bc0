// Which words two texts share: a shortest way from one to the other, found from both ends at once in linear space
// (Myers 1986, https://doi.org/10.1007/BF01840446).
import { make } from "./server.js";

const WORDS = /\s+|\p{Script=Han}|[\p{L}\p{N}\p{M}_]+|./gsu;
const MOST_STEPS = 40_000_000; // of the search, half a second: what is not compared then is shown as replaced

/**
 * `pieces` are `[kind, text]` that make `after` of `before`, kind is "same", "del" or "ins"; `whole` says whether all
 * was compared word by word.
 */
export function diffWords(before, after, mostSteps = MOST_STEPS) {
  const [old, fresh] = [before, after].map((text) => text.match(WORDS) ?? []);
  const search = new Search(old, fresh, mostSteps);
  search.compare(0, old.length, 0, fresh.length);
  return { pieces: joined(search.pieces(old, fresh)), whole: search.whole };
}

/** The pieces as an element: inserted words underlined, deleted ones struck through. */
export function showDiff(place, before, after, t) {
  const { pieces, whole } = diffWords(before, after);
  const shown = pieces.map(([kind, text]) => (kind === "same" ? document.createTextNode(text) : make(kind, {}, text)));
  place.replaceChildren(...(whole ? [] : [make("p", { class: "pl-note" }, t("diff_rough"))]), ...shown);
}

class Search {
  constructor(old, fresh, mostSteps) {
    const numbers = new Map();
    const numbered = (word) => numbers.get(word) ?? (numbers.set(word, numbers.size), numbers.size - 1);
    this.old = Int32Array.from(old, numbered);
    this.fresh = Int32Array.from(fresh, numbered);
    this.deleted = new Uint8Array(old.length);
    this.inserted = new Uint8Array(fresh.length);
    this.middle = old.length + fresh.length + 1; // where diagonal 0 is in the two arrays below
    this.forth = new Int32Array(2 * this.middle + 1); // how far along `old` each diagonal is reached, from the start
    this.back = new Int32Array(2 * this.middle + 1); // and from the end
    this.steps = mostSteps;
    this.whole = true;
  }

  /** Mark what is deleted of old[i, iEnd) and inserted of fresh[j, jEnd). */
  compare(i, iEnd, j, jEnd) {
    const { old, fresh } = this;
    while (i < iEnd && j < jEnd && old[i] === fresh[j]) [i, j] = [i + 1, j + 1];
    while (i < iEnd && j < jEnd && old[iEnd - 1] === fresh[jEnd - 1]) [iEnd, jEnd] = [iEnd - 1, jEnd - 1];
    const between = i < iEnd && j < jEnd ? this.between(i, iEnd, j, jEnd) : null;
    if (between) {
      const [x, y] = between;
      this.compare(i, i + x, j, j + y);
      this.compare(i + x, iEnd, j + y, jEnd);
    } else {
      if (i < iEnd && j < jEnd) this.whole = false;
      this.deleted.fill(1, i, iEnd);
      this.inserted.fill(1, j, jEnd);
    }
  }

  /** A point on a shortest way, half of the changes before it; null where looking for it takes too long. */
  between(i, iEnd, j, jEnd) {
    const { old, fresh, forth, back, middle } = this;
    const [width, height] = [iEnd - i, jEnd - j];
    const shift = width - height;
    const odd = Math.abs(shift) % 2 === 1;
    forth.fill(0, middle - height - 1, middle + width + 2);
    back.fill(0, middle - height - 1, middle + width + 2);
    for (let changes = 0; ; changes++) {
      const first = -(changes - 2 * Math.max(0, changes - height));
      const last = changes - 2 * Math.max(0, changes - width);
      for (const forward of [true, false]) {
        const [reached, met] = forward ? [forth, back] : [back, forth];
        const ahead = forward ? changes - 1 : changes; // changes that the other side has made
        for (let k = first; k <= last; k += 2) {
          const down = k === -changes || (k !== changes && reached[middle + k - 1] < reached[middle + k + 1]);
          let x = down ? reached[middle + k + 1] : reached[middle + k - 1] + 1;
          let y = x - k;
          const from = x;
          if (forward) while (x < width && y < height && old[i + x] === fresh[j + y]) [x, y] = [x + 1, y + 1];
          else while (x < width && y < height && old[iEnd - 1 - x] === fresh[jEnd - 1 - y]) [x, y] = [x + 1, y + 1];
          this.steps -= 1 + x - from;
          reached[middle + k] = x;
          const other = shift - k;
          if (odd === forward && Math.abs(other) <= ahead && x + met[middle + other] >= width) {
            return forward ? [x, y] : [width - x, height - y];
          }
        }
      }
      if (this.steps < 0) return null;
    }
  }

  pieces(old, fresh) {
    const pieces = [];
    let [i, j] = [0, 0];
    while (i < old.length || j < fresh.length) {
      if (this.deleted[i]) pieces.push(["del", old[i++]]);
      else if (this.inserted[j]) pieces.push(["ins", fresh[j++]]);
      else pieces.push(["same", (j++, old[i++])]);
    }
    return pieces;
  }
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
