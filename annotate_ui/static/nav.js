// The head line of every page: who is signed in, the links for their role, light or dark.
"use strict";
(() => {
  const PLACE = "plumbline:theme";

  /** "light" or "dark" where the visitor chose one; else the system's setting counts. */
  function applyTheme() {
    const chosen = localStorage.getItem(PLACE);
    const dark = chosen ? chosen === "dark" : window.matchMedia("(prefers-color-scheme: dark)").matches;
    document.body.classList.toggle("dark", dark);
    document.body.classList.toggle("light", !dark);
  }

  class HeadLine extends HTMLElement {
    connectedCallback() {
      if (this.opened) return;
      this.opened = true;
      applyTheme();
      // Gradio's script names the browser's language, whatever the page is in.
      document.documentElement.lang = this.dataset.lang;
      document.documentElement.dir = this.dataset.direction;
      this.querySelector("[data-nav=theme]").addEventListener("click", () => {
        localStorage.setItem(PLACE, document.body.classList.contains("dark") ? "light" : "dark");
        applyTheme();
      });
      this.showSession();
    }

    async showSession() {
      const session = await (await fetch("/session")).json();
      this.querySelector("[data-pl=name]").textContent = session.name ?? "";
      const links = [...this.querySelectorAll(".pl-nav a")];
      for (const link of links) {
        const roles = link.dataset.roles;
        link.hidden = Boolean(roles) && !roles.split(" ").includes(session.role);
      }
      this.querySelector(".pl-nav").hidden = links.filter((link) => !link.hidden).length < 2;
    }
  }

  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
  if (document.body) applyTheme();
  else document.addEventListener("DOMContentLoaded", applyTheme);
  customElements.define("pl-head", HeadLine);
})();
