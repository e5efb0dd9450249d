// The Export section: download the data as files, and pause the project.

import { file } from "../api.js";
import { h, button } from "../dom.js";
import { table } from "./lead_parts.js";

const FILES = [
  ["rankings", "jsonl", "one row per ranking: prompt, answers, ranks; read by align rm"],
  ["preferences", "jsonl", "one row per pair that a ranking decides: prompt, chosen, rejected"],
  ["audit", "jsonl", "everything: tasks, all versions of all annotations, all events"],
  ["people", "csv", "one row per person: hours, rankings, quality"],
];

export class Export {
  constructor(lead, name, title) {
    this.lead = lead;
    this.pausing = h("div", {});
    const rows = FILES.map(([what, kind, words]) => [`${what}.${kind}`, words, button("Download", (event) => this.#download(what, kind, event.target), { "aria-label": `Download ${what}.${kind}` })]);
    this.element = h("section", { class: "parts", "aria-label": title },
      table({ title: "Files", columns: ["file", "contents", "download"], rows }), this.pausing);
  }

  open() {
    const { project } = this.lead.data;
    const words = project.paused ? "No tasks are handed out. People can finish the task that they have open." : "Tasks are handed out.";
    this.pausing.replaceChildren(h("h2", {}, "Pause"), h("p", {}, words),
      button(project.paused ? "Resume the project" : "Pause the project", () => this.lead.decide("pause", { paused: !project.paused })));
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
