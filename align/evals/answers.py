"""What one model said to every prompt: its words stay on the disk, its numbers are in memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from align.generation.text_model import Reply

NOTHING = math.nan  # stands where there is no number: no answer, or one that could not be judged
Replies = Sequence["Reply | None"]  # None: the prompt left no room for an answer


class Answers:
    """One model's answers, in the order of the prompts.

    `portions()` reads the words again, a portion at a time. `columns` are numbers, one for each prompt.
    """

    def __init__(self, portions: Callable[[], Iterator[Replies]]) -> None:
        self.portions = portions
        self._columns: dict[str, array[float]] = {}
        self.n = 0  # prompts

    def add(self, n: int, columns: Mapping[str, Iterable[float]]) -> None:
        """Columns of the next `n` prompts; one that was not there before, or is missing now, is NaN there."""
        for name, values in columns.items():
            self._columns.setdefault(name, array("d", [NOTHING]) * self.n).extend(values)
        self.n += n
        for column in self._columns.values():
            column.extend(array("d", [NOTHING]) * (self.n - len(column)))

    def append(self, name: str, values: Iterable[float]) -> None:
        """The next values of one column that is measured after all others."""
        self._columns.setdefault(name, array("d")).extend(values)

    @property
    def columns(self) -> dict[str, NDArray[np.float64]]:
        """(n_prompts,) each."""
        return {name: np.asarray(column) for name, column in self._columns.items()}

    def known(self, name: str) -> NDArray[np.float64] | None:
        """The numbers of one column, without the prompts that have none; None if there is not one."""
        values = np.asarray(self._columns.get(name, []), dtype=np.float64)
        values = values[np.isfinite(values)]
        return values if len(values) else None

    def at(self, name: str, index: int) -> float | None:
        """One number; None if there is none."""
        column = self._columns.get(name)
        return None if column is None or math.isnan(column[index]) else column[index]

    def mean(self, name: str) -> float | None:
        """Over the prompts that have a number."""
        values = self.known(name)
        return None if values is None else float(values.mean())


def picked(answers: Mapping[str, Answers], indices: Iterable[int]) -> dict[int, dict[str, str | None]]:
    """Every model's words to some prompts; None where it had no room for any."""
    wanted = set(indices)
    found: dict[int, dict[str, str | None]] = {index: {} for index in sorted(wanted)}
    for name, said in answers.items():
        index = 0
        for portion in said.portions():
            for reply in portion:
                if index in wanted:
                    found[index][name] = None if reply is None else reply.text
                index += 1
    return found


def both(a: Answers, b: Answers, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One column of two models where both have a number: the same prompts in the same order."""
    if a.known(column) is None or b.known(column) is None:
        return np.empty(0), np.empty(0)
    x, y = a.columns[column], b.columns[column]
    both_known = np.isfinite(x) & np.isfinite(y)
    return x[both_known], y[both_known]
