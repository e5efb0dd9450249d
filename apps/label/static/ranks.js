// Ranks as an array: ranks[slot] is 1 (best) to K, or null while the answer has not been placed. Pure functions.

/** The answer joins a rank; equal ranks are ties. Without ties it takes the place and pushes the others away. */
export function place(ranks, slot, rank, ties = true) {
  if (!ties && rank !== null && ranks.some((other, index) => other === rank && index !== slot))
    return ranks[slot] === rank ? ranks : insert(ranks, slot, rank + (ranks[slot] !== null && ranks[slot] < rank ? 1 : 0));
  return ranks.map((other, index) => (index === slot ? rank : other));
}

/** The answer gets a rank of its own, above what has rank `before` and below what is better. */
export function insert(ranks, slot, before) {
  const others = ranks.map((rank, index) => (index === slot ? null : rank));
  const isFree = (rank) => !others.includes(rank);
  const n = ranks.length;
  for (let free = before; free <= n; free++)
    if (isFree(free)) return shifted(others, before, free - 1, 1, slot, before);
  for (let free = before - 1; free >= 1; free--)
    if (isFree(free)) return shifted(others, free + 1, before - 1, -1, slot, before - 1);
  return ranks; // cannot be: K - 1 others leave one of K ranks free
}

function shifted(others, from, to, step, slot, rank) {
  return others.map((other, index) => {
    if (index === slot) return rank;
    return other !== null && other >= from && other <= to ? other + step : other;
  });
}

/** One row up (-1) or down (+1). Below the last row is "not ranked", where an answer begins. */
export function step(ranks, slot, by, ties = true) {
  const [n, rank] = [ranks.length, ranks[slot]];
  const target = (rank === null ? n + 1 : rank) + by;
  if (target < 1 || target > n + 1) return ranks;
  if (target === n + 1) return place(ranks, slot, null);
  return ties ? place(ranks, slot, target) : swap(ranks, slot, by);
}

/** Past the neighbours: they and the answer change places. */
export function swap(ranks, slot, by) {
  const rank = ranks[slot];
  if (rank === null) return step(ranks, slot, by);
  const target = rank + by;
  if (target < 1 || target > ranks.length) return ranks;
  return ranks.map((other, index) => (index === slot ? target : other === target ? rank : other));
}

/** The ranks that ratings give: the higher the better, equal ones tied. Without ties equal ones stay unranked. */
export function byRatings(ratings, ties = true) {
  return ratings.map((rating, slot) => {
    const isAlone = ratings.every((other, index) => other !== rating || index === slot);
    if (rating === null || !(ties || isAlone)) return null;
    return 1 + ratings.filter((other) => other > rating).length;
  });
}

export const isComplete = (ranks) => ranks.every((rank) => rank !== null);

/** Those that have been placed, in groups from best to worst. */
export function groups(ranks) {
  const used = [...new Set(ranks.filter((rank) => rank !== null))].sort((a, b) => a - b);
  return used.map((rank) => ranks.flatMap((other, slot) => (other === rank ? [slot] : [])));
}

/** The ranks without gaps, as they are saved: an answer's rank is one more than the number of better ones. */
export function standard(ranks) {
  return ranks.map((rank) => (rank === null ? null : 1 + ranks.filter((other) => other !== null && other < rank).length));
}
