// The lead's page: tabs whose panels come from the server as HTML, and forms and buttons that call it.
//   <button data-open="decided" data-annotator_id="…">   opens a tab, with these values as its message
//   <form data-call="publish">, <button data-call="hand_back" data-lease_id="…">   calls, then shows what comes back
"use strict";
(() => {
  const REFRESH_SECONDS = 30;
  const SOON_SECONDS = 3; // a figure is being worked out
  const TOAST_SECONDS = 4;
  const LIVE = ["quality", "queue"];
  const GONE = "The annotation app cannot be reached. Try again when it runs.";

  /** Ask the server; a reply with `error` where it does not answer. */
  async function call(action, message) {
    try {
      const badge = document.documentElement.dataset.badge ?? ""; // somebody else may be signed in by now
      const headers = { "content-type": "application/json", "x-plumbline-badge": badge };
      const answer = await fetch(`/lead-work/${action}`, { method: "POST", headers, body: JSON.stringify(message) });
      return await answer.json();
    } catch (fault) {
      console.error(fault);
      return { error: GONE };
    }
  }

  /** What a form or a button says: its fields, or its data-… values; empty ones are left out. */
  function messageOf(element) {
    const message = {};
    if (element instanceof HTMLFormElement) {
      for (const field of element.elements) {
        if (!field.name) continue;
        if ("list" in field.dataset) {
          message[field.name] ??= [];
          if (field.checked) message[field.name].push(field.value);
        } else if (field.type === "checkbox") message[field.name] = field.checked;
        else if (field.type === "number") message[field.name] = field.value === "" ? null : Number(field.value);
        else if (field.type !== "radio" || field.checked) message[field.name] = field.value;
      }
    }
    for (const [name, value] of Object.entries(element.dataset)) {
      if (!["call", "open", "confirm", "reset"].includes(name)) message[name] = /^\d{1,15}$/.test(value) ? Number(value) : value;
    }
    return message;
  }

  /** Whether somebody is writing in a panel or a form: it is not replaced under their hands. */
  function isEdited(place) {
    return [...place.querySelectorAll("textarea, input:not([type=hidden]), select")].some(
      (field) =>
        field === document.activeElement ||
        (field.type === "checkbox" ? field.checked !== field.defaultChecked : "defaultValue" in field && field.value !== field.defaultValue),
    );
  }

  /** What a form does and to whom: by this it is found again in new content. */
  const formName = (form) => JSON.stringify(form?.dataset ?? null);
  const foldName = (fold) => fold.id || fold.querySelector("summary").textContent + formName(fold.querySelector("form"));

  /** A selector of an element by its place in the panel. */
  function pathOf(element, panel) {
    const steps = [];
    for (let one = element; one !== panel; one = one.parentElement) {
      steps.unshift(`${one.localName}:nth-child(${[...one.parentElement.children].indexOf(one) + 1})`);
    }
    return [":scope", ...steps].join(" > ");
  }

  /** Tick who belongs to what a field names, and nobody of what it named before; ticks set by hand stay. */
  function fill(field) {
    const named = field.value.replace(/\s+/g, " ").trim();
    for (const box of field.form.querySelectorAll(`[name="${field.dataset.fills}"]`)) {
      if ("filled" in box.dataset) box.checked = false;
      const belongs = JSON.parse(box.dataset.of).includes(named);
      box.toggleAttribute("data-filled", belongs && !box.checked);
      box.checked ||= belongs;
    }
  }

  class Lead extends HTMLElement {
    connectedCallback() {
      if (this.opened) return;
      this.opened = true;
      this.shown = {}; // panel to the message and the HTML that it shows
      this.asked = {}; // panel to the number of times that something was asked for it
      this.tabs = [...this.querySelectorAll("[role=tab]")];
      this.addEventListener("click", (event) => this.clicked(event));
      this.addEventListener("keydown", (event) => this.pressed(event));
      this.addEventListener("submit", (event) => this.submitted(event));
      this.addEventListener("input", (event) => event.target.matches("[data-fills]") && fill(event.target));
      window.addEventListener("hashchange", () => this.open(this.wanted()));
      document.addEventListener("visibilitychange", () => !document.hidden && this.refresh());
      this.open(this.wanted());
    }

    wanted() {
      const name = location.hash.slice(1);
      return this.panel(name) ? name : this.tabs[0].id.slice(4);
    }

    panel(name) {
      return this.querySelector(`[data-panel="${CSS.escape(name)}"]`);
    }

    // --- tabs ------------------------------------------------------------------------------------------------------

    open(name, message = {}) {
      this.name = name;
      for (const tab of this.tabs) {
        const selected = tab.id === `tab-${name}`;
        tab.setAttribute("aria-selected", String(selected));
        tab.tabIndex = selected ? 0 : -1;
        this.panel(tab.id.slice(4)).hidden = !selected;
      }
      if (location.hash.slice(1) !== name) history.replaceState(null, "", `#${name}`);
      this.shown[name] = { message, html: null };
      this.refresh();
    }

    clicked(event) {
      const tab = event.target.closest("[role=tab]");
      if (tab) return this.open(tab.id.slice(4));
      const opener = event.target.closest("[data-open]");
      if (opener) {
        this.open(opener.dataset.open, messageOf(opener));
        return window.scrollTo({ top: 0 });
      }
      const button = event.target.closest("button[data-call]");
      if (button) this.act(button);
    }

    pressed(event) {
      const place = this.tabs.indexOf(event.target);
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (place < 0 || !step) return;
      event.preventDefault();
      const tab = this.tabs[(place + step + this.tabs.length) % this.tabs.length];
      this.open(tab.id.slice(4));
      tab.focus();
    }

    // --- the server ------------------------------------------------------------------------------------------------

    /** Show the open panel as it is now. What did not change stays in place, so that nothing flickers. */
    async refresh() {
      clearTimeout(this.timer);
      const name = this.name;
      if (LIVE.includes(name)) this.refreshIn(REFRESH_SECONDS);
      if (isEdited(this.panel(name))) return;
      const reply = await this.ask(name, name, this.shown[name].message);
      if (!reply.late && !isEdited(this.panel(name))) this.take(name, reply);
    }

    refreshIn(seconds) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => document.hidden || this.refresh(), seconds * 1000);
    }

    /** Ask something for a panel. A reply is `late`, without HTML, where the panel was asked for anew meanwhile. */
    async ask(name, action, message) {
      const number = (this.asked[name] = (this.asked[name] ?? 0) + 1);
      const reply = await call(action, message);
      return number === this.asked[name] ? reply : { ...reply, html: undefined, late: true };
    }

    /** Show a reply in the panel that asked for it; the form that was `sent` is through, the others are still written. */
    take(name, reply, sent) {
      this.showError(reply.error ?? "");
      if (reply.html !== undefined && reply.html !== this.shown[name].html) {
        this.shown[name].html = reply.html;
        this.replace(this.panel(name), reply.html, sent);
        if (name === this.name && this.panel(name).querySelector("[data-soon]")) this.refreshIn(SOON_SECONDS);
      }
      if (reply.notice) this.notify(reply.notice);
    }

    /** New content, with focus, opened details, the scrolled tables and what is being written where they were. */
    replace(panel, html, sent) {
      const focused = panel.contains(document.activeElement) ? document.activeElement : null;
      const path = focused && pathOf(focused, panel);
      const written = [...panel.querySelectorAll("form")].filter((form) => form !== sent && isEdited(form));
      const opened = new Map([...panel.querySelectorAll("details")].map((one) => [foldName(one), one.open]));
      const scrolled = [...panel.querySelectorAll(".pl-scroll")].map((one) => one.scrollLeft);
      panel.innerHTML = html;
      panel.querySelectorAll("details").forEach((one) => (one.open = opened.get(foldName(one)) ?? one.open));
      panel.querySelectorAll(".pl-scroll").forEach((one, place) => (one.scrollLeft = scrolled[place] ?? 0));
      for (const form of written) {
        [...panel.querySelectorAll("form")].find((one) => formName(one) === formName(form))?.replaceWith(form);
      }
      if (focused) (panel.contains(focused) ? focused : (panel.querySelector(path) ?? panel)).focus({ preventScroll: true });
    }

    submitted(event) {
      if (event.target.matches(".pl-downloads")) {
        event.preventDefault();
        return this.download(event.target, event.submitter);
      }
      const form = event.target.closest("form[data-call]");
      if (!form) return;
      event.preventDefault();
      this.act(form, event.submitter);
    }

    /** Call what a form or a button names. A second press while it is under way does nothing. */
    async act(element, submitter) {
      const plain = submitter && "plain" in submitter.dataset; // changes nothing
      if (element.busy || (!plain && element.dataset.confirm && !window.confirm(element.dataset.confirm))) return;
      element.busy = true;
      const { name } = this;
      const message = messageOf(element);
      const reply = await this.ask(name, submitter?.dataset.call ?? element.dataset.call, message);
      element.busy = false;
      if (reply.preview !== undefined) {
        const place = element.querySelector("[data-preview]");
        place.innerHTML = reply.preview;
        place.hidden = false;
        this.showError("");
        return;
      }
      const writtenOn = JSON.stringify(messageOf(element)) !== JSON.stringify(message);
      this.take(name, reply, writtenOn ? null : element);
      if (reply.html === undefined && !reply.error) this.refresh();
    }

    /** Save a file, where there is something to save: the browser would show a refusal as a page of its own. */
    async download(form, button) {
      const { format } = button.dataset;
      const reply = format ? await call("check_export", { format, people_only: form.elements.people_only.checked }) : {};
      this.showError(reply.error ?? "");
      if (reply.error) return;
      const link = document.createElement("a");
      link.href = `${button.formAction}?${new URLSearchParams(new FormData(form))}`;
      link.download = "";
      link.click();
    }

    showError(text) {
      const place = this.querySelector("[data-lead=error]");
      place.textContent = text;
      place.hidden = !text;
      if (text) place.scrollIntoView({ block: "nearest" });
    }

    notify(text) {
      const toast = this.querySelector("[data-lead=toast]");
      toast.textContent = text;
      toast.classList.add("pl-shown");
      clearTimeout(this.toastTimer);
      this.toastTimer = setTimeout(() => toast.classList.remove("pl-shown"), TOAST_SECONDS * 1000);
    }
  }

  customElements.define("pl-lead", Lead);
})();
