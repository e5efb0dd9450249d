"""Annotations as plain rows (`Label`), and as columns of numbers for statistics (`Answers`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from align.stats.bootstrap import Interval
from align.stats.krippendorff import Level, krippendorff_alpha, relative_ranks

Texts = tuple[str, ...]


class Label(NamedTuple):
    """One person's current annotation of one task; tuples are in the order of the task's answers."""

    task: int
    prompt: int
    kind: str  # rank, practice, gold
    person: str
    status: str  # submitted, skipped, flagged
    models: tuple[Texts, ...]  # the models that gave each answer; several for equal texts, none if unknown
    places: tuple[int, ...]  # where the person saw each answer, 0 first
    ranks: tuple[int, ...] | None  # 1 is best, equal ranks are ties; None if nothing is submitted or ranked
    ratings: tuple[int | None, ...]  # empty if nothing is submitted, like flags
    flags: tuple[Texts, ...]
    all_bad: bool
    seconds: float
    at: float  # since 1970
    expected: tuple[int, ...] | None = None  # of a gold or practice task
    closed: bool = False  # the task is closed: something is wrong with it
    final: bool = False  # a reviewer's ranking that decides the task: it counts instead of all others


def decisive(labels: Sequence[Label]) -> list[Label]:
    """The labels that exports contain: none of closed tasks, only the final one of a task that a reviewer decided."""
    decided = {label.task for label in labels if label.final}
    return [label for label in labels if not label.closed and label.final == (label.task in decided)]


def independent(labels: Sequence[Label]) -> list[Label]:
    """The labels that can be compared between people: no final ones, none of closed tasks."""
    return [label for label in labels if not label.closed and not label.final]


class Answers:
    """All answers of submitted labels as columns, (n_answers,) in total."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self.labels = labels
        self.sizes = np.fromiter((len(label.flags) for label in labels), dtype=np.int64, count=len(labels))
        firsts = np.cumsum(self.sizes) - self.sizes
        self.prompt = np.repeat(column(label.prompt for label in labels), self.sizes)
        task = column(label.task for label in labels)
        answer = np.arange(int(self.sizes.sum())) - np.repeat(firsts, self.sizes)
        self.unit = 16 * np.repeat(task, self.sizes) + answer
        # Answers that only one person annotated say nothing about agreement, and are most of them if overlap is 1.
        numbers, times = np.unique(task, return_counts=True)
        self._is_shared = np.repeat(times[np.searchsorted(numbers, task)] > 1, self.sizes)

    @cached_property
    def ratings(self) -> NDArray[np.float64]:
        """Ratings from 1 to 7, NaN if not given."""
        return np.array(list(chain.from_iterable(label.ratings for label in self.labels)), dtype=np.float64)

    @cached_property
    def ranks(self) -> NDArray[np.float64]:
        """`relative_ranks`, NaN if not ranked."""
        rows = (_relative(label.ranks, len(label.flags)) for label in self.labels)
        return np.array(list(chain.from_iterable(rows)), dtype=np.float64)

    def flags(self) -> dict[str, NDArray[np.float64]]:
        """For each flag that was ever set, most common first: 1 where it is set."""
        sets = list(chain.from_iterable(label.flags for label in self.labels))
        numbers = {texts: n for n, texts in enumerate(dict.fromkeys(sets))}
        which = np.fromiter((numbers[texts] for texts in sets), dtype=np.int64, count=len(sets))
        names = dict.fromkeys(chain.from_iterable(numbers))
        found = {name: np.array([name in texts for texts in numbers], dtype=np.float64)[which] for name in names}
        return dict(sorted(found.items(), key=lambda item: -item[1].sum()))

    def alpha(self, values: NDArray[np.float64], level: Level, seed: int) -> Interval | None:
        """Krippendorff's alpha of one value per answer."""
        rows = self._is_shared & np.isfinite(values)
        return krippendorff_alpha(self.unit[rows], values[rows], level, self.prompt[rows], seed=seed)


def column(values: Iterable[int]) -> NDArray[np.int64]:
    """Integers as an array."""
    return np.array(list(values), dtype=np.int64)


@lru_cache(maxsize=100_000)
def _relative(ranks: tuple[int, ...] | None, n_answers: int) -> list[Any]:
    return [None] * n_answers if ranks is None else relative_ranks(ranks)
