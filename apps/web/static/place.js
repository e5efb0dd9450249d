// Finds the column that Gradio's page holds for us and gives a root in a shadow tree: Gradio's styles do not reach in,
// and ours do not reach out.

import { h } from "./dom.js";

const SHARED = ["/static/base.css", "/static/page.css"];

// Fonts belong to documents, not to shadow trees. It is loaded when the first formula is shown.
document.fonts.add(new FontFace("STIX Two Math", "url(/static/math.ttf)"));

/** Calls `draw(root)` once the column is there. `style` is the app's own style sheet, `kind` is the root's class. */
export function inPlace(column, kind, style, draw) {
  const begin = (place) => {
    const inside = place.attachShadow({ mode: "open" });
    const root = h("div", { class: kind });
    inside.append(...[...SHARED, style].map((href) => h("link", { rel: "stylesheet", href })), root);
    draw(root);
  };
  const found = document.getElementById(column);
  if (found) return begin(found);
  const observer = new MutationObserver(() => {
    const place = document.getElementById(column);
    if (!place) return;
    observer.disconnect();
    begin(place);
  });
  observer.observe(document, { childList: true, subtree: true });
}
