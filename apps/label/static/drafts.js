// Saving drafts and submissions so that nothing is lost. A draft goes to localStorage at once and to the server after a
// second without changes. A submission stays in localStorage until the server confirms it; retries use the same UUID.

import { call } from "../api.js";

const QUIET_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;

export class Drafts {
  /** `scope` names project and person, so that nobody sees another's drafts. `report` is called with {state, message}. */
  constructor(scope, report) {
    this.prefix = `align-label/${scope}/`;
    this.report = report;
    this.timer = null;
    this.sending = false;
    this.task = null;
    this.latest = null;
  }

  /**
   * The draft to continue: the newer of the local one and the server's. A draft's `rev` is the time of its last change in
   * milliseconds, so "newer" also holds across windows and machines.
   */
  open(task) {
    this.task = task;
    this.rev = task.draft_rev;
    this.latest = null;
    const kept = this.#read(`draft/${task.id}`);
    const isNewer = kept !== null && kept.rev > task.draft_rev;
    if (isNewer) this.changed(kept.payload, kept.seconds);
    return { payload: isNewer ? kept.payload : task.draft, seconds: kept?.seconds ?? 0 };
  }

  close() {
    clearTimeout(this.timer);
    this.task = null;
  }

  changed(payload, seconds) {
    this.latest = { payload, seconds, rev: Math.max(Date.now(), this.rev + 1) };
    this.#write(`draft/${this.task.id}`, this.latest);
    this.report({ state: "waiting" });
    this.#later(QUIET_MS);
  }

  /** Sends at once, because the page is being hidden or left. */
  flush() {
    if (this.#isUnsent) this.#send(true);
  }

  get #isUnsent() {
    return this.task !== null && this.latest !== null && this.latest.rev > this.rev;
  }

  #later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#send(), ms);
  }

  async #send(leaving = false, wait = 1_000) {
    clearTimeout(this.timer);
    if (!this.#isUnsent || this.sending) return;
    const { task, latest } = this;
    this.sending = true;
    try {
      const body = { task: task.id, rev: latest.rev, payload: latest.payload };
      const { saved, rev } = await call("PUT", "draft", body, { keepalive: leaving });
      if (this.task !== task) return;
      this.rev = rev;
      if (!saved) this.latest.rev = rev + 1; // another window saved later, but the person works in this one
      if (this.#isUnsent) this.#later(QUIET_MS);
      else this.report({ state: "saved", message: `Draft saved at ${clockTime(Date.now())}` });
    } catch (failure) {
      if (this.task !== task) return;
      this.report({ state: failure.passes ? "offline" : "refused", failure });
      if (failure.passes) this.timer = setTimeout(() => this.#send(false, 2 * wait), Math.min(wait, LONGEST_WAIT_MS));
    } finally {
      this.sending = false;
    }
  }

  /** The submission that the server has not confirmed, if any. */
  get pending() {
    return this.#read("pending");
  }

  /**
   * Sends until the server answers. Resolves with the answer; rejects on a final refusal (the draft is kept). Each failed
   * attempt goes to `report`.
   */
  async deliver(path, body) {
    if (path === "skip" || path === "flag") await this.#send(); // so that Undo can restore the draft
    const isKept = path !== "submit" && this.#isUnsent;
    this.close();
    this.#write("pending", { path, body });
    for (let wait = 1_000; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
      try {
        const answer = await call("POST", path, body);
        this.#remove("pending");
        if (!isKept) this.#remove(`draft/${body.task}`);
        return answer;
      } catch (failure) {
        if (failure.status === 401) throw failure; // stays pending: it is sent again after the login
        if (!failure.passes) {
          this.#remove("pending");
          throw failure;
        }
        this.report({ state: "undelivered", failure, seconds: Math.round(wait / 1_000) });
        await this.#pause(wait);
      }
    }
  }

  /** Retries at once. */
  hurry() {
    this.wake?.();
    if (this.#isUnsent) this.#later(0);
  }

  #pause(ms) {
    return new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, ms);
    });
  }

  // localStorage may be full or forbidden. Then only the server's draft exists.
  #read(key) {
    try {
      return JSON.parse(localStorage.getItem(this.prefix + key));
    } catch {
      return null;
    }
  }

  #write(key, value) {
    try {
      localStorage.setItem(this.prefix + key, JSON.stringify(value));
    } catch {
      this.report({ state: "unkept" });
    }
  }

  #remove(key) {
    try {
      localStorage.removeItem(this.prefix + key);
    } catch {
      // it was never stored
    }
  }
}

/** "14:05" */
export const clockTime = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

// ---- the person's choices, stored in this browser ----

export function remember(what, value) {
  try {
    localStorage.setItem(`align-label/choice/${what}`, JSON.stringify(value));
  } catch {
    // then it holds for this page view only
  }
}

export function recalled(what) {
  try {
    return JSON.parse(localStorage.getItem(`align-label/choice/${what}`));
  } catch {
    return null;
  }
}
