// Keyboard shortcuts. Inactive while the person types or composes characters (IME), while a dialog is open, or when off.

import { recalled } from "./drafts.js";

export const KEYS = [
  ["→ or J", "next answer"],
  ["← or K", "previous answer"],
  ["1 … 7", "rate the chosen answer"],
  ["Shift + 1 … 9", "rank the chosen answer; equal ranks are ties"],
  ["Shift + 0", "remove it from the ranking"],
  ["R", "rank by ratings; R again restores your ranking"],
  ["E", "show its whole text or only the beginning; Shift + E: for all answers"],
  ["D", "compare it with another answer, differences marked"],
  ["F", "open its flags; Tab and Space set them; F again closes them"],
  ["C", "comment on it; Esc leaves the text box"],
  ["B", "all answers are bad"],
  ["Ctrl + Enter", "submit"],
  ["U", "undo the last submission"],
  ["S", "skip this task"],
  ["P", "report the prompt"],
  ["O", "fold or unfold the prompt"],
  ["T", "switch between raw and rendered text"],
  ["G", "guidelines"],
  ["H", "my work so far"],
  ["?", "these shortcuts"],
];

export const BOARD_KEYS = [
  ["↑ ↓", "one row up or down"],
  ["Shift + ↑ ↓", "swap with the neighbour"],
  ["1 … 9", "move to that rank"],
  ["0 or Delete", "remove from the ranking"],
];

export function listen(desk) {
  document.addEventListener("keydown", (event) => onKey(desk, event));
}

function onKey(desk, event) {
  if (event.isComposing || event.keyCode === 229 || event.defaultPrevented || desk.root.querySelector("dialog[open]")) return;
  const target = event.composedPath()[0];
  if (isTyping(target)) {
    if (event.key === "Escape") desk.focus(desk.chosen ?? 0);
    return;
  }
  const [handled, argument] = action(desk, event, target);
  if (!handled) return;
  event.preventDefault();
  handled.call(desk, argument);
}

function action(desk, event, target) {
  const { task, chosen } = desk;
  const on = recalled("shortcuts") !== false;
  if (event.ctrlKey && event.key === "Enter" && !event.altKey && !event.metaKey) return [on && task && desk.submit];
  if (event.ctrlKey || event.metaKey || event.altKey) return [];
  if (event.key === "?") return [() => desk.frame.help()];
  if (!on) return [];
  const name = nameOf(event);
  const anywhere = { g: () => desk.frame.guidelines(), h: () => desk.frame.history(), u: desk.undo };
  if (!event.shiftKey && name in anywhere && !event.repeat) return [anywhere[name]];
  if (!task || event.repeat && !name.startsWith("arrow")) return [];
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1];
  if (digit !== undefined) return digitAction(desk, Number(digit), event.shiftKey);
  if (event.shiftKey) return [name === "e" && (() => desk.expand(desk.cards))];
  const n = task.answers.length;
  const to = (by) => desk.focus(chosen === null ? (by > 0 ? 0 : n - 1) : (chosen + by + n) % n);
  const inRadios = target.type === "radio" && name.startsWith("arrow");
  const actions = {
    arrowright: !inRadios && (() => to(1)), j: () => to(1),
    arrowleft: !inRadios && (() => to(-1)), k: () => to(-1),
    f: () => desk.frame.toFlags(), c: () => desk.frame.toComment(), b: () => desk.setAllBad(!desk.allBad),
    s: desk.skip, p: desk.flag, t: desk.toggleRaw, r: () => desk.board.rankByRatings(), d: () => desk.compare(),
    e: () => desk.expand(chosen === null ? desk.cards : [desk.cards[chosen]]), o: () => desk.frame.prompt.fold(),
  };
  return [actions[name]];
}

function digitAction(desk, digit, shift) {
  const { chosen, task, config } = desk;
  if (chosen === null) return [() => desk.frame.complain("Choose an answer first (→ or J).")];
  if (shift) return digit <= task.answers.length ? [() => desk.set(chosen, "rank", digit || null)] : [];
  const inScale = config.questions.rating.ask && digit >= 1 && digit <= 7;
  return inScale ? [() => desk.set(chosen, "rating", digit)] : [];
}

/** The key's name in lower case. On a keyboard without Latin letters: the Latin letter at that position. */
function nameOf({ key, code }) {
  return (/^[^\x00-\x7f]$/.test(key) ? code.replace(/^Key/, "") : key).toLowerCase();
}

const NOT_TEXT = ["radio", "checkbox", "button", "submit"];

function isTyping(target) {
  if (target.isContentEditable || ["TEXTAREA", "SELECT"].includes(target.tagName)) return true;
  return target.tagName === "INPUT" && !NOT_TEXT.includes(target.type);
}
