// A question in progress: its place in the queue, the events of its answer, and stopping it.

import { call, stream } from "../api.js";

export class Running {
  /** `say(words)` is called with the question's status. */
  constructor(path, body, say) {
    Object.assign(this, { path, body, say, id: null, isStopped: false, abort: new AbortController() });
  }

  /** Yields every event about an answer until the end. Throws a Failure if the connection is lost. */
  async *events() {
    try {
      for await (const event of stream(this.path, this.body, this.abort.signal)) {
        if (event.id) this.id = event.id;
        else if (event.failed) throw Object.assign(new Error(event.failed), { remedy: "Try again." });
        else if ("ahead" in event) this.say(event.ahead ? `Waiting: ${event.ahead} ahead of you …` : "Answering …");
        else yield event;
      }
    } catch (failure) {
      if (!this.abort.signal.aborted) throw failure;
    }
  }

  /** Asks the server to stop after the current token; if that is impossible, closes the connection. */
  stop() {
    if (this.isStopped) return;
    this.isStopped = true;
    this.say("Stopping …");
    if (this.id === null) this.abort.abort();
    else call("POST", "stop", { id: this.id }).catch(() => this.abort.abort());
  }
}
