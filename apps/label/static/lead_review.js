// The Review section: the list of disputed tasks, one task with the actions on it, and assigning tasks to people.

import { h, button, textBlock } from "../dom.js";
import { address, field, table, within } from "./lead_parts.js";

const ROLES = { system: "System", user: "User", assistant: "Assistant", tool: "Tool", tools: "Tools" };

export class Review {
  constructor(lead, name, title) {
    Object.assign(this, { lead });
    this.list = h("div", {});
    this.number = h("input", { type: "number", min: "1", required: true });
    const find = h("form", { class: "line", onsubmit: (event) => (event.preventDefault(), (location.hash = `review/${this.number.value}`)) },
      field("Open a task by its number", this.number), h("button", {}, "Open"));
    this.assigning = new Assigning(lead);
    this.all = h("div", { class: "parts" }, this.list, find, this.assigning.element);
    this.one = h("div", { class: "parts" });
    this.element = h("section", { "aria-label": title });
  }

  async open(task, what) {
    if (!task) return this.#showList();
    const found = await this.lead.ask("GET", `tasks/${encodeURIComponent(task)}`);
    const [section, id] = this.lead.where;
    if (section !== "review" || id !== task) return; // another task was opened meanwhile
    if (!found) return this.#showList();
    const typed = this.text?.task === found.task.id && this.text.isChanged ? this.text : null;
    this.one.replaceChildren(...this.#task(found.task, typed, what === "edit"));
    this.element.replaceChildren(this.one);
  }

  get unsaved() {
    return this.text?.isChanged || false;
  }

  #showList() {
    const { disputes } = this.lead.data;
    const entry = ({ task, beginning, about }) =>
      h("li", {}, h("a", { href: address("review", task) }, h("span", { class: "excerpt", dir: "auto" }, beginning || "(no text)")),
        h("p", { class: "about" }, `Task ${task} · ${about}`));
    this.list.replaceChildren(h("h2", {}, "Disputed tasks, largest disagreement first"),
      disputes.length ? h("ol", { class: "entries" }, disputes.map(entry)) : h("p", { class: "hint" }, "None."));
    this.element.replaceChildren(this.all);
  }

  #task(task, typed, edits) {
    const ranked = task.rankings.rows.length;
    const facts = [task.status, task.kind === "rank" ? null : `${task.kind} task`, `${task.required} rankings wanted, ${ranked} people answered`,
      task.assigned.length ? `assigned to ${task.assigned.join(", ")}` : null];
    return [
      h("div", {}, h("p", {}, h("a", { href: address("review") }, "All disputes")), h("h2", {}, `Task ${task.id}`),
        h("p", { class: "about", dir: "auto" }, facts.filter(Boolean).join(" · "))),
      this.#actions(task),
      h("div", { class: "box" }, h("h3", {}, "Prompt"), task.prompt.map(turn)),
      h("div", { class: "pair" }, task.answers.map((answer, n) => h("div", { class: "box" }, h("h3", {}, `Answer ${n + 1}`), textBlock(answer, false)))),
      table(task.rankings),
      table(task.remarks),
      task.kind === "rank" && task.status !== "closed" ? this.#editing(task, typed, edits) : "",
    ];
  }

  #actions(task) {
    const { lead } = this;
    const decide = (path, then) => async () => (await lead.decide(path, { task: task.id })) && then && (location.hash = then);
    const closed = task.status === "closed";
    const ranks = task.kind === "rank" && !closed;
    return h("div", { class: "buttons" },
      ranks ? button("Accept as it is", decide("accept", "review")) : null,
      ranks ? button("Ask one more person", decide("send_back", "review")) : null,
      ranks ? h("a", { class: "button", href: within("/app/", { adjudicate: task.public_id }) }, "Rank it myself") : null,
      closed ? button("Reopen", decide("reopen")) : button("Close", decide("close")),
      ranks ? button("Assign", () => this.#assign(task.id)) : null);
  }

  #assign(id) {
    this.assigning.open(id);
    location.hash = "review";
  }

  #editing(task, typed, edits) {
    this.text = typed ?? h("textarea", { rows: "6", dir: "auto" });
    if (!typed) {
      Object.assign(this.text, { value: task.asked, task: task.id, isChanged: false });
      this.text.addEventListener("input", () => (this.text.isChanged = this.text.value !== task.asked));
    }
    const save = () => this.lead.once("edit", async () => {
      this.lead.problem.hidden = true;
      const answer = await this.lead.ask("POST", "edit", { task: task.id, text: this.text.value });
      if (!answer) return;
      this.text.isChanged = false;
      await this.lead.refresh();
    });
    return h("details", { class: "box", open: edits || Boolean(typed) }, h("summary", {}, "Edit the prompt"),
      h("p", { class: "hint" }, "This is the user's last message. The edited prompt becomes a new task with the same answers, and this task is closed."),
      field("New text", this.text), button("Save as a new task", save, { class: "primary" }));
  }
}

