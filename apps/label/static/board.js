// The ranking board: a row per rank and a chip per answer. Chips move by dragging, by keys, or from the answer's card.

import { h, button, letter } from "../dom.js";
import { placeInWords } from "./answers.js";
import { byRatings, groups, insert, isComplete, place, step, swap } from "./ranks.js";
import { Dragging } from "./dragging.js";

export class Board {
  constructor(desk, root) {
    this.desk = desk;
    const n = desk.task.answers.length;
    this.ties = desk.config.ranking.ties;
    this.rows = Array.from({ length: n }, (_, index) => this.#row(index + 1, n));
    this.tray = h("div", { class: "chips" });
    this.order = h("p", { class: "order" });
    this.chips = desk.task.answers.map((_, slot) => this.#chip(slot));
    const trayRow = h("div", { class: "row tray", "data-rank": "none" }, h("span", { class: "label" }, "Not ranked yet"), this.tray);
    this.element = h("div", { class: n > 6 ? "board dense" : "board", role: "group", "aria-label": "Ranking" },
      h("div", { class: "rows" }, this.rows.map(({ element }) => element)), trayRow, this.order);
    this.byHand = null; // the ranking before "Rank by ratings"
    this.made = null;
    this.dragging = new Dragging(root, (slot, target) => this.#drop(slot, target));
    for (const [slot, chip] of this.chips.entries()) {
      this.dragging.attach(chip, slot);
      this.dragging.attach(desk.cards[slot].badge, slot);
    }
  }

  #row(rank, n) {
    const chips = h("div", { class: "chips" });
    const end = rank === 1 ? "best" : rank === n ? "worst" : "";
    const label = h("span", { class: "label" }, String(rank), end ? h("small", {}, end) : null);
    return { chips, element: h("div", { class: "row", "data-rank": String(rank) }, label, chips) };
  }

  #chip(slot) {
    return h("button", { type: "button", class: "chip", "data-slot": String(slot), title: "Drag, or press ↑ ↓ or a number",
      onkeydown: (event) => this.#key(event, slot), onfocus: () => this.desk.choose(slot), onclick: () => this.desk.choose(slot, true) }, letter(slot));
  }

  #key(event, slot) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { ranks } = this.desk;
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1];
    let next = null;
    if (by) next = event.shiftKey ? swap(ranks, slot, by) : step(ranks, slot, by, this.ties);
    else if (digit > 0 && digit <= ranks.length) next = place(ranks, slot, Number(digit), this.ties);
    else if (digit === "0" || event.key === "Delete" || event.key === "Backspace") next = place(ranks, slot, null);
    if (!next) return;
    event.preventDefault();
    event.stopPropagation();
    this.desk.setRanks(next, slot);
    this.chips[slot].focus();
  }

  #drop(slot, target) {
    if (!target) return;
    const { ranks } = this.desk;
    if (target.rank === null) this.desk.setRanks(place(ranks, slot, null), slot);
    else if (target.gap) this.desk.setRanks(insert(ranks, slot, target.gap === "above" ? target.rank : target.rank + 1), slot);
    else this.desk.setRanks(place(ranks, slot, target.rank, this.ties), slot);
  }

  /** Ranks by the ratings. If the ranking already follows them, restores the earlier ranking. */
  rankByRatings() {
    const { desk } = this;
    const ratings = desk.answers.map(({ rating }) => rating);
    if (ratings.every((rating) => rating === null)) return desk.frame.complain("Rate the answers first. Then R ranks them by rating.");
    const made = byRatings(ratings, this.ties);
    if (same(made, desk.ranks)) return this.byHand ? this.#putBack() : desk.frame.notify("The answers are already ranked by rating.");
    if (!same(desk.ranks, this.made)) this.byHand = desk.ranks;
    this.made = made;
    desk.setRanks(made);
    const alike = made.flatMap((rank, slot) => (rank === null && ratings[slot] !== null ? [letter(slot)] : []));
    const rest = alike.length ? ` Equal ratings, so rank these yourself: ${alike.join(", ")}.` : "";
    desk.frame.notify(`Ranked by your ratings: ${inWords(made) || "none"}.${rest}`, button("Restore my ranking", () => this.#putBack(), { key: "R" }));
  }

  #putBack() {
    if (!this.byHand) return;
    this.desk.setRanks(this.byHand);
    this.byHand = null;
    this.desk.frame.notify("Your earlier ranking is back.");
  }

  sync() {
    const { ranks, chosen } = this.desk;
    for (const [slot, chip] of this.chips.entries()) {
      const home = ranks[slot] === null ? this.tray : this.rows[ranks[slot] - 1].chips;
      if (chip.parentNode !== home) home.append(chip);
      chip.classList.toggle("is-chosen", chosen === slot);
      chip.setAttribute("aria-label", `Answer ${letter(slot)}, ${placeInWords(ranks, slot)}`);
    }
    this.tray.parentNode.classList.toggle("is-empty", isComplete(ranks));
    const order = inWords(ranks);
    this.order.textContent = order && `Your order: ${order}${isComplete(ranks) ? "" : " …"}`;
  }
}

const same = (some, others) => String(some) === String(others);

/** "B > A = C": the answers ranked so far. */
export const inWords = (ranks) => groups(ranks).map((group) => group.map(letter).join(" = ")).join(" > ");
