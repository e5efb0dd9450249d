"""Agreement of annotators with each other and of scores with annotators: pairwise, Kendall's tau-b, Cohen's kappa.

Pairwise agreement counts the pairs of answers on which both have a preference, as MT-bench without ties (Zheng et al.
2023, 2306.05685, "S2"), so 50% is chance; Kendall's tau-b and Cohen's kappa count ties too. Intervals are over prompts:
they generalise to other prompts, not to other annotators.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.stats.bootstrap import Interval, ratios
from align.text.rankings import Ranked

Lists = Sequence[Sequence[int]]  # of unequal length, as rankings of 2 to 9 answers are


def accuracy_by_prompt(rows: Sequence[Ranked], scores: Sequence[float], skip_ties: bool = False) -> list[float]:
    """The share of each prompt's pairs that the scores order as its annotators did; a tie in score counts half.

    One number per prompt, for any number of annotators, since prompts are the sampled unit. `skip_ties` ignores pairs
    of equal score.
    """
    found: dict[tuple[Any, ...], list[float]] = {}
    for row, mine in with_scores(rows, scores):
        for i, j in decided_pairs(row):
            if not (skip_ties and mine[i] == mine[j]):
                found.setdefault(row.key, []).append(rightness(mine[i], mine[j]))
    return [sum(values) / len(values) for values in found.values()]


def annotators(rows: Sequence[Ranked]) -> dict[str, float]:
    """Agreement of two annotators on a pair, and the accuracy that this noise allows.

    If all pairs were equally hard, agreement a = p^2 + (1-p)^2 would bound accuracy by p = (1 + sqrt(2a - 1)) / 2; they
    are not, so the true bound is lower. Empty if no answers were ranked twice.
    """
    tasks: dict[tuple[Any, ...], int] = {}
    shared = compared(
        [tasks.setdefault(row.key, len(tasks)) for row in rows], range(len(rows)), [r.ranks for r in rows]
    )
    if not shared.n_decided.sum():
        return {}
    agreement = float(shared.n_agreed.sum() / shared.n_decided.sum())
    return {"annotator_agreement": agreement, "accuracy_bound": (1 + max(0.0, 2 * agreement - 1) ** 0.5) / 2}


def with_scores(rows: Sequence[Ranked], scores: Any) -> Iterator[tuple[Ranked, Any]]:
    """Each ranking with its part of `scores`, which lists the answers of all rankings in order."""
    first = 0
    for row in rows:
        yield row, scores[first : first + len(row.ranks)]
        first += len(row.ranks)


def decided_pairs(row: Ranked) -> Iterator[tuple[int, int]]:
    """The pairs of answers without ties, as (better, worse)."""
    for i, j in combinations(range(len(row.ranks)), 2):
        if row.ranks[i] != row.ranks[j]:
            yield (i, j) if row.ranks[i] < row.ranks[j] else (j, i)


def rightness(better: float, worse: float) -> float:
    """1 if the better answer scores higher, 0 if lower, 0.5 for equal scores."""
    return 0.5 if better == worse else float(better > worse)


# -- annotators with each other ---------------------------------------------------------------------------------------

OUTCOMES = 3  # of a pair of answers: the one is better, they tie, the other is better


class Shared(NamedTuple):
    """One row per two people who ranked the same task; all arrays (n,)."""

    task: NDArray[np.int64]
    first: NDArray[np.int64]  # the two people
    second: NDArray[np.int64]
    n_decided: NDArray[np.int64]  # pairs on which both have a preference
    n_agreed: NDArray[np.int64]  # ... the same one
    tau: NDArray[np.float64]  # Kendall's tau-b; NaN if one of them ties all
    outcomes: NDArray[np.int64]  # (n, 3, 3): pairs by outcome of first and second


def compared(tasks: Iterable[int], people: Iterable[int], ranks: Lists) -> Shared:
    """Compare every two rankings of the same task.

    Args:
        tasks, people: task and annotator of each ranking, as integers.
        ranks: 1 is best, equal ranks are ties; all rankings of a task list its answers in the same order.
    """
    task, person = (np.fromiter(ids, dtype=np.int64, count=len(ranks)) for ids in (tasks, people))
    found = [_none_compared()]
    for rows, (rank,) in by_length(ranks):
        one, other = np.triu_indices(rank.shape[1], 1)
        signs = np.sign(rank[:, other] - rank[:, one]).astype(np.int8)  # (n, pairs); 1: the one is better
        order = np.argsort(task[rows], kind="stable")
        found += _compared(task[rows][order], person[rows][order], signs[order])
    return Shared(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _compared(task: NDArray[np.int64], person: NDArray[np.int64], signs: NDArray[np.int8]) -> Iterator[Shared]:
    """Pairs of rows with equal task; rows must be sorted by task."""
    for shift in range(1, len(task)):
        a = np.flatnonzero(task[:-shift] == task[shift:])
        if not len(a):
            return
        b = a + shift
        preferences = signs[a].astype(np.int64), signs[b].astype(np.int64)
        cells = (1 - preferences[0]) * OUTCOMES + (1 - preferences[1])  # (n, pairs)
        outcomes = np.stack([(cells == cell).sum(axis=1) for cell in range(OUTCOMES**2)], axis=1)
        decided = np.abs(preferences[0]), np.abs(preferences[1])
        agreed = outcomes[:, 0] + outcomes[:, 8]
        both = agreed + outcomes[:, 2] + outcomes[:, 6]
        with np.errstate(invalid="ignore"):
            tau = (2 * agreed - both) / np.sqrt(decided[0].sum(axis=1) * decided[1].sum(axis=1))
        yield Shared(task[a], person[a], person[b], both, agreed, tau, outcomes.reshape(-1, OUTCOMES, OUTCOMES))


def _none_compared() -> Shared:
    none = np.zeros(0, dtype=np.int64)
    return Shared(none, none, none, none, none, np.zeros(0), np.zeros((0, OUTCOMES, OUTCOMES), dtype=np.int64))


class Agreement(NamedTuple):
    """Agreement of annotators. None if no two ranked the same task, or all pairs were tied."""

    pairwise: Interval | None  # share of pairs with the same preference; 0.5 is chance
    tau: Interval | None  # mean Kendall's tau-b of two rankings of a task
    n_tasks: int


def agreement(shared: Shared, seed: int = 0) -> Agreement:
    """Agreement over all pairs of annotators of a task."""
    return _agreements(shared.task, np.zeros_like(shared.task), shared, 1, seed)[0]


def agreement_by_person(shared: Shared, n_people: int, seed: int = 0) -> list[Agreement]:
    """Agreement of each person (0 to n_people - 1) with the others."""
    both = Shared(*(np.concatenate([column, column]) for column in shared))
    return _agreements(both.task, np.concatenate([shared.first, shared.second]), both, n_people, seed)


def _agreements(
    tasks: NDArray[np.int64], groups: NDArray[np.int64], shared: Shared, n_groups: int, seed: int
) -> list[Agreement]:
    if not len(tasks):
        return [Agreement(None, None, 0)] * n_groups
    known = np.isfinite(shared.tau)
    pairwise = ratios(tasks, groups, shared.n_agreed, shared.n_decided, n_groups, seed=seed)
    tau = ratios(tasks, groups, np.where(known, shared.tau, 0), known, n_groups, lowest=-1, seed=seed)
    n_tasks = [len(np.unique(tasks[groups == group])) for group in range(n_groups)]
    return [Agreement(*row) for row in zip(pairwise, tau, n_tasks, strict=True)]


class Couple(NamedTuple):
    """Two people who ranked the same tasks."""

    first: int
    second: int
    n_tasks: int
    pairwise: float | None
    tau: float | None
    kappa: float | None  # Cohen's, over the outcomes better, tie, worse of each pair


def couples(shared: Shared) -> list[Couple]:
    """Every two people who share tasks, those with most tasks first."""
    low, high = np.minimum(shared.first, shared.second), np.maximum(shared.first, shared.second)
    named, which = np.unique(np.stack([low, high], axis=1), axis=0, return_inverse=True)
    found = []
    for number, (first, second) in enumerate(named.tolist()):
        rows = np.flatnonzero(which.ravel() == number)
        decided, tau = int(shared.n_decided[rows].sum()), shared.tau[rows]
        counts = shared.outcomes[rows].sum(axis=0)
        found.append(
            Couple(
                first,
                second,
                len(rows),
                float(shared.n_agreed[rows].sum() / decided) if decided else None,
                float(np.nanmean(tau)) if np.isfinite(tau).any() else None,
                # The order within a pair is arbitrary: each pair counts in both orders.
                cohen_kappa(counts + counts[::-1, ::-1]),
            )
        )
    return sorted(found, key=lambda couple: -couple.n_tasks)


def cohen_kappa(counts: ArrayLike) -> float | None:
    """Cohen's kappa (1960), agreement beyond chance: (p_o - p_e) / (1 - p_e). None if p_e = 1.

    Args:
        counts: (categories, categories), counts by the first's category (row) and the second's (column).
    """
    table = np.asarray(counts, dtype=np.float64)
    n = float(table.sum())
    if not n:
        return None
    expected = float(table.sum(axis=1) @ table.sum(axis=0)) / n**2
    return (float(np.trace(table)) / n - expected) / (1 - expected) if expected < 1 else None


def by_length(first: Lists, *others: Lists) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.float64]]]]:
    """For each length K of two or more: which lists have it, (n,), and all of `first` and `others` as tables (n, K).

    The i-th lists of all arguments must be of one length.
    """
    lengths = np.fromiter(map(len, first), dtype=np.int64, count=len(first))
    for k in np.unique(lengths[lengths > 1]):
        rows = np.flatnonzero(lengths == k)
        yield rows, [np.array([lists[row] for row in rows.tolist()], dtype=np.float64) for lists in (first, *others)]
