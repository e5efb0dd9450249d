"""Lists of unequal length, as rankings of 2 to 9 answers are, brought into one table for each length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Lists = Sequence[Sequence[int]]


def by_length(first: Lists, *others: Lists) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.float64]]]]:
    """For each length K of two or more: which lists have it, (n,), and all of `first` and `others` as tables (n, K).

    The i-th lists of all arguments must be of one length.
    """
    lengths = np.fromiter(map(len, first), dtype=np.int64, count=len(first))
    for k in np.unique(lengths[lengths > 1]):
        rows = np.flatnonzero(lengths == k)
        yield rows, [np.array([lists[row] for row in rows.tolist()], dtype=np.float64) for lists in (first, *others)]
