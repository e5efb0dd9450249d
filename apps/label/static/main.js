// Finds the place that Gradio's page holds for us and draws the labelling page into it, in a shadow tree: Gradio's styles
// do not reach in, and ours do not reach out.

import { Desk } from "./app.js";
import { h } from "./dom.js";

const host = document.getElementById("align-label");
if (host) draw(host);
else {
  const observer = new MutationObserver(() => {
    const found = document.getElementById("align-label");
    if (!found) return;
    observer.disconnect();
    draw(found);
  });
  observer.observe(document, { childList: true, subtree: true });
}

function draw(place) {
  const inside = place.attachShadow({ mode: "open" });
  const styles = ["/static/base.css", "/static/label/label.css"].map((href) => h("link", { rel: "stylesheet", href }));
  const root = h("div", { class: "label" });
  inside.append(...styles, root);
  new Desk(root).start();
}
