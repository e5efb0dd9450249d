// The page's frame: top bar, the current view, error messages.

import { call, actAs } from "../api.js";
import { h, button } from "../dom.js";
import { Arena } from "./arena.js";
import { Bench } from "./bench.js";
import { Board } from "./board.js";

export class Page {
  constructor(root) {
    this.root = root;
  }

  async start() {
    this.problem = h("div", { class: "problem", role: "alert", hidden: true });
    this.main = h("div", { class: "views" });
    try {
      this.config = await call("GET", "config");
    } catch (failure) {
      this.root.append(this.problem);
      return this.tell(failure);
    }
    const { config } = this;
    if (config.person) actAs(config.person.id);
    this.views = { bench: ["Side by side", new Bench(this)] };
    if (config.arena) {
      this.views.arena = ["Arena", new Arena(this)];
      this.views.board = ["Leaderboard", new Board(this)];
    }
    this.root.append(this.#bar(), this.problem, this.main);
    window.addEventListener("hashchange", () => this.#show());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.shown.stop?.());
    this.#show();
  }

  #bar() {
    const { config } = this;
    const several = Object.keys(this.views).length > 1;
    this.tabs = Object.entries(this.views).map(([name, [label]]) => h("a", { href: `#${name}`, "data-view": name }, label));
    return h("header", { class: "top" },
      h("h1", { dir: "auto" }, config.name),
      several ? h("nav", { "aria-label": "Views", class: "tabs" }, this.tabs) : null,
      config.person ? h("a", { href: "/account", dir: "auto", class: "account" }, config.person.name) : null);
  }

  #show() {
    const asked = location.hash.slice(1);
    const name = asked in this.views ? asked : "bench";
    for (const tab of this.tabs) {
      if (tab.dataset.view === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    this.shown = this.views[name][1];
    this.clear();
    this.main.replaceChildren(this.shown.element);
    this.shown.open?.();
  }

  /** Shows an error and its remedy. */
  tell({ message, remedy = "", status }) {
    const more = status === 401
      ? h("a", { class: "primary", href: "/login?next=/app/" }, "Log in again")
      : button("Close", () => this.clear(), { class: "quiet" });
    this.problem.replaceChildren(h("span", {}, `${message} ${remedy}`.trim()), more);
    this.problem.hidden = false;
  }

  clear() {
    this.problem.hidden = true;
    this.problem.replaceChildren();
  }
}