/** Tasks for some people and nobody else. */
class Assigning {
  constructor(lead) {
    this.lead = lead;
    this.tasks = h("input", { required: true, inputmode: "numeric", placeholder: "12-40, 55" });
    this.names = h("div", { class: "checks" });
    const form = h("form", { onsubmit: (event) => (event.preventDefault(), this.#send("assign")) },
      field("Tasks", this.tasks, "Numbers and ranges of numbers, as a task's page and the reports give them."),
      h("fieldset", {}, h("legend", {}, "For"), this.names),
      h("div", { class: "buttons" }, h("button", { class: "primary" }, "Assign"), button("Give back to everybody", () => this.#send("unassign"))));
    this.element = h("details", { class: "box", ontoggle: () => this.element.open && this.#load() }, h("summary", {}, "Assign tasks to people"), form);
  }

  open(task) {
    this.tasks.value = String(task);
    this.element.open = true;
  }

  async #load() {
    const checked = this.#chosen();
    const found = await this.lead.ask("GET", "people");
    if (!found) return;
    const box = ({ name }) => {
      const input = h("input", { type: "checkbox", value: name });
      input.checked = checked.includes(name);
      return h("label", { class: "flag" }, input, h("span", { dir: "auto" }, name));
    };
    this.names.replaceChildren(...found.people.filter((one) => one.active).map(box));
  }

  #chosen() {
    return [...this.names.querySelectorAll("input:checked")].map((input) => input.value);
  }

  async #send(path) {
    const tasks = numbers(this.tasks.value);
    const body = path === "assign" ? { tasks, names: this.#chosen() } : { tasks };
    if (!tasks.length) return this.lead.say("Give the numbers of tasks, as 12-40, 55.");
    if (body.names?.length === 0) return this.lead.say("Choose somebody.");
    await this.lead.decide(path, body);
  }
}

/** "12-14, 20" → [12, 13, 14, 20]; [] where it cannot be read. */
export function numbers(words) {
  const parts = words.split(/[\s,;]+(?![-–])/).filter(Boolean);
  const found = parts.map((part) => /^(\d+)(?:\s*[-–]\s*(\d+))?$/.exec(part));
  if (found.some((part) => part === null)) return [];
  return found.flatMap(([, first, last = first]) => {
    const n = Math.min(Number(last) - Number(first) + 1, 10_001); // the server refuses so many
    return Array.from({ length: Math.max(0, n) }, (_, index) => Number(first) + index);
  });
}

function turn({ role, name, thoughts, text, html, calls }) {
  return h("div", { class: `turn ${role}` }, h("span", { class: "role", dir: "auto" }, ROLES[role], name ? ` ${name}` : null),
    h("div", {}, thoughts ? h("details", {}, h("summary", {}, "Thoughts"), textBlock(thoughts, false)) : null,
      text || !calls ? textBlock({ text, html }, false) : null, calls ? textBlock(calls, false) : null));
}
