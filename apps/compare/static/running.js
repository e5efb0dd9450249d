// One question on its way: its place in the line, the events of its answer, and a stop that stops.

import { call, stream } from "../api.js";

export class Running {
  /** `say(words)` is told where the question stands. */
  constructor(path, body, say) {
    Object.assign(this, { path, body, say, id: null, isStopped: false, abort: new AbortController() });
  }

  /** Every event that is about an answer. Ends when all is said; throws a Failure where the connection is lost. */
  async *events() {
    try {
      for await (const event of stream(this.path, this.body, this.abort.signal)) {
        if (event.id) this.id = event.id;
        else if (event.failed) throw Object.assign(new Error(event.failed), { remedy: "Try again." });
        else if ("ahead" in event) this.say(event.ahead ? `Waiting: ${event.ahead} before you …` : "Answering …");
        else yield event;
      }
    } catch (failure) {
      if (!this.abort.signal.aborted) throw failure;
    }
  }

  /** The server stops between two tokens and says what it has; where it cannot be asked, the connection is closed. */
  stop() {
    if (this.isStopped) return;
    this.isStopped = true;
    this.say("Stopping …");
    if (this.id === null) this.abort.abort();
    else call("POST", "stop", { id: this.id }).catch(() => this.abort.abort());
  }
}
