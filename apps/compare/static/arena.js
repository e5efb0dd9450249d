// The arena: a blind vote between two models. Their names are revealed after the vote.

import { call, uuid } from "../api.js";
import { h, button } from "../dom.js";
import { Card } from "./card.js";
import { Running } from "./running.js";

const VERDICTS = [["a", "A is better", "1"], ["b", "B is better", "2"], ["tie", "Tie", "3"], ["bad", "Both are bad", "4"]];

export class Arena {
  constructor(page) {
    this.page = page;
    const { sampling, longest } = page.config;
    this.prompt = h("textarea", { rows: 2, maxlength: longest, dir: "auto", placeholder: "Ask two models …", "aria-label": "Question",
      onkeydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.ask() });
    this.send = button("Ask two models", () => this.ask(), { key: "Ctrl ↵", class: "primary" });
    this.halt = button("Stop", () => this.stop(), { key: "Esc" });
    this.status = h("p", { class: "status", role: "status" });
    this.buttons = VERDICTS.map(([verdict, label, key]) => button(label, () => this.vote(verdict), { key, disabled: true }));
    this.verdicts = h("div", { class: "verdicts", role: "group", "aria-label": "Your vote", tabindex: "-1" }, this.buttons);
    this.stage = h("div", { class: "stage" });
    const how = `temperature ${sampling.temperature}, at most ${sampling.max_tokens} tokens`;
    this.element = h("div", { class: "arena", onkeydown: (event) => this.#key(event) },
      h("section", { class: "composer", "aria-label": "Your question" },
        h("p", { class: "hint" }, `Two random models answer without names (${how}). Vote for the better answer; then their names are revealed.`),
        this.prompt, h("div", { class: "actions" }, this.send, this.halt, this.status)),
      this.stage,
      this.verdicts);
    this.running = this.battle = null;
    this.#sync();
  }

  open() {
    this.prompt.focus({ preventScroll: true });
  }

  async ask() {
    const question = this.prompt.value.trim();
    if (this.running || this.saving) return;
    if (!question) return this.page.tell({ message: "The question is empty. Write one." });
    this.page.clear();
    const running = new Running("battle", { prompt: question }, (words) => (this.status.textContent = words));
    Object.assign(this, { running, battle: null });
    this.status.textContent = "Asking …";
    const cards = ["A", "B"].map((name) => new Card(name, null));
    this.#sync();
    let isTaken = false;
    try {
      for await (const event of running.events()) {
        if (!isTaken) this.#begin(question, cards);
        isTaken = true;
        if ("battle" in event) this.#whole(event, cards);
        else cards[event.side].take(event, "none");
      }
      if (!isTaken) this.status.textContent = "Withdrawn.";
    } catch (failure) {
      for (const card of cards) card.fail("The connection was lost before the answer was complete.");
      this.status.textContent = "";
      this.page.tell(failure);
    }
    this.running = null;
    this.#sync();
    if (this.battle) this.verdicts.focus({ preventScroll: true }); // so that the keys work without a focused button, where Enter would vote
  }

  stop() {
    this.running?.stop();
  }

  /** Shows "Saved" only after the server has answered. A vote sent twice is saved once. */
  async vote(verdict) {
    const { battle } = this;
    if (!battle || this.running || this.saving || battle.names) return;
    battle.vote ??= uuid();
    this.saving = true;
    this.#sync();
    this.status.textContent = "Saving …";
    try {
      const seconds = (Date.now() - battle.since) / 1000;
      const { names } = await call("POST", "vote", { id: battle.vote, battle: battle.id, verdict, seconds });
      this.#reveal(verdict, names);
    } catch (failure) {
      this.status.textContent = "";
      this.page.tell({ message: `Not saved: ${failure.message}`, remedy: failure.remedy, status: failure.status });
    }
    this.saving = false;
    this.#sync();
    if (battle.names) this.prompt.focus({ preventScroll: true });
  }

  #begin(question, cards) {
    const text = h("p", { dir: "auto" });
    text.textContent = question;
    const columns = h("div", { class: "columns" }, cards.map((card) => card.element));
    columns.style.setProperty("--n", 2);
    this.stage.replaceChildren(h("div", { class: "question" }, h("span", { class: "role" }, "You"), text), columns);
    this.prompt.value = "";
  }

  #whole({ battle, open, why }, cards) {
    if (open) this.battle = { id: battle, since: Date.now(), cards, names: null };
    this.status.textContent = open ? "Which is better?" : this.running.isStopped ? "Stopped." : why;
  }

  #reveal(verdict, names) {
    const { battle } = this;
    battle.names = names;
    for (const [n, card] of battle.cards.entries()) {
      card.title.replaceChildren(`${"AB"[n]}: `, h("bdi", {}, names[n]));
      card.element.classList.toggle("is-winner", verdict === "ab"[n]);
    }
    this.status.textContent = "Saved.";
  }

  #key(event) {
    const verdict = VERDICTS.find(([, , key]) => key === event.key);
    const isWriting = event.composedPath()[0].tagName === "TEXTAREA";
    if (verdict && !isWriting && !event.ctrlKey && !event.altKey && !event.metaKey) this.vote(verdict[0]);
  }

  #sync() {
    const canVote = Boolean(this.battle && !this.battle.names && !this.running && !this.saving);
    for (const one of this.buttons) one.disabled = !canVote;
    this.send.disabled = this.running !== null || Boolean(this.saving);
    this.halt.disabled = this.running === null;
  }
}
