// What was said, as files; and whether anybody is given tasks.

import { file } from "../api.js";
import { h, button } from "../dom.js";
import { table } from "./lead_parts.js";

const FILES = [
  ["rankings", "jsonl", "a row for each ranking: prompt, answers, ranks; align.rm reads it"],
  ["preferences", "jsonl", "a row for each pair of answers that a ranking decides: prompt, chosen, rejected"],
  ["audit", "jsonl", "everything: tasks, all versions of what was said, all events"],
  ["people", "csv", "a row for each person: hours, rankings, quality"],
];

export class Export {
  constructor(lead, name, title) {
    this.lead = lead;
    this.pausing = h("div", {});
    const rows = FILES.map(([what, kind, words]) => [`${what}.${kind}`, words, button("Download", (event) => this.#download(what, kind, event.target), { "aria-label": `Download ${what}.${kind}` })]);
    this.element = h("section", { class: "parts", "aria-label": title },
      table({ title: "Files", columns: ["file", "what is in it", "get it"], rows }), this.pausing);
  }

  open() {
    const { project } = this.lead.data;
    const words = project.paused ? "Nobody is given a task. Who has one can finish it." : "People are given tasks.";
    this.pausing.replaceChildren(h("h2", {}, "Pause"), h("p", {}, words),
      button(project.paused ? "Go on" : "Pause the project", () => this.lead.decide("pause", { paused: !project.paused })));
  }

  async #download(what, kind, pressed) {
    pressed.disabled = true;
    try {
      const url = URL.createObjectURL(await file(`lead/export/${what}`));
      h("a", { href: url, download: `${what}.${kind}` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (failure) {
      this.lead.fail(failure);
    } finally {
      pressed.disabled = false;
    }
  }
}
