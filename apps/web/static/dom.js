// Building elements. Text becomes text nodes; only `safeHtml` parses HTML, and only what the server made.

/** Makes an element. `attrs`: on* are listeners, true gives an empty attribute, false and null are left out. */
export function h(tag, attrs = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A text block, rendered or raw. `html` was made and sanitised by the server (apps/web/render.py). */
export function textBlock({ text, html }, raw) {
  const block = h("div", { class: raw ? "text raw" : "text rendered", dir: "auto" });
  if (raw) block.textContent = text;
  else safeHtml(block, html);
  return block;
}

export function safeHtml(element, html) {
  element.innerHTML = html;
  for (const wide of element.querySelectorAll("pre, table, math[display=block]")) wide.tabIndex = 0; // so that the keyboard can scroll it
}

/** A button that shows its shortcut key. */
export function button(label, onclick, { key = "", ...attrs } = {}) {
  return h("button", { type: "button", onclick, ...attrs }, label, key ? h("kbd", { "aria-hidden": "true" }, key) : null);
}

export const letter = (slot) => String.fromCharCode(65 + Number(slot));

/** "0:07", "12:30", "1:02:03" */
export function duration(seconds) {
  const whole = Math.floor(seconds);
  const two = (n) => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
