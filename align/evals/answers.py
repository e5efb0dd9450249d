"""One model's answers to all prompts: texts stay on disk, metrics are in memory as columns."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from align.generation.text_model import Completion

NOTHING = math.nan  # a missing number: no answer, or one that could not be scored
Completions = Sequence["Completion | None"]  # None: the prompt left no room for an answer


class Answers:
    """One model's answers, in the order of the prompts.

    `portions()` reads the texts again, a portion at a time. `columns` are metrics, one number per prompt.
    """

    def __init__(self, portions: Callable[[], Iterator[Completions]]) -> None:
        self.portions = portions
        self._columns: dict[str, array[float]] = {}
        self.n = 0  # prompts

    def add(self, n: int, columns: Mapping[str, Iterable[float]]) -> None:
        """Add columns of the next `n` prompts; a new or missing column is filled with NaN."""
        for name, values in columns.items():
            self._columns.setdefault(name, array("d", [NOTHING]) * self.n).extend(values)
        self.n += n
        for column in self._columns.values():
            column.extend(array("d", [NOTHING]) * (self.n - len(column)))

    def append(self, name: str, values: Iterable[float]) -> None:
        """Append values to one column that is measured after all others."""
        self._columns.setdefault(name, array("d")).extend(values)

    @property
    def columns(self) -> dict[str, NDArray[np.float64]]:
        """(n_prompts,) each."""
        return {name: np.asarray(column) for name, column in self._columns.items()}

    def known(self, name: str) -> NDArray[np.float64] | None:
        """The numbers of one column without missing ones; None if all are missing."""
        values = np.asarray(self._columns.get(name, []), dtype=np.float64)
        values = values[np.isfinite(values)]
        return values if len(values) else None

    def at(self, name: str, index: int) -> float | None:
        """One number; None if it is missing."""
        column = self._columns.get(name)
        return None if column is None or math.isnan(column[index]) else column[index]

    def mean(self, name: str) -> float | None:
        """Mean over the prompts that have a number."""
        values = self.known(name)
        return None if values is None else float(values.mean())


def picked(answers: Mapping[str, Answers], indices: Iterable[int]) -> dict[int, dict[str, str | None]]:
    """Every model's texts for some prompts; None where a prompt left no room for an answer."""
    wanted = set(indices)
    found: dict[int, dict[str, str | None]] = {index: {} for index in sorted(wanted)}
    for name, one_model in answers.items():
        index = 0
        for portion in one_model.portions():
            for completion in portion:
                if index in wanted:
                    found[index][name] = None if completion is None else completion.text
                index += 1
    return found


def both(a: Answers, b: Answers, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One column of two models at the prompts where both have a number."""
    if a.known(column) is None or b.known(column) is None:
        return np.empty(0), np.empty(0)
    x, y = a.columns[column], b.columns[column]
    both_known = np.isfinite(x) & np.isfinite(y)
    return x[both_known], y[both_known]
