// Dialogs: shortcuts, guidelines, comparing answers, reasons to skip or report, practice feedback, the person's history.

import { call, Failure } from "../api.js";
import { h, button, letter, safeHtml } from "../dom.js";
import { differences } from "./differences.js";
import { recalled, remember } from "./drafts.js";
import { BOARD_KEYS, KEYS } from "./keys.js";
import { inWords } from "./board.js";

const REASONS = {
  skip: ["I do not know enough about this", "I cannot decide", "Not in a language I read", "It disturbs me"],
  flag: ["It makes no sense", "It contains personal data", "It is not in the expected language", "It should not be answered at all"],
};

/** Opens a dialog; resolves when it is closed. Escape and the button close it, and the focus returns to where it was. */
function open(desk, title, content, { kind = "" } = {}) {
  return new Promise((resolve) => {
    const close = button("Close", () => dialog.close(), { class: "quiet", key: "Esc" });
    const dialog = h("dialog", { class: kind, "aria-label": title, onclose: () => (dialog.remove(), resolve()),
      onclick: (event) => event.target === dialog && dialog.close() },
      h("div", { class: "inside" }, h("header", {}, h("h2", {}, title), close), content));
    desk.root.append(dialog);
    dialog.showModal();
  });
}

const closeAll = (desk) => desk.root.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());

export function help(desk) {
  const table = (keys) => h("table", { class: "keys" }, h("tbody", {}, keys.map(([key, what]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, what)))));
  const on = h("input", { type: "checkbox", onchange: () => remember("shortcuts", on.checked) });
  on.checked = recalled("shortcuts") !== false;
  return open(desk, "Keyboard shortcuts", h("div", {}, table(KEYS),
    h("h3", {}, "When a letter in the ranking has the focus"), table(BOARD_KEYS),
    h("label", { class: "flag" }, on, h("span", {}, "Shortcuts are on (Tab, Space, Enter and ? always work)"))));
}

export async function guidelines(desk) {
  const place = h("div", { class: "text rendered", dir: "auto" }, "Loading …");
  const closed = open(desk, "Guidelines", place, { kind: "wide" });
  try {
    const { html } = await call("GET", "guidelines");
    if (html) safeHtml(place, html);
    else place.textContent = "This project has no guidelines.";
  } catch (failure) {
    place.textContent = `${failure.message} ${failure.remedy}`;
  }
  return closed;
}

/** Two answers side by side; words that the other one lacks are marked. */
export function compare(desk, ...slots) {
  const { answers } = desk.task;
  const note = h("p", { class: "hint", role: "status" });
  const texts = slots.map(() => h("div", { class: "text raw", dir: "auto", tabindex: "0" }));
  const choices = slots.map((chosen, side) =>
    h("select", { "aria-label": `Answer on the ${side ? "right" : "left"}`, autofocus: side === 1, onchange: () => show() },
      answers.map((_, slot) => h("option", { value: slot, selected: slot === chosen }, letter(slot)))));
  const show = () => {
    const [one, other] = choices.map(({ value }) => answers[value].text);
    const found = differences(one, other);
    note.textContent = found ? "Underlined: words that only this answer has." : "The answers differ too much to mark the differences.";
    for (const [side, text] of texts.entries())
      text.replaceChildren(...(found?.[side] ?? [[[one, other][side], false]]).map(([run, isUnique]) => (isUnique ? h("mark", {}, run) : run)));
  };
  show();
  return open(desk, "Compare two answers", h("div", {}, note,
    h("div", { class: "pair" }, slots.map((_, side) => h("div", {}, choices[side], texts[side])))), { kind: "full" });
}

/** Asks for a reason. Calls `send` with {reason} for a skip, {reason, comment} for a report. */
export function reason(desk, kind, send) {
  const isSkip = kind === "skip";
  const other = h("textarea", { rows: "3", maxlength: isSkip ? "150" : "5000", dir: "auto", "aria-label": "Another reason, or details", placeholder: "Another reason, or details" });
  const choices = REASONS[kind].map((words, index) =>
    h("label", { class: "flag" }, h("input", { type: "radio", name: "reason", value: words, autofocus: index === 0 }), h("span", {}, words)));
  const problem = h("p", { class: "complaint", role: "alert" });
  const onsubmit = (event) => {
    const chosen = form.querySelector("input:checked")?.value ?? "";
    const words = other.value.trim();
    if (!chosen && !words) {
      event.preventDefault();
      problem.textContent = "Choose a reason or write one.";
    } else if (isSkip) send({ reason: [chosen, words].filter(Boolean).join(": ").slice(0, 200) });
    else send({ reason: chosen || "Another reason", comment: words });
  };
  const form = h("form", { method: "dialog", onsubmit },
    h("p", {}, isSkip ? "You will not get this task again. Undo brings it back with what you filled in." : "The lead will look at this prompt. You will not see it again."),
    h("fieldset", {}, h("legend", {}, "Why?"), choices), other, problem,
    h("button", { class: "primary" }, isSkip ? "Skip this task" : "Report the prompt"));
  return open(desk, isSkip ? "Skip" : "Report the prompt", form);
}

/** After a practice task: the expected ranking next to the person's. `given`: the submitted ranks, or null. */
export function feedback(desk, { agreement, expected, explanation }, given) {
  const order = (ranks) => inWords(Object.keys(expected).map((slot) => ranks[slot]));
  const share = Math.round(agreement * 100);
  return open(desk, "Practice result", h("div", {},
    h("p", {}, share === 100 ? "All pairs are in the expected order." : `You ordered ${share}% of the pairs of answers as expected.`),
    h("dl", {}, h("dt", {}, "Expected ranking"), h("dd", {}, order(expected)), h("dt", {}, "Your ranking"), h("dd", {}, given ? order(given) : "all bad")),
    explanation ? h("p", { class: "raw", dir: "auto" }, explanation) : null));
}

/** For a reviewer who adjudicated a task that another reviewer decided meanwhile. */
export const alreadyDecided = (desk) =>
  open(desk, "Already decided", h("p", {},
    "Another reviewer decided this task while you ranked it. Your ranking is saved, but theirs counts. To replace it, open the task again with “Rank it myself”."));

const STATUS = { submitted: "submitted", skipped: "skipped", flagged: "prompt reported", undone: "taken back" };

export async function history(desk) {
  const list = h("ol", { class: "history" });
  const note = h("p", { role: "status" }, "Loading …");
  const more = button("Show earlier", () => load(), { hidden: true });
  const closed = open(desk, "My work", h("div", {}, note, list, more), { kind: "wide" });
  let before = null;
  const load = async () => {
    try {
      const page = await call("GET", `mine${before === null ? "" : `?before=${before}`}`);
      list.append(...page.items.map((item) => entry(desk, item)));
      note.textContent = list.children.length ? "" : "Nothing yet.";
      before = page.before;
      more.hidden = before === null;
    } catch (failure) {
      if (!(failure instanceof Failure)) throw failure;
      note.textContent = `${failure.message} ${failure.remedy}`;
    }
  };
  await load();
  return closed;
}

function entry(desk, { id, status, revision, at, beginning }) {
  const open = () => {
    closeAll(desk);
    desk.revise(id);
  };
  const when = new Date(at * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const versions = revision > 1 ? `${revision} versions` : "";
  return h("li", {},
    h("div", {}, h("p", { class: "excerpt", dir: "auto" }, beginning),
      h("p", { class: "about" }, [STATUS[status], when, versions].filter(Boolean).join(" · "))),
    button("Open", open, { "aria-label": `Open: ${beginning.slice(0, 80)}` }));
}
