// The page around the task: top bar, prompt, side panel with ranking and buttons, messages.

import { project as chosen } from "../api.js";
import { h, button, duration } from "../dom.js";
import * as dialogs from "./dialogs.js";
import { clockTime, recalled, remember } from "./drafts.js";
import { Prompt } from "./prompt.js";

const TOAST_MS = 12_000;

export class Frame {
  constructor(desk) {
    this.desk = desk;
    this.status = h("p", { class: "status", role: "status" });
    this.problem = h("div", { class: "problem", role: "alert", hidden: true });
    this.live = h("p", { class: "unseen", "aria-live": "polite" });
    this.toast = h("div", { class: "toast", role: "status" });
    this.main = h("div", { class: "desk", tabindex: "-1" }); // lies in the <main> of Gradio's page
    desk.root.append(this.#bar(), this.problem, this.main, this.toast, this.live);
  }

  #bar() {
    const { desk } = this;
    const { project, person, lead } = desk.config ?? { project: { name: "" }, person: { name: "" } };
    this.mine = h("span", { class: "mine" });
    this.bar = h("progress", { max: "1", value: "0", "aria-label": "Progress of the project" });
    this.count = h("span", { class: "count" });
    this.timer = h("span", { class: "timer", title: "Time spent on this task" });
    this.toGuidelines = button("Guidelines", () => this.guidelines(), { key: "G" });
    this.news = h("span", { class: "tag", title: "Changed since you last read them in this browser" }, "new");
    return h("header", { class: "top" },
      h("h1", { dir: "auto" }, project.name),
      h("div", { class: "progress" }, this.timer, this.mine, this.bar, this.count),
      h("nav", { "aria-label": "Help and account" },
        this.toGuidelines,
        button("My work", () => this.history(), { key: "H" }),
        button("Shortcuts", () => this.help(), { key: "?", class: "shortcuts" }),
        chosen === null ? null : h("a", { href: "/projects", class: "projects" }, "Projects"),
        lead ? h("a", { href: `/lead/${location.search}` }, "Lead") : null,
        h("a", { href: "/account", dir: "auto" }, person.name)));
  }

  // ---- the task ----

  task(task, cards, board) {
    this.submit = null;
    this.prompt = new Prompt(this.desk);
    const columns = { 2: 2, 4: 2 }[cards.length] ?? 3;
    this.main.replaceChildren(
      h("div", { class: "work" },
        this.#banner(task),
        this.prompt.element,
        h("div", { class: `answers columns-${columns}` }, cards.map((card) => card.element))),
      h("div", { class: "side" }, this.#panel(board), this.#actions()));
    this.clear();
    this.main.focus({ preventScroll: true });
  }

  #banner(task) {
    const { desk } = this;
    const back = button("Back without changing", () => desk.keep());
    if (desk.isFixed) return h("p", { class: "banner" }, "A finished practice task cannot be changed. ", back);
    if (desk.revising) return h("p", { class: "banner" }, "You are changing an earlier ranking. The earlier version is kept too. ", back);
    if (desk.leave) return h("p", { class: "banner" }, "Annotators disagree on this task. Your ranking decides it.");
    if (task.kind === "practice") return h("p", { class: "banner" }, "Practice task: after you submit, you see the expected ranking and why.");
    return null;
  }

  #panel(board) {
    const { desk } = this;
    this.allBad = h("input", { type: "checkbox", onchange: () => desk.setAllBad(this.allBad.checked) });
    this.comment = desk.config.questions.comment
      ? h("textarea", { rows: "1", maxlength: "5000", dir: "auto", placeholder: "Comment (optional)", "aria-label": "Comment on the task",
          oninput: () => desk.setComment(this.comment.value) })
      : null;
    const ties = desk.config.ranking.ties ? " Answers in one row are tied." : "";
    return h("aside", { "aria-label": "Ranking" },
      h("h2", {}, "Ranking"),
      h("p", { class: "hint" }, `Drag the letters, or choose a rank below each answer.${ties}`),
      desk.config.questions.rating.ask ? button("Rank by ratings", () => board.rankByRatings(), { key: "R" }) : null,
      board.element,
      h("label", { class: "flag all-bad" }, this.allBad, h("span", {}, "All answers are bad"), h("kbd", { "aria-hidden": "true" }, "B")),
      this.comment);
  }

