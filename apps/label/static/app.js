// The labelling page: the current task's state, the person's input, and saving it.

import { call, project, actAs, uuid, Failure } from "../api.js";
import { AnswerCard } from "./answers.js";
import { Board } from "./board.js";
import { Clock } from "./clock.js";
import { Drafts, recalled, remember } from "./drafts.js";
import { letter } from "../dom.js";
import { Frame } from "./frame.js";
import { isComplete, place, standard } from "./ranks.js";
import * as dialogs from "./dialogs.js";
import { listen } from "./keys.js";

const HEARTBEAT_MS = 60_000;

/** The state and actions of the labelling page. Other modules call it `desk`: the annotator's workplace. */
export class Desk {
  constructor(root) {
    this.root = root;
    this.clock = new Clock((seconds) => this.frame?.tick(seconds));
  }

  async start() {
    try {
      this.config = await call("GET", "config");
    } catch (failure) {
      if (failure.status === 404 && project === null) return location.replace("/projects"); // one of several
      return this.#blocked(failure, () => this.start());
    }
    const { project: about, person } = this.config;
    actAs(person.id);
    this.raw = (recalled("raw") ?? this.config.show === "raw") === true;
    this.scope = `${about.id}/${person.id}`;
    this.frame = new Frame(this);
    this.drafts = new Drafts(this.scope, (news) => this.frame.draftNews(news));
    listen(this);
    addEventListener("online", () => this.drafts.hurry());
    document.addEventListener("visibilitychange", () => document.hidden && this.drafts.flush());
    addEventListener("pagehide", () => this.drafts.flush());
    setInterval(() => this.#heartbeat(), HEARTBEAT_MS);
    await this.#first();
  }

  /** Resumes what this window was doing when it was left, or fetches the next task. */
  async #first() {
    const { pending } = this.drafts;
    const revised = sessionStorage.getItem(this.#revising);
    const toAdjudicate = new URLSearchParams(location.search).get("adjudicate");
    if (pending) await this.#deliver(pending.path, pending.body);
    else if (revised) await this.revise(revised);
    else if (toAdjudicate) await this.#adjudicate(Number(toAdjudicate));
    else await this.next();
  }

  get #revising() {
    return `align-label/${this.scope}/revising`;
  }

