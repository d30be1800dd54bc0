// The head line of every page: who is signed in, the links for their role, light or dark, signing out.
import { forgetSaved, handOver } from "./board/kept.js";
import { session } from "./board/server.js";
import { ofBrowser } from "./storage.js";

const THEME = "plumbline:theme";
const SIGN_OUT = 'form[action="/sign-out"], form[action="/account/sign-out-everywhere"]';

/** "light" or "dark" where the visitor chose one; else the system's setting counts. */
function applyTheme() {
  const chosen = ofBrowser.get(THEME);
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
      ofBrowser.set(THEME, document.body.classList.contains("dark") ? "light" : "dark");
      applyTheme();
    });
    document.addEventListener("submit", (event) => {
      if (!event.target.matches(SIGN_OUT)) return;
      event.preventDefault();
      this.signOut(event.target);
    });
    this.showSession();
  }

  async showSession() {
    const { name, role } = await session(); // that the server is away, the page's own calls tell
    this.querySelector("[data-pl=name]").textContent = name ?? "";
    const links = [...this.querySelectorAll(".pl-nav a")];
    for (const link of links) {
      const roles = link.dataset.roles;
      link.hidden = Boolean(roles) && !roles.split(" ").includes(role);
    }
    this.querySelector(".pl-nav").hidden = links.filter((link) => !link.hidden).length < 2;
  }

  /** Leave nothing here for the next person that the server has too; what it has not got stays, and is asked about. */
  async signOut(form) {
    if (this.leaving) return;
    this.leaving = true;
    if ((await handOver()) || (await this.isSure())) {
      forgetSaved();
      form.submit();
    }
    this.leaving = false;
  }

  isSure() {
    const dialog = this.querySelector("[data-nav=unsaved]");
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((tell) => {
      dialog.addEventListener("close", () => tell(dialog.returnValue === "out"), { once: true });
    });
  }
}

applyTheme();
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
// A page that comes back as it was may be that of whoever sat here before.
window.addEventListener("pageshow", (event) => event.persisted && window.location.reload());
customElements.define("pl-head", HeadLine);
