// The Guidelines section: an editor with preview, and all versions. Unsaved text stays until it is saved or discarded.

import { h, button, safeHtml } from "../dom.js";
import { field, when } from "./lead_parts.js";

const PREVIEW_MS = 600; // after the last key

export class Guidelines {
  constructor(lead, name, title) {
    this.lead = lead;
    this.text = h("textarea", { rows: "18", dir: "auto", spellcheck: "true", oninput: () => this.#typed() });
    this.preview = h("div", { class: "text rendered", dir: "auto" });
    this.about = h("p", { class: "about", dir: "auto" });
    this.conflict = h("div", { class: "banner", role: "alert", hidden: true });
    this.versions = h("ol", { class: "entries" });
    this.element = h("section", { class: "parts", "aria-label": title },
      h("div", {}, h("h2", {}, "Guidelines"), this.about), this.conflict,
      h("div", { class: "pair" },
        field("Markdown, with $LaTeX$", this.text),
        h("div", { class: "box preview" }, h("h3", {}, "Preview"), this.preview)),
      h("div", { class: "buttons" },
        button("Save", () => lead.once("save", () => this.save()), { class: "primary" }),
        button("Discard my changes", () => this.found && this.take())),
      h("h2", {}, "Versions, latest first"), this.versions);
  }

  get unsaved() {
    return this.now !== undefined && this.text.value !== this.now.text;
  }

  async open() {
    const found = await this.lead.ask("GET", "guidelines");
    if (!found) return;
    this.found = found;
    if (!this.unsaved) this.take();
    else if (found.version !== this.now.version) this.#showConflict();
    this.versions.replaceChildren(...found.versions.map(entry));
  }

  /** Takes the newest text. */
  take() {
    this.now = this.found;
    this.text.value = this.now.text;
    safeHtml(this.preview, this.now.html);
    this.about.textContent = `Version ${this.now.version}`;
    this.conflict.hidden = true;
  }

  #typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.#show(), PREVIEW_MS);
  }

  async #show() {
    const answer = await this.lead.ask("POST", "preview", { text: this.text.value });
    if (answer) safeHtml(this.preview, answer.html);
  }

  async save(version = this.now?.version) {
    const text = this.text.value;
    const answer = await this.lead.ask("POST", "guidelines", { text, version });
    if (answer) {
      this.now = { ...this.now, text, version: answer.version };
      this.conflict.hidden = true;
    }
    if (answer || this.lead.failure.code === "stale") await this.open(); // if somebody else saved meanwhile, `open` shows the conflict
  }

  #showConflict() {
    const { found } = this;
    const latest = found.versions[0];
    this.conflict.replaceChildren(
      h("p", {}, `${latest.by ?? "The project's file"} saved version ${found.version} while you were editing. Your text is still in the box.`),
      h("div", { class: "buttons" },
        button("Save mine anyway", () => this.save(found.version)),
        button("Use theirs, discard mine", () => this.take())),
      h("details", {}, h("summary", {}, "Their text"), h("pre", { class: "text raw", dir: "auto" }, found.text)));
    this.conflict.hidden = false;
  }
}

function entry({ version, by, at, text }) {
  return h("li", {}, h("details", {}, h("summary", { dir: "auto" }, `Version ${version} · ${by ?? "the project's file"} · ${when(at)}`),
    h("pre", { class: "text raw", dir: "auto", tabindex: "0" }, text)));
}
