// Draws the page into Gradio's.

import { inPlace } from "../place.js";
import { Page } from "./page.js";

inPlace("align-compare", "compare", "/static/compare/compare.css", (root) => new Page(root).start());
