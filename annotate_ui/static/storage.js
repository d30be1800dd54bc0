// What this browser keeps for the pages. Where it keeps nothing (storage is switched off, or full), a page goes on with
// what it remembers itself until it is closed.

class Storage {
  /** `name` is "localStorage" or "sessionStorage": the mere look at one that is switched off is refused. */
  constructor(name) {
    this.name = name;
    this.unkept = new Map();
  }

  /** The text at a place, or null. */
  get(place) {
    return this.unkept.get(place) ?? this.attempt((storage) => storage.getItem(place)) ?? null;
  }

  /** Put a text at a place; returns whether the browser keeps it beyond this page. */
  set(place, text) {
    const kept = this.attempt((storage) => storage.setItem(place, text) ?? true) ?? false;
    if (kept) this.unkept.delete(place);
    else this.unkept.set(place, text);
    return kept;
  }

  remove(place) {
    this.unkept.delete(place);
    this.attempt((storage) => storage.removeItem(place));
  }

  /** The places whose names begin with `prefix`. */
  places(prefix) {
    const places = [...this.unkept.keys(), ...(this.attempt(Object.keys) ?? [])];
    return [...new Set(places)].filter((place) => place.startsWith(prefix));
  }

  attempt(use) {
    try {
      return use(window[this.name]);
    } catch (fault) {
      console.warn(fault);
      return undefined;
    }
  }
}

export const ofBrowser = new Storage("localStorage");
export const ofTab = new Storage("sessionStorage");
