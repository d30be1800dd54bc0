// The box in which the annotator writes. What is in it is kept in this tab, for this annotator, until the server has it.

const PREFIX = "plumbline:arena-prompt";

export class PromptBox {
  /** `before` is where the earlier turns of a drawn prompt are shown, `leftOut` what says that they do not go out. */
  constructor(field, before, leftOut) {
    Object.assign(this, { field, before, leftOut });
    this.drawn = null; // {key, text, before} of the drawn prompt that was put in
    this.first = true; // whether it is written to begin a conversation
    field.addEventListener("input", () => this.keep());
  }

  /** Show what this annotator wrote here before; what others wrote in this tab goes. */
  openFor(person) {
    const place = `${PREFIX}:${person}`;
    if (place === this.place) return;
    this.place = place;
    const kept = readKept(place);
    forgetOthers(place);
    this.put(kept?.text ?? "", kept?.drawn ?? null);
  }

  get text() {
    return this.field.value;
  }

  /** The key of the drawn prompt, where it is as it was drawn. */
  get drawnKey() {
    return this.isAsDrawn() ? this.drawn.key : null;
  }

  /** Whether somebody wrote what is in the box. */
  isOwn() {
    return this.text.trim() !== "" && !this.isAsDrawn();
  }

  isAsDrawn() {
    return this.drawn?.text === this.text;
  }

  /** `drawn` is {key, before} of the prompt that the text was drawn as. */
  put(text, drawn = null) {
    this.field.value = text;
    this.drawn = drawn && { text: this.text, ...drawn }; // as the box gives it back, with line ends of its own
    this.before.innerHTML = drawn?.before ?? "";
    this.keep();
  }

  /** The server has taken this text; what was written since stays. */
  taken(text) {
    if (this.text === text) this.put("");
  }

  /** Ask for the first message of a conversation, or the next one. */
  ask(first) {
    this.first = first;
    this.showBefore();
  }

  keep() {
    if (!this.text) this.drawn = null;
    if (this.place) keep(this.place, { text: this.text, drawn: this.drawn });
    this.showBefore();
  }

  showBefore() {
    const follows = this.first && this.drawn?.before;
    this.before.hidden = !(follows && this.isAsDrawn());
    this.leftOut.hidden = !(follows && this.isOwn());
  }
}

function forgetOthers(place) {
  for (const other of keptPlaces()) if (other !== place) sessionStorage.removeItem(other);
}

function keptPlaces() {
  try {
    return Object.keys(sessionStorage).filter((place) => place.startsWith(PREFIX));
  } catch {
    return []; // the browser lets pages keep nothing
  }
}

function readKept(place) {
  try {
    return JSON.parse(sessionStorage.getItem(place) ?? "null");
  } catch {
    return null;
  }
}

function keep(place, content) {
  try {
    sessionStorage.setItem(place, JSON.stringify(content));
  } catch (fault) {
    console.warn(fault); // no room left, or pages may keep nothing: it stays in the box
  }
}
