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
      const headers = { "content-type": "application/json" };
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

  class Lead extends HTMLElement {
    connectedCallback() {
      if (this.opened) return;
      this.opened = true;
      this.shown = {}; // panel to the message and the HTML that it shows
      this.tabs = [...this.querySelectorAll("[role=tab]")];
      this.addEventListener("click", (event) => this.clicked(event));
      this.addEventListener("keydown", (event) => this.pressed(event));
      this.addEventListener("submit", (event) => this.submitted(event));
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
      if (LIVE.includes(name)) this.timer = setTimeout(() => document.hidden || this.refresh(), REFRESH_SECONDS * 1000);
      if (this.isEdited(this.panel(name))) return;
      const reply = await call(name, this.shown[name].message);
      if (name === this.name) this.take(reply);
    }

    take(reply) {
      const panel = this.panel(this.name);
      this.showError(reply.error ?? "");
      if (reply.html !== undefined && reply.html !== this.shown[this.name].html) {
        this.shown[this.name].html = reply.html;
        this.replace(panel, reply.html);
        if (panel.querySelector("[data-soon]")) {
          clearTimeout(this.timer);
          this.timer = setTimeout(() => this.refresh(), SOON_SECONDS * 1000);
        }
      }
      if (reply.notice) this.notify(reply.notice);
    }

    /** New content, with focus, opened details and the scrolled tables where they were. */
    replace(panel, html) {
      const focused = panel.contains(document.activeElement) ? this.pathOf(document.activeElement, panel) : null;
      const opened = [...panel.querySelectorAll("details")].map((one) => one.open);
      const scrolled = [...panel.querySelectorAll(".pl-scroll")].map((one) => one.scrollLeft);
      panel.innerHTML = html;
      panel.querySelectorAll("details").forEach((one, place) => (one.open = opened[place] ?? one.open));
      panel.querySelectorAll(".pl-scroll").forEach((one, place) => (one.scrollLeft = scrolled[place] ?? 0));
      if (focused) panel.querySelector(focused)?.focus({ preventScroll: true });
    }

    /** A selector of an element by its place in the panel. */
    pathOf(element, panel) {
      const steps = [];
      for (let one = element; one !== panel; one = one.parentElement) {
        steps.unshift(`${one.localName}:nth-child(${[...one.parentElement.children].indexOf(one) + 1})`);
      }
      return steps.length ? `:scope > ${steps.join(" > ")}` : null;
    }

    /** Whether somebody is writing in the panel: it is not replaced under their hands. */
    isEdited(panel) {
      return [...panel.querySelectorAll("textarea, input:not([type=hidden]), select")].some(
        (field) =>
          field === document.activeElement ||
          (field.type === "checkbox" ? field.checked !== field.defaultChecked : "defaultValue" in field && field.value !== field.defaultValue),
      );
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
      const reply = await call(submitter?.dataset.call ?? element.dataset.call, messageOf(element));
      element.busy = false;
      if (reply.preview !== undefined) {
        const place = element.querySelector("[data-preview]");
        place.innerHTML = reply.preview;
        place.hidden = false;
        this.showError("");
        return;
      }
      this.take(reply);
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
