// The lead's page: its sections and their addresses, Refresh, and the results of actions.

import { call, project, actAs, Failure } from "../api.js";
import { h, button } from "../dom.js";
import { inPlace } from "../place.js";
import { address, Shown, when, within } from "./lead_parts.js";
import { Export } from "./lead_export.js";
import { Guidelines } from "./lead_guidelines.js";
import { People } from "./lead_people.js";
import { Reports } from "./lead_reports.js";
import { Review } from "./lead_review.js";

const PATIENCE_MS = 120_000; // for figures that must be recomputed
const SECTIONS = {
  progress: ["Progress", Shown],
  agreement: ["Agreement", Shown],
  habits: ["Habits", Shown],
  gold: ["Gold", Shown],
  review: ["Review", Review],
  reports: ["Reports", Reports],
  models: ["Models", Shown],
  people: ["People", People],
  guidelines: ["Guidelines", Guidelines],
  export: ["Export", Export],
};

class Lead {
  constructor(root) {
    this.root = root;
    this.sections = {};
    this.underWay = new Set();
    this.problem = h("div", { class: "problem", role: "alert", hidden: true });
    this.status = h("p", { class: "toast", role: "status" });
    this.asOf = h("p", { class: "hint" }, "Loading …");
    this.again = button("Refresh", () => this.refresh());
    this.bar = h("header", { class: "top" });
    this.tabs = h("nav", { class: "tabs", "aria-label": "Sections" });
    this.place = h("div", { class: "section", tabindex: "-1" });
    root.append(this.bar, this.tabs, this.problem,
      h("div", { class: "sheet" }, h("div", { class: "head" }, this.asOf, this.again), this.place), this.status);
    addEventListener("hashchange", () => this.show());
    addEventListener("beforeunload", (event) => Object.values(this.sections).some((one) => one.unsaved) && event.preventDefault());
  }

  /** The section in the page's address, and the item in it. */
  get where() {
    const [name, ...rest] = location.hash.slice(1).split("/");
    return name in SECTIONS ? [name, ...rest] : ["progress"];
  }

  get isAdmin() {
    return this.data.asks.role === "admin";
  }

  /** Reloads everything. Unsaved text stays. */
  async refresh() {
    this.again.disabled = true;
    const data = await this.ask("GET", "page", undefined, { timeout: PATIENCE_MS });
    this.again.disabled = false;
    if (!data) return this.data ?? (this.asOf.textContent = "");
    this.data = data;
    actAs(data.asks.id);
    this.asOf.textContent = `As of ${when(data.as_of)}, computed in ${data.took_s.toFixed(1)} s`;
    this.#drawBar();
    await this.show();
  }

  #drawBar() {
    const { project: about, asks } = this.data;
    this.bar.replaceChildren(
      h("h1", { dir: "auto" }, about.name),
      about.paused ? h("p", { class: "paused" }, "paused: no tasks are handed out") : "",
      h("nav", { "aria-label": "Other pages" },
        project === null ? null : h("a", { href: "/projects" }, "Projects"),
        h("a", { href: within("/app/") }, "Rank answers"),
        h("a", { href: "/account", dir: "auto" }, asks.name)));
  }

  #drawTabs() {
    const [current] = this.where;
    const counts = { reports: this.data.n_reports, review: this.data.disputes.length };
    const tab = ([name, [title]]) =>
      h("a", { href: address(name), "aria-current": name === current ? "page" : null }, title,
        counts[name] ? h("span", { class: "count" }, String(counts[name])) : null);
    this.tabs.replaceChildren(...Object.entries(SECTIONS).map(tab));
  }

  /** Shows the section in the page's address with the server's current data. */
  async show() {
    if (!this.data) return;
    const tree = this.root.getRootNode();
    const [onTab, inside] = [this.tabs, this.place].map((part) => part.contains(tree.activeElement));
    this.#drawTabs();
    const [name, ...rest] = this.where;
    if (onTab) this.tabs.querySelector("[aria-current]").focus();
    this.sections[name] ??= new SECTIONS[name][1](this, name, SECTIONS[name][0]);
    const section = this.sections[name];
    if (this.place.firstChild !== section.element) this.place.replaceChildren(section.element);
    await section.open(...rest);
    if (inside && !tree.activeElement) this.place.focus(); // the focused element was redrawn
  }

  /** The server's answer, or null if it refuses: then the page shows why. */
  async ask(method, path, body, options) {
    try {
      const answer = await call(method, `lead/${path}`, body, options);
      this.problem.hidden = true;
      if (answer.done) this.say(answer.done);
      return answer;
    } catch (failure) {
      this.failure = failure;
      this.fail(failure);
      return null;
    }
  }

  /** Posts a change and refreshes the page. Returns the answer, or null if it was refused. */
  decide(path, body) {
    return this.once(path + JSON.stringify(body), async () => {
      const answer = await this.ask("POST", path, body);
      if (answer) await this.refresh();
      return answer;
    });
  }

  /** Runs an action unless the same one is running: a double click counts once. */
  async once(what, act) {
    if (this.underWay.has(what)) return null;
    this.underWay.add(what);
    try {
      return await act();
    } finally {
      this.underWay.delete(what);
    }
  }

  fail(failure) {
    if (!(failure instanceof Failure)) throw failure;
    const next = `/login?next=${encodeURIComponent(within("/lead/"))}`;
    const login = h("a", { class: "primary", href: next, target: "_blank" }, "Log in again"); // in a new tab, so that typed text stays
    const out = failure.status === 401;
    if (failure.status === 404 && project === null && !this.data) return location.replace("/projects"); // one of several
    const words = out ? `${failure.message} Your unsaved text stays on this page: log in, then come back.` : `${failure.message} ${failure.remedy}`;
    this.problem.replaceChildren(h("span", {}, words), out ? login : "", button("Close", () => (this.problem.hidden = true), { class: "quiet" }));
    this.problem.hidden = false;
    this.say("");
  }

  say(words) {
    clearTimeout(this.saying);
    this.status.textContent = words;
    this.saying = setTimeout(() => (this.status.textContent = ""), 12_000);
  }
}

inPlace("align-lead", "label lead", "/static/label/lead.css", (root) => new Lead(root).refresh());
