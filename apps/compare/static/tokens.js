// An answer as coloured tokens, each in its own element.

import { h } from "../dom.js";

const END = "∎"; // shown for the end-of-text token, which has no text

// Colour scales. Bounds are in nats; a value below the first bound has class 0, and so on.
export const SHADES = {
  none: { label: "No colours", bounds: [], kind: "", value: () => null },
  logprob: {
    label: "Log probability", kind: "s", bounds: [0.1, 0.5, 1, 2, 4],
    names: ["above −0.1", "to −0.5", "to −1", "to −2", "to −4", "below −4"],
    meaning: "Log probability of each token under its model, in nats, at temperature 1. Darker is less likely.",
    value: ({ logprobs }, n) => negated(logprobs?.[n]),
  },
  kl: {
    label: "KL to the reference", kind: "s", bounds: [0.05, 0.2, 0.5, 1, 2],
    names: ["below 0.05", "to 0.2", "to 0.5", "to 1", "to 2", "above 2"],
    meaning: "KL(model ‖ reference) of the distribution at each token, in nats, at temperature 1.",
    value: ({ kl }, n) => kl?.[n],
  },
  ratio: {
    label: "Log ratio to the reference", kind: "d", bounds: [-2, -0.5, -0.1, 0.1, 0.5, 2],
    names: ["below −2", "to −0.5", "to −0.1", "about 0", "to 0.5", "to 2", "above 2"],
    meaning: "Log probability minus the reference's, for each token. Blue: more likely under the model than under the reference.",
    value: ({ logprobs, reference }, n) => minus(logprobs?.[n], reference?.[n]),
  },
};

const known = (value) => value !== null && value !== undefined;
const negated = (value) => (known(value) ? -value : null);
const minus = (a, b) => (known(a) && known(b) ? a - b : null);

/** The CSS class of a value's colour, or "". */
export function shade({ kind, bounds }, value) {
  if (!kind || !known(value)) return "";
  const above = bounds.filter((bound) => value >= bound).length;
  return `${kind}${above}`;
}

/** The colour legend; empty if there are no colours. */
export function legend(name) {
  const { kind, names = [], meaning = "" } = SHADES[name];
  if (!kind) return [];
  const swatches = names.map((words, n) => h("li", {}, h("span", { class: `swatch ${kind}${n}` }), words));
  return [h("ul", {}, swatches), h("p", {}, meaning)];
}

export class Tokens {
  constructor(label) {
    this.element = h("div", { class: "tokens", dir: "auto", tabindex: "0", role: "group", "aria-label": label,
      onkeydown: (event) => this.#key(event), onmouseover: (event) => this.#over(event), onblur: () => this.#choose(null) });
    this.readout = h("p", { class: "readout", "aria-live": "polite" });
    this.spans = [];
    this.figures = null;
    this.chosen = null;
  }

  /** Adds a piece of text. `isThought`: it belongs to the thoughts, which are folded above the answer. */
  add(piece, isThought = false) {
    if (isThought !== this.isThinking) Object.assign(this, { isThinking: isThought, hasText: false });
    const span = h("span", { class: "t", "data-n": this.spans.length });
    span.textContent = this.hasText ? piece : piece.trimStart(); // the first token often starts with a space
    this.hasText ||= span.textContent !== "";
    this.spans.push(span);
    (isThought ? this.#fold() : this.element).append(span);
  }

  #fold() {
    if (!this.thoughts) {
      this.thoughts = h("details", { class: "thoughts" }, h("summary", {}, "Thoughts"));
      this.element.append(this.thoughts);
    }
    return this.thoughts;
  }

  /** Completes the answer. `rest`: text that was in no piece; `hasEnd`: the last token is an end-of-text token. */
  end(rest, hasEnd) {
    const last = this.spans.at(-1);
    const written = hasEnd ? this.spans.at(-2) : last;
    if (rest && written) written.textContent += rest;
    if (!hasEnd || !last) return;
    last.classList.add("eos");
    last.textContent = END;
  }

  /** Colours the tokens by one of SHADES. `figures`: of all tokens. */
  paint(name, figures = this.figures) {
    this.figures = figures;
    for (const [n, span] of this.spans.entries()) {
      const colour = figures ? shade(SHADES[name], SHADES[name].value(figures, n)) : "";
      span.className = ["t", span.textContent === END && span.classList.contains("eos") ? "eos" : "", colour].join(" ").trim();
    }
  }

  #over({ target }) {
    const n = target.dataset?.n;
    if (n !== undefined) this.#choose(Number(n));
  }

  #key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey || !this.spans.length) return;
    event.preventDefault();
    const next = this.chosen === null ? (step > 0 ? 0 : this.spans.length - 1) : this.chosen + step;
    this.#choose(Math.min(Math.max(next, 0), this.spans.length - 1));
  }

  #choose(n) {
    this.spans[this.chosen]?.classList.remove("is-chosen");
    this.chosen = n;
    this.spans[n]?.classList.add("is-chosen");
    this.readout.textContent = n === null ? "" : this.#describe(n);
  }

  #describe(n) {
    const { logprobs, reference, kl } = this.figures ?? {};
    const text = this.spans[n].classList.contains("eos") ? "end of the answer" : JSON.stringify(this.spans[n].textContent);
    const parts = [`${n + 1} of ${this.spans.length}: ${text}`];
    if (known(logprobs?.[n])) parts.push(`log p ${number(logprobs[n])}`);
    if (known(reference?.[n])) parts.push(`reference ${number(reference[n])}`);
    if (known(kl?.[n])) parts.push(`KL ${number(kl[n])}`);
    return parts.join(" · ");
  }
}

/** Two decimals, with a true minus sign. */
export const number = (value) => value.toFixed(2).replace("-", "−");
