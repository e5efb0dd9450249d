// Operations on ranks: ranks[slot] is 1 (best) to K, or null while the answer is not ranked. Pure functions.

/** Gives the answer a rank; equal ranks are ties. Without ties the answers in its way shift. */
export function place(ranks, slot, rank, ties = true) {
  if (!ties && rank !== null && ranks.some((other, index) => other === rank && index !== slot))
    return ranks[slot] === rank ? ranks : insert(ranks, slot, rank + (ranks[slot] !== null && ranks[slot] < rank ? 1 : 0));
  return ranks.map((other, index) => (index === slot ? rank : other));
}

/** Gives the answer a rank of its own, just above the answers that have rank `before`. */
export function insert(ranks, slot, before) {
  const others = ranks.map((rank, index) => (index === slot ? null : rank));
  const isFree = (rank) => !others.includes(rank);
  const n = ranks.length;
  for (let free = before; free <= n; free++)
    if (isFree(free)) return shifted(others, before, free - 1, 1, slot, before);
  for (let free = before - 1; free >= 1; free--)
    if (isFree(free)) return shifted(others, free + 1, before - 1, -1, slot, before - 1);
  return ranks; // unreachable: K - 1 others leave one of K ranks free
}

function shifted(others, from, to, step, slot, rank) {
  return others.map((other, index) => {
    if (index === slot) return rank;
    return other !== null && other >= from && other <= to ? other + step : other;
  });
}

/** Moves one row up (-1) or down (+1). Below the last row is "not ranked", where answers start. */
export function step(ranks, slot, by, ties = true) {
  const [n, rank] = [ranks.length, ranks[slot]];
  const target = (rank === null ? n + 1 : rank) + by;
  if (target < 1 || target > n + 1) return ranks;
  if (target === n + 1) return place(ranks, slot, null);
  return ties ? place(ranks, slot, target) : swap(ranks, slot, by);
}

/** Swaps the answer with the neighbouring row. */
export function swap(ranks, slot, by) {
  const rank = ranks[slot];
  if (rank === null) return step(ranks, slot, by);
  const target = rank + by;
  if (target < 1 || target > ranks.length) return ranks;
  return ranks.map((other, index) => (index === slot ? target : other === target ? rank : other));
}

/** Ranks by rating, highest first. Equal ratings tie; without ties they stay unranked. */
export function byRatings(ratings, ties = true) {
  return ratings.map((rating, slot) => {
    const isAlone = ratings.every((other, index) => other !== rating || index === slot);
    if (rating === null || !(ties || isAlone)) return null;
    return 1 + ratings.filter((other) => other > rating).length;
  });
}

export const isComplete = (ranks) => ranks.every((rank) => rank !== null);

/** The ranked answers in groups, best first. */
export function groups(ranks) {
  const used = [...new Set(ranks.filter((rank) => rank !== null))].sort((a, b) => a - b);
  return used.map((rank) => ranks.flatMap((other, slot) => (other === rank ? [slot] : [])));
}

/** Standard competition ranks, as they are saved: one more than the number of better answers. */
export function standard(ranks) {
  return ranks.map((rank) => (rank === null ? null : 1 + ranks.filter((other) => other !== null && other < rank).length));
}