  /** Opens a task that the reviewer's ranking decides. Afterwards they return to the lead's page. */
  async #adjudicate(task) {
    const query = new URLSearchParams(location.search);
    query.delete("adjudicate");
    this.leave = `/lead/?${query}#review`;
    try {
      this.show((await call("POST", "adjudicate", { task })).task);
    } catch (failure) {
      this.#blocked(failure, () => this.next());
    }
  }

  // ---- one task ----

  /** Fetches the next task; that is the current one if it was not finished. */
  async next() {
    this.#leave();
    if (this.leave) return location.assign(this.leave);
    this.frame.loading();
    try {
      const found = await call("POST", "claim", {});
      if (found.task) this.show(found.task);
      else this.frame.nothing(found, () => this.next());
    } catch (failure) {
      this.#blocked(failure, () => this.next());
    }
    this.progress();
  }

  /** Shows a task. `revising`: it was submitted before, and its answers are filled in. */
  show(task, revising = false) {
    this.#leave();
    Object.assign(this, { task, revising, chosen: null, busy: false });
    if (revising) sessionStorage.setItem(this.#revising, task.annotation); // so that a reload finds it again
    const { payload, seconds } = this.drafts.open(task);
    this.#fill(payload ?? task.payload);
    this.uuid = task.annotation ?? uuid();
    this.cards = task.answers.map((answer, slot) => new AnswerCard(slot, answer, this));
    this.board = new Board(this, this.root);
    this.frame.task(task, this.cards, this.board);
    this.sync();
    this.clock.start(seconds);
    this.frame.tick(seconds);
    scrollTo(0, 0);
  }

  #leave() {
    sessionStorage.removeItem(this.#revising);
    this.drafts.close();
    this.clock.stop();
    this.task = null;
  }

  #fill(payload) {
    const slots = this.task.answers.map((_, slot) => String(slot));
    this.answers = slots.map((slot) => ({ rating: null, flags: [], comment: "", ...payload?.answers?.[slot] }));
    this.ranks = slots.map((slot) => payload?.ranks?.[slot] ?? null);
    this.allBad = payload?.all_bad ?? false;
    this.comment = payload?.comment ?? "";
  }

  /** What is filled in so far; ranks only of the answers that have one. */
  get payload() {
    const placed = this.ranks.flatMap((rank, slot) => (rank === null ? [] : [[String(slot), rank]]));
    return {
      answers: Object.fromEntries(this.answers.map((answer, slot) => [String(slot), { ...answer }])),
      ranks: placed.length ? Object.fromEntries(placed) : null,
      all_bad: this.allBad,
      comment: this.comment,
    };
  }

  // ---- the person's input ----

  choose(slot, scroll = false) {
    if (this.chosen !== slot) {
      this.chosen = slot;
      this.sync();
    }
    if (scroll) this.cards[slot].element.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
  }

  /** Moves to another answer and puts the focus there. */
  focus(slot) {
    this.choose(slot);
    const { element } = this.cards[slot];
    element.focus({ preventScroll: true });
    element.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
  }

  set(slot, what, value) {
    if (what === "rank") return this.setRanks(place(this.ranks, slot, value, this.config.ranking.ties), slot);
    this.answers[slot] = { ...this.answers[slot], [what]: value };
    this.chosen = slot;
    this.#changed();
    if (what === "rating") this.frame.announce(value === null ? `Answer ${letter(slot)}: no rating` : `Answer ${letter(slot)}: rated ${value}`);
  }

  toggleFlag(slot, name, on) {
    const others = this.answers[slot].flags.filter((flag) => flag !== name);
    const names = this.config.questions.flags.map((flag) => flag.name);
    this.set(slot, "flags", names.filter((flag) => (flag === name ? on : others.includes(flag))));
  }

  /** `slot`: of the answer that moved, if only one did. */
  setRanks(ranks, slot) {
    this.ranks = ranks;
    this.chosen = slot ?? this.chosen;
    this.#changed();
    if (slot !== undefined) this.frame.announce(this.cards[slot].place.textContent.replace(/^/, `Answer ${letter(slot)}: `));
  }

  setAllBad(on) {
    this.allBad = on;
    this.#changed();
  }

  setComment(text) {
    this.comment = text;
    this.#changed();
  }

  toggleRaw() {
    this.raw = !this.raw;
    remember("raw", this.raw);
    this.frame.prompt.render();
    for (const card of this.cards ?? []) card.render();
    this.frame.announce(this.raw ? "Raw text" : "Rendered text");
  }

  /** Shows these answers whole, or only their beginnings if they are all shown whole. */
  expand(cards) {
    const whole = cards.some((card) => !card.whole);
    for (const card of cards) card.show(whole);
  }

  /** Remembers for the next task whether the flags of all answers are unfolded. */
  keepFlags() {
    remember("flags", this.cards.every((card) => card.flags.open));
  }

  /** Opens an answer next to the following one; the dialog lets the person choose others. */
  compare(slot = this.chosen ?? 0) {
    const other = (slot + 1) % this.cards.length;
    dialogs.compare(this, Math.min(slot, other), Math.max(slot, other));
  }

  #changed() {
    if (this.busy) return;
    this.drafts.changed(this.payload, this.clock.seconds);
    this.sync();
  }

  sync() {
    for (const card of this.cards) card.sync();
    this.board.sync();
    this.frame.sync();
  }

  /** What is missing before the task can be submitted, as [words, slot]. */
  get missing() {
    const { rating } = this.config.questions;
    const unrated = rating.ask && rating.required ? this.answers.flatMap(({ rating }, slot) => (rating === null ? [slot] : [])) : [];
    const nothingPlaced = this.ranks.every((rank) => rank === null);
    const unranked = this.allBad && nothingPlaced ? [] : this.ranks.flatMap((rank, slot) => (rank === null ? [slot] : []));
    const words = (what, slots) => (slots.length ? [[`${what} ${slots.map(letter).join(", ")}`, slots[0]]] : []);
    return [...words("rate", unrated), ...words("rank", unranked)];
  }

  // ---- saving ----

  async submit() {
    if (!this.task || this.busy || this.isFixed) return;
    const { missing } = this;
    if (missing.length) {
      this.focus(missing[0][1]);
      return this.frame.complain(`Still to do: ${missing.map(([words]) => words).join("; ")}.`);
    }
    const { payload } = this;
    const ranks = isComplete(this.ranks) ? Object.fromEntries(standard(this.ranks).map((rank, slot) => [String(slot), rank])) : null;
    const seconds = Math.round(this.clock.seconds * 10) / 10;
    const whole = { ...payload, ranks };
    if (this.revising) await this.#deliver(`mine/${this.uuid}`, { task: this.task.id, payload: whole, seconds });
    else await this.#deliver("submit", { ...this.#about(), payload: whole, seconds });
  }

  skip() {
    if (this.canPass) dialogs.reason(this, "skip", (why) => this.#deliver("skip", { ...this.#about(), ...why }));
  }

  flag() {
    if (this.canPass) dialogs.reason(this, "flag", (why) => this.#deliver("flag", { ...this.#about(), ...why }));
  }

  /** A finished practice task cannot be changed: its expected ranking was shown. */
  get isFixed() {
    return this.revising && this.task.kind === "practice";
  }

  get canPass() {
    return this.task && !this.busy && !this.revising;
  }

  #about() {
    return { id: this.uuid, task: this.task.id, lease: this.task.lease };
  }

  /** Leaves the submitted version unchanged. */
  async keep() {
    this.#fill(this.task.payload);
    this.drafts.changed(this.payload, 0);
    this.drafts.flush();
    await this.next();
  }

  async #deliver(path, body) {
    this.busy = true;
    this.clock.stop();
    this.frame.saving();
    try {
      const answer = await this.drafts.deliver(path, body);
      this.last = answer.id;
      this.frame.saved(path, answer);
      if (answer.feedback) await dialogs.feedback(this, answer.feedback, body.payload.ranks);
      if (this.leave && path === "submit" && !answer.final) await dialogs.alreadyDecided(this);
      await this.next();
    } catch (failure) {
      if (!(failure instanceof Failure)) throw failure;
      this.busy = false;
      if (!this.task) await this.next();
      else this.drafts.open({ ...this.task, draft: this.payload });
      this.clock.running = this.task !== null;
      this.frame.refused(failure);
    }
  }

  /** Undoes the last submission and opens its task again, filled in as it was. */
  async undo() {
    if (this.busy) return;
    this.drafts.flush();
    this.busy = true; // a second request would undo the submission before, too
    try {
      const { task } = await call("POST", "undo", { id: this.last ?? null });
      this.last = null;
      if (!task) return this.frame.notify("There is nothing to undo.");
      this.show(task);
      this.frame.notify("Undone. It counts again when you submit it.");
      this.progress();
    } catch (failure) {
      this.frame.refused(failure);
    } finally {
      this.busy = false;
    }
  }

  /** Opens an earlier annotation. */
  async revise(id) {
    this.drafts.flush();
    try {
      const { task } = await call("GET", `mine/${id}`);
      this.show(task, true);
    } catch (failure) {
      this.frame.refused(failure);
    }
  }

  async progress() {
    try {
      const day = new Date().setHours(0, 0, 0, 0) / 1_000; // midnight, local time
      this.frame.progress(await call("GET", `progress?since=${day}`));
    } catch {
      // the next call shows it
    }
  }

  async #heartbeat() {
    if (!this.task || this.revising || this.busy || document.hidden) return;
    try {
      await call("POST", "heartbeat", { task: this.task.id, lease: this.task.lease });
    } catch (failure) {
      if (!failure.passes) this.frame.refused(failure);
    }
  }

  #blocked(failure, again) {
    this.frame ??= new Frame(this);
    this.frame.blocked(failure, again);
  }
}

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
