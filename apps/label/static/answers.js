// An answer's card: text, rating, rank, flags and comment.

import { h, button, letter, textBlock } from "../dom.js";
import { recalled } from "./drafts.js";
import { standard } from "./ranks.js";

export class AnswerCard {
  /** `desk` holds the page's state and handles the person's input: see app.js. */
  constructor(slot, answer, desk) {
    Object.assign(this, { slot, answer, desk });
    this.name = `Answer ${letter(slot)}`;
    const { rating, flags, comment } = desk.config.questions;
    this.badge = h("span", { class: "chip", "aria-hidden": "true", title: "Drag into the ranking" }, letter(slot));
    this.place = h("span", { class: "place" });
    this.body = h("div", { class: "body", onscroll: () => this.#found() });
    this.whole = false;
    this.more = button("", () => this.show(!this.whole), { class: "quiet more", key: "E" });
    this.element = h(
      "section",
      { class: "answer", role: "group", "aria-label": this.name, tabindex: "-1", id: `answer-${slot}`, onfocusin: () => desk.choose(slot) },
      h("header", {}, this.badge, h("h3", { class: "unseen" }, this.name), this.place,
        button("Compare", () => desk.compare(slot), { class: "quiet", "aria-label": `Compare ${this.name} with another` })),
      h("div", {}, this.body, this.more),
      h("div", { class: "questions" },
        h("div", { class: "scales" }, rating.ask ? this.#rating() : null, this.#rank()),
        flags.length ? this.#flags(flags) : null,
        comment ? this.#comment() : null),
    );
    this.render();
  }

  /** Shows the text, rendered or raw. */
  render() {
    const text = textBlock(this.answer, this.desk.raw);
    this.body.replaceChildren(text);
    new ResizeObserver(() => this.#clip()).observe(text);
  }

  /** Shows a long text whole, or only its beginning. */
  show(whole) {
    this.whole = whole;
    this.#clip();
  }

  #clip() {
    this.body.classList.add("is-clipped");
    const isLong = this.body.scrollHeight > 1.25 * this.body.clientHeight; // a few extra lines are no reason to clip
    this.body.classList.toggle("is-clipped", isLong && !this.whole);
    this.more.hidden = !isLong;
    this.more.firstChild.data = this.whole ? "Show less" : "Show all";
    this.more.setAttribute("aria-expanded", String(this.whole));
  }

  /** The browser's search or the focus scrolled to a hidden part: show the whole text. */
  #found() {
    const by = this.body.scrollTop;
    if (!by) return;
    this.show(true);
    scrollBy(0, by);
  }

  #scale(kind, legend, values, hint) {
    const input = (value) =>
      h("label", {},
        h("input", { type: "radio", name: `${kind}-${this.slot}`, value, "aria-label": `${legend} ${value}`, onchange: () => this.desk.set(this.slot, kind, value) }),
        h("span", { "aria-hidden": "true" }, value));
    const clear = button("clear", () => this.desk.set(this.slot, kind, null), { class: "clear", "aria-label": `Clear: ${legend}` });
    const field = h("fieldset", { class: `scale ${kind}` }, h("legend", {}, legend, clear), h("div", { class: "steps" }, values.map(input)), hint);
    return Object.assign(field, { clear });
  }

  #rating() {
    const ends = h("div", { class: "ends", "aria-hidden": "true" }, h("span", {}, "very bad"), h("span", {}, "very good"));
    return (this.rating = this.#scale("rating", "Overall quality", [1, 2, 3, 4, 5, 6, 7], ends));
  }

  #rank() {
    const ranks = Array.from({ length: this.desk.task.answers.length }, (_, index) => index + 1);
    const ends = h("div", { class: "ends", "aria-hidden": "true" }, h("span", {}, "best"), h("span", {}, "worst"));
    return (this.ranking = this.#scale("rank", "Rank", ranks, ends));
  }

  #flags(flags) {
    this.boxes = flags.map(({ name, label }) => {
      const box = h("input", { type: "checkbox", value: name, onchange: () => this.desk.toggleFlag(this.slot, name, box.checked) });
      return h("label", { class: "flag" }, box, h("span", {}, label));
    });
    this.set = h("span", { class: "set" });
    this.flags = h("details", { class: "flags", open: recalled("flags") === true, ontoggle: () => this.desk.keepFlags() },
      h("summary", {}, "Flags", this.set), h("div", {}, this.boxes));
    return this.flags;
  }

  #comment() {
    this.comment = h("textarea", { rows: "1", maxlength: "5000", dir: "auto", placeholder: "Comment (optional)", "aria-label": `Comment on ${this.name}`,
      oninput: () => this.desk.set(this.slot, "comment", this.comment.value) });
    return this.comment;
  }

  /** Small labels of the flags that are set, shown while the checkboxes are folded. */
  #labels(names) {
    if (!names.length) return ["none set"];
    return this.desk.config.questions.flags.flatMap(({ name, label }) => (names.includes(name) ? [h("span", { class: "tag", title: label }, label)] : []));
  }

  /** Updates the card from the page's state. */
  sync() {
    const { desk, slot } = this;
    const { rating, flags, comment } = desk.answers[slot];
    check(this.rating, rating);
    check(this.ranking, desk.ranks[slot]);
    for (const label of this.boxes ?? []) label.firstChild.checked = flags.includes(label.firstChild.value);
    if (this.set && this.shown !== String(flags)) this.set.replaceChildren(...this.#labels(flags)); // replaced only when it changed: a click in progress keeps its target
    this.shown = String(flags);
    if (this.comment && this.comment.value !== comment) this.comment.value = comment;
    this.place.textContent = placeInWords(desk.ranks, slot);
    this.element.classList.toggle("is-placed", desk.ranks[slot] !== null);
    this.element.classList.toggle("is-chosen", desk.chosen === slot);
    this.element.setAttribute("aria-current", String(desk.chosen === slot)); // an empty attribute would mean "false"
  }
}

function check(field, value) {
  if (!field) return;
  for (const input of field.querySelectorAll("input")) input.checked = Number(input.value) === value;
  field.clear.hidden = value === null;
}

/** "Rank 2", "Rank 1, tied with C and D", "not ranked" */
export function placeInWords(ranks, slot) {
  if (ranks[slot] === null) return "not ranked";
  const same = ranks.flatMap((rank, other) => (rank === ranks[slot] && other !== slot ? [letter(other)] : []));
  return `Rank ${standard(ranks)[slot]}${same.length ? `, tied with ${same.join(" and ")}` : ""}`;
}
