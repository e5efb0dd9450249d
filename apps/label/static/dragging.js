// Dragging chips with pointer events (mouse, pen and touch). A chip is dropped on a row or between two rows.

const FAR_ENOUGH = 5; // pixels; a shorter move is a click
const EDGE = 56; // pixels from the window's edge where scrolling starts

export class Dragging {
  /** `ondrop(slot, {rank, gap})`: rank is null for "not ranked"; gap is "above", "below", or null for the row itself. */
  constructor(root, ondrop) {
    Object.assign(this, { root, ondrop });
  }

  attach(element, slot) {
    element.addEventListener("pointerdown", (event) => {
      if (event.button === 0 && event.isPrimary) this.#begin(event, element, slot);
    });
  }

  #begin(down, element, slot) {
    const start = { x: down.clientX, y: down.clientY };
    let ghost = null;
    let at = start;
    let frame = 0;
    element.setPointerCapture(down.pointerId);

    const move = (event) => {
      at = { x: event.clientX, y: event.clientY };
      if (!ghost && Math.hypot(at.x - start.x, at.y - start.y) < FAR_ENOUGH) return;
      ghost ??= this.#ghost(element);
      ghost.style.translate = `${at.x}px ${at.y}px`;
      this.#mark(this.#target(at, slot));
      frame ||= requestAnimationFrame(scroll);
    };
    const scroll = () => {
      const by = at.y < EDGE ? -10 : at.y > innerHeight - EDGE ? 10 : 0;
      if (by) scrollBy(0, by);
      this.#mark(this.#target(at, slot));
      frame = ghost && by ? requestAnimationFrame(scroll) : 0;
    };
    const end = (dropped) => {
      const target = dropped && ghost ? this.#target(at, slot) : null;
      for (const [type, listener] of listeners) element.removeEventListener(type, listener);
      removeEventListener("keydown", escape, true);
      cancelAnimationFrame(frame);
      this.#mark(null);
      if (!ghost) return;
      ghost.remove();
      ghost = null;
      element.classList.remove("is-dragged");
      element.addEventListener("click", silence, true);
      setTimeout(() => {
        element.removeEventListener("click", silence, true); // the click that ends a drag has arrived by now, if any
        this.ondrop(slot, target);
      });
    };
    const escape = (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      end(false);
    };
    const listeners = [
      ["pointermove", move],
      ["pointerup", () => end(true)],
      ["pointercancel", () => end(false)],
      ["lostpointercapture", () => end(false)],
    ];
    for (const [type, listener] of listeners) element.addEventListener(type, listener);
    addEventListener("keydown", escape, true);
  }

  #ghost(element) {
    const ghost = element.cloneNode(true);
    ghost.removeAttribute("id");
    ghost.className = "chip ghost";
    element.classList.add("is-dragged");
    this.root.append(ghost);
    return ghost;
  }

  #target({ x, y }, slot) {
    const row = this.root.getRootNode().elementsFromPoint(x, y).map((element) => element.closest("[data-rank]")).find(Boolean);
    if (!row) return null;
    if (row.dataset.rank === "none") return { row, rank: null, gap: null };
    const box = row.getBoundingClientRect();
    const others = row.querySelectorAll(`.chip:not([data-slot="${slot}"])`).length;
    const share = (y - box.top) / box.height;
    const gap = !others ? null : share < 0.25 ? "above" : share > 0.75 ? "below" : null;
    return { row, rank: Number(row.dataset.rank), gap };
  }

  #mark(target) {
    for (const row of this.root.querySelectorAll("[data-rank]")) {
      row.classList.toggle("is-target", row === target?.row && !target.gap);
      row.classList.toggle("is-above", row === target?.row && target.gap === "above");
      row.classList.toggle("is-below", row === target?.row && target.gap === "below");
    }
  }
}

const silence = (event) => event.stopImmediatePropagation();
