// Working time in seconds. It runs while the page is visible and the person was active within the last minute.

const IDLE_MS = 60_000;

export class Clock {
  constructor(ontick) {
    this.seconds = 0;
    this.running = false;
    let [last, active] = [performance.now(), performance.now()];
    for (const sign of ["pointerdown", "pointermove", "keydown", "scroll", "touchstart"])
      addEventListener(sign, () => (active = performance.now()), { passive: true, capture: true });
    setInterval(() => {
      const now = performance.now();
      const isWorking = this.running && !document.hidden && now - active < IDLE_MS;
      if (isWorking) this.seconds += Math.min(now - last, 5_000) / 1_000; // leaves out the time that a laptop slept
      last = now;
      if (isWorking) ontick(this.seconds);
    }, 1_000);
  }

  start(seconds = 0) {
    this.seconds = seconds;
    this.running = true;
  }

  stop() {
    this.running = false;
  }
}
