// One model's answer in its column: text, how it ended, what is known of it.

import { h } from "../dom.js";
import { number, Tokens } from "./tokens.js";

const ENDS = { eos: "", whole: "", length: "cut at max tokens", room: "cut: model's context is full", stopped: "stopped" };

export class Card {
  /** `config` is null in the arena, which shows only the text. */
  constructor(name, config) {
    this.name = name;
    this.config = config;
    this.title = h("h2", { dir: "auto" });
    this.title.textContent = name;
    this.state = h("span", { class: "state" }, "…");
    this.tokens = new Tokens(`Answer of ${name}. Arrow keys move between tokens.`);
    this.foot = h("footer", {});
    this.element = h("article", { class: "answer", "aria-label": `Answer of ${name}` },
      h("header", {}, this.title, this.state), this.tokens.element, this.tokens.readout, this.foot);
  }

  take(event, shading) {
    if ("piece" in event) this.tokens.add(event.piece, event.thought === true);
    else if ("problem" in event) this.fail(event.problem);
    else if ("end" in event) this.#end(event);
    else if ("figures" in event) this.#figure(event.figures, shading);
  }

  fail(words) {
    if (this.isDone) return;
    this.isDone = true;
    this.state.textContent = "";
    this.foot.replaceChildren(h("p", { class: "complaint" }, words));
  }

  #end({ end, rest, text, n_tokens: tokens, n_characters: characters, seconds }) {
    this.isDone = true;
    this.tokens.end(rest, end === "eos");
    this.state.textContent = ENDS[end];
    if (!text) this.state.textContent = `${ENDS[end]} empty`.trim();
    if (tokens !== undefined) this.facts = [[`${tokens} tokens`], [`${characters} characters`], [`${seconds.toFixed(1)} s`]];
    this.#show();
  }

  #figure(figures, shading) {
    const { reward, kl, problems } = figures;
    this.tokens.paint(shading, figures);
    const first = [];
    if (reward !== null) first.push([`reward ${number(reward)}`, "reward"]);
    if (kl !== null && this.name !== this.config.reference) {
      const sum = kl.reduce((total, value) => total + (value ?? 0), 0);
      first.push([`KL ${number(sum)}`, "", "nats to the reference, summed over the tokens"]);
    }
    this.facts = [...first, ...(this.facts ?? [])];
    this.#show(problems);
  }

  #show(problems = []) {
    const facts = (this.facts ?? []).map(([words, kind = "", title = null]) => h("li", { class: kind, title }, words));
    this.foot.replaceChildren(
      ...(facts.length ? [h("ul", {}, facts)] : []),
      ...problems.map((words) => h("p", { class: "complaint" }, words)));
  }
}
