// Which words of two texts are in both, by the shortest edit between them. Pure functions.

const MOST_EDITS = 3_000; // beyond it two texts have little in common, and finding that out takes long

/** The words, marks and spaces of a text, in order; joined they are the text. */
export function pieces(text) {
  return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), ({ segment }) => segment);
}

/**
 * Each text as runs [text, isAlone] in order: isAlone where the other text lacks it. Spaces go with the words around
 * them. Null where more than 3,000 words differ.
 */
export function differences(one, other) {
  const [left, right] = [pieces(one), pieces(other)];
  const [a, b] = [words(left), words(right)];
  const shared = inBoth(a, b);
  if (shared === null) return null;
  return [runs(left, new Set(shared.map(([index]) => index))), runs(right, new Set(shared.map(([, index]) => index)))];
}

const isSpace = (piece) => !piece.trim();
const words = (all) => all.filter((piece) => !isSpace(piece));

function runs(all, shared) {
  const found = [];
  let index = 0;
  for (const piece of all) {
    const isAlone = isSpace(piece) ? isBetween(found, shared, index) : !shared.has(index++);
    if (found.length && found.at(-1)[1] === isAlone) found.at(-1)[0] += piece;
    else found.push([piece, isAlone]);
  }
  return found;
}

/** Whether a space stands between two words that are alone. `index`: of the word after it. */
const isBetween = (found, shared, index) => Boolean(found.at(-1)?.[1]) && !shared.has(index);

/** Pairs of indices of a longest common subsequence (Myers 1986, greedy), or null if it takes more than MOST_EDITS. */
export function inBoth(a, b) {
  const [n, m] = [a.length, b.length];
  const trace = [];
  let far = null; // far[d + 1 + k]: how far in `a` the d - 1 edits before lead on diagonal k
  for (let d = 0; d <= Math.min(n + m, MOST_EDITS); d++) {
    const next = new Int32Array(2 * d + 5);
    for (let k = -d; k <= d; k += 2) {
      let x = d === 0 ? 0 : isDown(far, d, k) ? far[d + 2 + k] : far[d + k] + 1;
      while (x < n && x - k < m && a[x] === b[x - k]) x++;
      next[d + 2 + k] = x;
      if (x >= n && x - k >= m) return traced(trace, d, k, x);
    }
    trace.push((far = next));
  }
  return null;
}

/** Whether the d-th edit, which leads to diagonal k, is a word of `b` more (from k + 1), not one of `a` (from k - 1). */
const isDown = (far, d, k) => k === -d || (k !== d && far[d + k] < far[d + 2 + k]);

function traced(trace, d, k, x) {
  const pairs = [];
  for (; d > 0; d--) {
    const far = trace[d - 1];
    const down = isDown(far, d, k);
    const begin = down ? far[d + 2 + k] : far[d + k] + 1;
    while (x > begin) pairs.push([--x, x - k]);
    x = down ? begin : begin - 1;
    k += down ? 1 : -1;
  }
  while (x > 0) pairs.push([--x, x]);
  return pairs.reverse();
}
