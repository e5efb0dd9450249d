// Mounts an app in its column of Gradio's page, inside a shadow tree that keeps Gradio's styles and ours apart.

import { h } from "./dom.js";

const SHARED = ["/static/base.css", "/static/page.css"];

// Fonts belong to the document, not to shadow trees. This one is loaded when the first formula is shown.
document.fonts.add(new FontFace("STIX Two Math", "url(/static/math.ttf)"));

/** Calls `draw(root)` once the column exists. `style`: the app's own style sheet; `kind`: the root's class. */
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
