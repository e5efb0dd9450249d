"""Scores against people: how often a reward model orders a pair as its annotators did, and how often they agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from align.text.rankings import Ranked


def accuracy_by_prompt(rows: Sequence[Ranked], scores: Sequence[float], skip_ties: bool = False) -> list[float]:
    """The share of each prompt's pairs that the scores order as its annotators did; a tie in score counts half.

    One figure for a prompt, whoever and however many ranked it: prompts are what the sample was drawn from. With
    `skip_ties` pairs of equal score are left out.
    """
    found: dict[tuple[Any, ...], list[float]] = {}
    for row, mine in with_scores(rows, scores):
        for i, j in decided_pairs(row):
            if not (skip_ties and mine[i] == mine[j]):
                found.setdefault(row.key, []).append(rightness(mine[i], mine[j]))
    return [sum(values) / len(values) for values in found.values()]


def annotators(rows: Sequence[Ranked]) -> dict[str, float]:
    """How often two annotators who ranked the same answers agree on a pair, and the accuracy that this noise allows.

    If every pair were as hard, agreement a = p^2 + (1-p)^2 would bound accuracy by p = (1 + sqrt(2a - 1)) / 2; pairs
    differ, and then the true bound is lower. Empty where no answers were ranked twice.
    """
    views: dict[tuple[Any, ...], list[tuple[int, ...]]] = {}
    for row in rows:
        views.setdefault(row.key, []).append(row.ranks)
    agreements = [
        float((a[i] < a[j]) == (b[i] < b[j]))
        for ranks in views.values()
        for a, b in combinations(ranks, 2)
        for i, j in combinations(range(len(a)), 2)
        if a[i] != a[j] and b[i] != b[j]
    ]
    if not agreements:
        return {}
    agreement = sum(agreements) / len(agreements)
    return {"annotator_agreement": agreement, "accuracy_bound": (1 + max(0.0, 2 * agreement - 1) ** 0.5) / 2}


def with_scores(rows: Sequence[Ranked], scores: Any) -> Iterator[tuple[Ranked, Any]]:
    """Each ranking with the scores of its answers; `scores` (a list or an array) run through the answers of all."""
    first = 0
    for row in rows:
        yield row, scores[first : first + len(row.ranks)]
        first += len(row.ranks)


def decided_pairs(row: Ranked) -> Iterator[tuple[int, int]]:
    """The pairs of answers that are no tie, as (better, worse)."""
    for i, j in combinations(range(len(row.ranks)), 2):
        if row.ranks[i] != row.ranks[j]:
            yield (i, j) if row.ranks[i] < row.ranks[j] else (j, i)


def rightness(better: float, worse: float) -> float:
    """1 if the better answer scores higher, 0 if lower, 0.5 for equal scores."""
    return 0.5 if better == worse else float(better > worse)
