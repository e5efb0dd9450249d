// Building blocks of the lead's page: addresses, tables, figures, fields, dialogs.

import { project } from "../api.js";
import { h, button } from "../dom.js";

const SHORT = 24; // characters: a shorter cell stays on one line

/** The address of a section of this page or of an item in it: #review/12. */
export const address = (...parts) => `${location.pathname}${location.search}#${parts.join("/")}`;

/** Another page of this project. */
export const within = (path, more = {}) => {
  const query = new URLSearchParams({ ...(project === null ? {} : { project }), ...more }).toString();
  return query ? `${path}?${query}` : path;
};

/** A time in the reader's time zone. */
export const when = (at) => new Date(at * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/** A section with tables and figures only. */
export class Shown {
  constructor(lead, name, title) {
    Object.assign(this, { lead, name });
    this.element = h("section", { class: "shown", "aria-label": title });
  }

  open() {
    const parts = this.lead.data.sections[this.name];
    this.element.replaceChildren(...parts.map((part) => ("columns" in part ? table(part) : figure(part))));
  }
}

/** A table; cells are strings or elements. A table wider than the window scrolls by itself. */
export function table({ title, columns, rows }, { unseen = false } = {}) {
  if (!rows.length) return h("div", {}, h("h2", { class: unseen ? "unseen" : "" }, title), h("p", { class: "hint" }, "Nothing yet."));
  const cell = (tag, found, attrs = {}) => h(tag, { dir: "auto", class: found.length <= SHORT ? "short" : null, ...attrs }, found);
  const row = ([first, ...others]) => h("tr", {}, cell("th", first, { scope: "row" }), others.map((other) => cell("td", other)));
  return h("div", {}, h("h2", { class: unseen ? "unseen" : "" }, title),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
      h("table", {}, h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows.map(row)))));
}

function figure({ alt, src }) {
  return src ? h("figure", {}, h("img", { src, alt })) : "";
}

/** A form field with its label. */
export function field(label, input, hint = "") {
  return h("label", { class: "field" }, h("span", {}, label), input, hint ? h("span", { class: "hint" }, hint) : null);
}

/** A select box; options are [value, label]. */
export function choice(options, attrs = {}) {
  return h("select", attrs, options.map(([value, words]) => h("option", { value }, words)));
}

/** A button that copies text to the clipboard. */
export function copier(words, label = "Copy") {
  const copy = button(label, async () => {
    try {
      await navigator.clipboard.writeText(words);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Select it and copy"; // browsers forbid it over plain http
    }
  });
  return copy;
}

/** Opens a dialog. Escape and Close close it, and the focus returns. `closed` resolves when it is closed. */
export function open(lead, title, content) {
  const dialog = h("dialog", { "aria-label": title }, h("div", { class: "inside" },
    h("header", {}, h("h2", {}, title), button("Close", () => dialog.close(), { class: "quiet", key: "Esc" })), content));
  lead.root.append(dialog);
  dialog.showModal();
  const closed = new Promise((resolve) => dialog.addEventListener("close", () => (dialog.remove(), resolve())));
  return Object.assign(dialog, { closed });
}

/** Asks for confirmation. With `typed`, the person must type that text. Resolves to true or false. */
export async function confirmed(lead, title, words, label, typed = null) {
  let sure = false;
  const input = typed === null ? null : h("input", { autocomplete: "off", spellcheck: "false", oninput: () => (yes.disabled = input.value !== typed) });
  const yes = h("button", { class: "danger", disabled: typed !== null }, label);
  const form = h("form", { method: "dialog", onsubmit: () => (sure = true) },
    h("p", {}, words), input ? field(`To confirm type: ${typed}`, input) : null,
    h("div", { class: "buttons" }, yes, button("Cancel", () => dialog.close())));
  const dialog = open(lead, title, form);
  await dialog.closed;
  return sure;
}
