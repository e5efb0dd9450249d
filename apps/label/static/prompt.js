// The prompt: kept in view above the answers, shown whole, or folded to one line.

import { h, button, textBlock } from "../dom.js";

const ROLES = { system: "System", user: "User", assistant: "Assistant", tool: "Tool", tools: "Tools" };

export class Prompt {
  constructor(desk) {
    this.desk = desk;
    this.state = "kept";
    this.turns = h("div", { class: "turns" });
    const asked = desk.task.prompt.findLast(({ role }) => role === "user") ?? desk.task.prompt.at(-1);
    this.gist = h("p", { class: "excerpt", dir: "auto", hidden: true }, asked.text.slice(0, 200));
    this.size = button("", () => this.#set(this.state === "whole" ? "kept" : "whole"), { class: "quiet", hidden: true });
    this.folding = button("", () => this.fold(), { key: "O", class: "quiet" });
    this.form = button("", () => desk.toggleRaw(), { key: "T", class: "quiet" });
    this.element = h("section", { class: "prompt", "aria-label": "Prompt" },
      h("header", {}, h("h2", {}, "Prompt"), this.gist, this.size, this.folding, this.form), this.turns);
    new ResizeObserver(() => this.#measure()).observe(this.element);
    this.render();
    this.#set("kept");
  }

  render() {
    const { task, raw } = this.desk;
    this.form.firstChild.data = raw ? "Rendered" : "Raw text";
    this.turns.replaceChildren(...task.prompt.map((turn) =>
      h("div", { class: `turn ${turn.role}` }, h("span", { class: "role", dir: "auto" }, ROLES[turn.role], turn.name ? ` ${turn.name}` : null),
        h("div", {}, content(turn, raw)))));
  }

  fold() {
    this.#set(this.state === "folded" ? "kept" : "folded");
  }

  #set(state) {
    this.state = state;
    this.element.classList.toggle("is-whole", state === "whole");
    this.turns.hidden = state === "folded";
    this.gist.hidden = !this.turns.hidden;
    this.folding.firstChild.data = this.turns.hidden ? "Unfold" : "Fold";
    this.folding.setAttribute("aria-expanded", String(!this.turns.hidden));
    this.size.firstChild.data = state === "whole" ? "Keep in view" : "Show all";
    this.#measure();
  }

  /** Tells the layout below how much of the window the prompt takes. */
  #measure() {
    const scrolls = this.turns.scrollHeight > this.turns.clientHeight + 1;
    this.size.hidden = this.state === "folded" || (this.state === "kept" && !scrolls);
    this.turns.tabIndex = scrolls ? 0 : -1;
    this.element.parentNode?.style.setProperty("--kept", this.state === "whole" ? "0px" : `${this.element.offsetHeight}px`);
  }
}

/** A message's content. Thoughts and tools are folded; tool calls stand below the text. */
function content(turn, raw) {
  if (turn.role === "tools") return [fold("Available tools", turn, raw)];
  return [
    turn.thoughts ? fold("Thoughts", turn.thoughts, raw) : null,
    turn.text || !turn.calls ? textBlock(turn, raw) : null,
    turn.calls ? h("div", { class: "calls" }, textBlock(turn.calls, raw)) : null,
  ];
}

function fold(label, text, raw) {
  return h("details", { class: "fold" }, h("summary", {}, label), textBlock(text, raw));
}
