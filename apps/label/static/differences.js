// The words that two texts share, by their longest common subsequence. Pure functions.

const MOST_EDITS = 3_000; // with more edits the texts have little in common, and the search gets slow

/** A text's words, punctuation and spaces in order. Joined, they are the text. */
export function segments(text) {
  return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), ({ segment }) => segment);
}

/**
 * Both texts as runs [text, isUnique] in order; isUnique marks what the other text lacks. Spaces go with the words
 * around them. Null if more than 3,000 words differ.
 */
export function differences(one, other) {
  const [left, right] = [segments(one), segments(other)];
  const [a, b] = [words(left), words(right)];
  const shared = inBoth(a, b);
  if (shared === null) return null;
  return [runs(left, new Set(shared.map(([index]) => index))), runs(right, new Set(shared.map(([, index]) => index)))];
}

const isSpace = (segment) => !segment.trim();
const words = (all) => all.filter((segment) => !isSpace(segment));

function runs(all, shared) {
  const found = [];
  let index = 0;
  for (const segment of all) {
    const isUnique = isSpace(segment) ? isBetween(found, shared, index) : !shared.has(index++);
    if (found.length && found.at(-1)[1] === isUnique) found.at(-1)[0] += segment;
    else found.push([segment, isUnique]);
  }
  return found;
}

/** Whether a space stands between two unique words. `index`: of the word after it. */
const isBetween = (found, shared, index) => Boolean(found.at(-1)?.[1]) && !shared.has(index);

/** Index pairs of a longest common subsequence (Myers 1986, greedy), or null if it needs more than MOST_EDITS edits. */
export function inBoth(a, b) {
  const [n, m] = [a.length, b.length];
  const trace = [];
  let far = null; // far[d + 1 + k]: the furthest index in `a` on diagonal k after d - 1 edits
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

/** Whether the d-th edit, which leads to diagonal k, inserts a word of `b` (from k + 1) or deletes one of `a` (from k - 1). */
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