  #actions() {
    const { desk } = this;
    if (desk.isFixed) return null;
    this.submit = button(desk.revising ? "Save the change" : "Submit", () => desk.submit(), { key: "Ctrl ↵", class: "primary" });
    const others = desk.revising ? [] : [
      button("Undo", () => desk.undo(), { key: "U", title: "Take back your last submission" }),
      button("Skip", () => desk.skip(), { key: "S" }),
      button("Report", () => desk.flag(), { key: "P", title: "Report that something is wrong with the prompt" }),
    ];
    return h("div", { class: "actions" }, this.submit, h("div", { class: "others" }, others), this.status);
  }

  sync() {
    const { desk } = this;
    this.allBad.checked = desk.allBad;
    if (this.comment && this.comment.value !== desk.comment) this.comment.value = desk.comment;
    this.submit?.classList.toggle("is-ready", desk.missing.length === 0);
    if (this.complaint) this.clear();
  }

  /** Opens the chosen answer's flags and moves the focus there, or closes them again. */
  toFlags() {
    const slot = this.desk.chosen ?? 0;
    const { flags, boxes } = this.desk.cards[slot];
    if (!flags) return;
    flags.open = !flags.open;
    if (flags.open) boxes[0].firstChild.focus();
    else this.desk.focus(slot);
  }

  toComment() {
    this.desk.cards[this.desk.chosen ?? 0].comment?.focus();
  }

  // ---- dialogs ----

  help() {
    dialogs.help(this.desk);
  }

  guidelines() {
    dialogs.guidelines(this.desk);
    if (this.version !== undefined) remember(this.#read, this.version);
    this.news.remove();
  }

  /** The key under which this browser keeps the guidelines version that the person read last. */
  get #read() {
    return `guidelines/${this.desk.scope}`;
  }

  history() {
    dialogs.history(this.desk);
  }

  // ---- no task ----

  loading() {
    this.main.replaceChildren(h("p", { class: "notice", role: "status" }, "Loading …"));
  }

  nothing({ nothing: why, message, retry_at: retryAt }, again) {
    if (retryAt) setTimeout(() => this.desk.task || again(), Math.max(10_000, retryAt * 1_000 - Date.now()));
    this.main.replaceChildren(h("div", { class: "notice" }, h("p", { role: "status" }, message),
      h("div", { class: "others" }, button("Check again", again, { class: "primary" }),
        why === "practice" ? button("Read the guidelines", () => this.guidelines(), { key: "G" }) : button("Undo last", () => this.desk.undo(), { key: "U" }))));
    this.tick(0);
  }

  blocked(failure, again) {
    this.main.replaceChildren(h("div", { class: "notice" }, h("p", { role: "alert" }, `${failure.message} ${failure.remedy}`),
      failure.status === 401 ? signIn() : button("Try again", again, { class: "primary" })));
  }

  // ---- messages ----

  progress({ n_today, seconds_today, n_submitted, seconds, n_done, n_tasks, guidelines: version }) {
    this.version = version;
    if (version && recalled(this.#read) !== version) this.toGuidelines.firstChild.after(this.news);
    this.mine.replaceChildren(h("b", {}, `${n_today} today, ${time(seconds_today)}`), ` · ${n_submitted} in total, ${time(seconds)}`);
    this.bar.max = n_tasks || 1;
    this.bar.value = n_done;
    this.bar.title = `The whole project: ${n_done} of ${n_tasks} tasks done`;
    this.count.textContent = `project: ${n_done} of ${n_tasks} tasks`;
  }

  tick(seconds) {
    const { task } = this.desk;
    const until = task?.ends_at ? ` · until ${clockTime(task.ends_at * 1_000)}` : "";
    this.timer.textContent = task ? duration(seconds) + until : "";
  }

  draftNews({ state, message, failure, seconds }) {
    if (state === "waiting") this.status.textContent = "";
    if (state === "saved") this.say(message);
    if (state === "offline") this.say(`${failure.message} Your draft is kept in this browser and will be sent when the server answers.`, true);
    if (state === "unkept") this.say("This browser cannot store drafts. They are saved on the server only.", true);
    if (state === "undelivered") this.undelivered(failure, seconds);
    if (state === "refused") this.refused(failure);
  }

  saving() {
    this.clear();
    this.say("Saving …");
    if (this.submit) this.submit.disabled = true;
  }

  /** Called only after the server has confirmed the commit. */
  saved(path, answer) {
    const words = { submit: "Saved.", skip: "Skipped.", flag: "Reported. Thank you." }[path] ?? "Change saved.";
    this.say("");
    if (answer.feedback) return this.notify(words); // a practice task cannot be undone
    this.notify(words, button("Undo", () => this.desk.undo(), { key: "U" }));
  }

  notify(words, ...more) {
    clearTimeout(this.toasting);
    this.toast.replaceChildren(h("span", {}, words), ...more);
    this.toasting = setTimeout(() => this.toast.replaceChildren(), TOAST_MS);
  }

  undelivered(failure, seconds) {
    this.#showProblem(`Not saved yet: ${failure.message} Your work is kept in this browser. Next attempt in ${seconds} s.`,
      button("Try now", () => this.desk.drafts.hurry()));
  }

  refused(failure) {
    if (this.submit) this.submit.disabled = false;
    const isGone = failure.status === 404 || failure.code === "stale";
    const goOn = isGone ? button("Next task", () => this.desk.next()) : null;
    this.#showProblem(`${failure.message} ${failure.remedy}`, failure.status === 401 ? signIn() : goOn);
    this.say("");
  }

  complain(words) {
    this.#showProblem(words);
    this.complaint = true;
  }

  clear() {
    this.problem.hidden = true;
    this.problem.replaceChildren();
    this.complaint = false;
  }

  #showProblem(words, ...more) {
    this.complaint = false;
    this.problem.replaceChildren(h("span", {}, words), ...more.filter(Boolean), button("Close", () => this.clear(), { class: "quiet" }));
    this.problem.hidden = false;
  }

  say(words, warns = false) {
    this.status.textContent = words;
    this.status.classList.toggle("warns", warns);
  }

  announce(words) {
    this.live.textContent = words;
  }
}

const signIn = () => h("a", { class: "primary", href: `/login?next=${encodeURIComponent(location.pathname + location.search)}` }, "Log in again");

/** "34 min", "9.5 h" */
const time = (seconds) => (seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);
