// Side by side: a conversation with every model, each continuing from its own answers.

import { h, button } from "../dom.js";
import { Card } from "./card.js";
import { Running } from "./running.js";
import { legend, SHADES } from "./tokens.js";

// Sampling fields: key, label, input attributes, tooltip.
const KNOBS = [
  ["temperature", "Temperature", { min: 0, max: 10, step: "any" }, "0 always takes the most likely token"],
  ["top_k", "Top-k", { min: 0, step: 1 }, "sample from the k most likely tokens; 0 means all"],
  ["top_p", "Top-p", { min: 0.001, max: 1, step: "any" }, "sample from the most likely tokens with this total probability"],
  ["max_tokens", "Max tokens", { min: 1, step: 1 }, "longest answer"],
];

export class Bench {
  constructor(page) {
    this.page = page;
    this.threads = {};
    this.cards = [];
    this.running = null;
    const { config } = page;
    this.shade = h("select", { onchange: () => this.#paint() },
      Object.entries(SHADES).filter(([name]) => config.reference || !["kl", "ratio"].includes(name))
        .map(([name, { label }]) => h("option", { value: name }, label)));
    this.shade.value = config.reference ? "kl" : "logprob";
    this.legend = h("div", { class: "legend", "aria-label": "Colour legend", role: "group" });
    this.log = h("div", { class: "log" });
    this.element = h("div", { class: "bench" }, this.#settings(), this.log, this.#composer());
    this.#paint();
    this.#sync();
  }

  #settings() {
    const { config } = this.page;
    this.chosen = config.models.map(({ name, plain }) => {
      const note = [plain ? "plain prompt" : "", name === config.reference ? "reference" : ""].filter(Boolean).join(", ");
      const box = h("input", { type: "checkbox", value: name, checked: true });
      return { name, box, element: h("label", { class: "choice" }, box, h("span", { dir: "auto" }, name), note ? h("small", {}, note) : null) };
    });
    this.knobs = Object.fromEntries(KNOBS.map(([key, label, attrs, title]) => {
      const more = key === "max_tokens" ? { max: config.most_tokens } : {};
      const input = h("input", { type: "number", value: config.sampling[key], required: true, inputmode: "decimal", ...attrs, ...more });
      return [key, { input, element: h("label", { class: "knob", title }, label, input) }];
    }));
    this.seed = h("input", { type: "number", value: config.seed, required: true, min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 });
    const another = button("New seed", () => (this.seed.value = Math.floor(Math.random() * 1e6)));
    return h("section", { class: "settings", "aria-label": "Settings" },
      h("fieldset", { class: "models" }, h("legend", {}, "Models"), this.chosen.map(({ element }) => element)),
      h("fieldset", { class: "knobs" }, h("legend", {}, "Sampling"),
        Object.values(this.knobs).map(({ element }) => element),
        h("label", { class: "knob", title: "the same for all models" }, "Seed", this.seed), another),
      h("fieldset", { class: "colours" }, h("legend", {}, "Colours"),
        h("label", { class: "knob" }, h("span", { class: "unseen" }, "Colour tokens by"), this.shade), this.legend));
  }

  #composer() {
    const { config } = this.page;
    this.prompt = h("textarea", { rows: 2, maxlength: config.longest, dir: "auto", placeholder: "Ask all models …", "aria-label": "Question",
      onkeydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.ask() });
    this.send = button("Ask", () => this.ask(), { key: "Ctrl ↵", class: "primary" });
    this.halt = button("Stop", () => this.stop(), { key: "Esc" });
    this.restart = button("New conversation", () => this.clear(), { class: "quiet" });
    this.status = h("p", { class: "status", role: "status" });
    return h("section", { class: "composer", "aria-label": "Your question" }, this.prompt,
      h("div", { class: "actions" }, this.send, this.halt, this.restart, this.status));
  }

  open() {
    this.prompt.focus({ preventScroll: true });
  }

  /** Sends the question. Each model continues its own thread; a model that fails keeps its old thread. */
  async ask() {
    const question = this.prompt.value.trim();
    const models = this.chosen.filter(({ box }) => box.checked).map(({ name }) => name);
    const wrong = this.#wrong(question, models);
    if (this.running || wrong) return wrong && this.page.tell({ message: wrong });
    this.page.clear();
    const threads = models.map((name) => [...(this.threads[name] ?? []), { role: "user", content: question }]);
    const sampling = Object.fromEntries(KNOBS.map(([key]) => [key, Number(this.knobs[key].input.value)]));
    const running = new Running("ask", { models, threads, sampling, seed: Number(this.seed.value) }, (words) => (this.status.textContent = words));
    this.running = running;
    this.status.textContent = "Asking …";
    const cards = models.map((name) => new Card(name, this.page.config));
    const turn = this.#turn(question, cards);
    this.#sync();
    let isTaken = false; // by the server: otherwise the question stays in the box
    try {
      for await (const event of running.events()) {
        if (!isTaken) this.#begin(turn, cards);
        isTaken = true;
        const card = cards[event.side];
        card.take(event, this.shade.value);
        if ("end" in event) this.threads[card.name] = [...threads[event.side], { role: "assistant", content: event.text }];
      }
      if (!isTaken) this.status.textContent = "Withdrawn.";
      else this.status.textContent = running.isStopped ? "Stopped." : "Done.";
    } catch (failure) {
      for (const card of cards) card.fail("The connection was lost before the answer was complete.");
      this.status.textContent = "";
      this.page.tell(failure);
    }
    this.running = null;
    this.#sync();
  }

  stop() {
    this.running?.stop();
  }

  clear() {
    if (this.running) return;
    Object.assign(this, { threads: {}, cards: [] });
    this.log.replaceChildren();
    this.status.textContent = "";
    this.#sync();
    this.open();
  }

  #wrong(question, models) {
    if (!question) return "The question is empty. Write one.";
    if (!models.length) return "No model is chosen. Tick at least one.";
    const bad = [...this.element.querySelectorAll(".knobs input")].find((input) => !input.validity.valid);
    return bad ? `${bad.parentElement.firstChild.textContent}: ${bad.validationMessage}` : "";
  }

  #turn(question, cards) {
    const text = h("p", { dir: "auto" });
    text.textContent = question;
    const columns = h("div", { class: "columns" }, cards.map((card) => card.element));
    columns.style.setProperty("--n", cards.length);
    return h("section", { class: "turn", "aria-label": "Question and answers" }, h("div", { class: "question" }, h("span", { class: "role" }, "You"), text), columns);
  }

  #begin(turn, cards) {
    this.cards.push(...cards);
    this.log.append(turn);
    this.prompt.value = "";
    turn.scrollIntoView({ block: "nearest" });
    this.#sync();
  }

  #paint() {
    this.legend.replaceChildren(...legend(this.shade.value));
    for (const card of this.cards) card.tokens.paint(this.shade.value);
  }

  #sync() {
    this.send.disabled = this.running !== null;
    this.halt.disabled = this.running === null;
    this.restart.disabled = this.running !== null || !this.cards.length;
  }
}
