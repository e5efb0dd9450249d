// Starts the labelling page inside Gradio's page.

import { inPlace } from "../place.js";
import { Desk } from "./app.js";

inPlace("align-label", "label", "/static/label/label.css", (root) => new Desk(root).start());
