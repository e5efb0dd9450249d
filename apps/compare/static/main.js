// Starts the comparison page inside Gradio's page.

import { inPlace } from "../place.js";
import { Page } from "./page.js";

inPlace("align-compare", "compare", "/static/compare/compare.css", (root) => new Page(root).start());
