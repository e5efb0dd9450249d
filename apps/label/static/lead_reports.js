// The Reports section: prompts that annotators reported, and what the lead decides about them.

import { h, button } from "../dom.js";
import { address, when } from "./lead_parts.js";

const HANDLED = { closed: "task closed", kept: "kept as it is", edited: "prompt edited" };

export class Reports {
  constructor(lead, name, title) {
    this.lead = lead;
    this.element = h("section", { class: "parts", "aria-label": title });
  }

  async open() {
    const found = await this.lead.ask("GET", "reports");
    if (!found) return;
    const isNew = found.reports.filter((report) => !report.handled);
    const seen = found.reports.filter((report) => report.handled);
    this.element.replaceChildren(
      h("h2", {}, "Reported prompts, latest first"),
      isNew.length ? h("ol", { class: "entries" }, isNew.map((report) => this.#entry(report))) : h("p", { class: "hint" }, "No open reports."),
      seen.length ? h("details", { class: "box" }, h("summary", {}, `Handled: ${seen.length}`),
        h("ol", { class: "entries" }, seen.map((report) => this.#entry(report)))) : "");
  }

  #entry({ annotation, task, person, reason, comment, at, beginning, task_status: status, handled }) {
    const { lead } = this;
    const act = (path, body) => () => lead.decide(path, body);
    const about = [`Task ${task}`, status, person, when(at), HANDLED[handled]].filter(Boolean).join(" · ");
    return h("li", {},
      h("a", { href: address("review", task) }, h("span", { class: "excerpt", dir: "auto" }, beginning || "(no text)")),
      h("p", { class: "said", dir: "auto" }, [reason, comment].filter(Boolean).join(": ")),
      h("p", { class: "about", dir: "auto" }, about),
      h("div", { class: "buttons" },
        status === "closed" ? button("Reopen the task", act("reopen", { task })) : button("Close the task", act("close", { task })),
        status === "closed" ? null : h("a", { class: "button", href: address("review", task, "edit") }, "Edit the prompt"),
        handled ? null : button("Keep as it is", act("keep", { annotation }))));
  }
}
