"""Batches: the rows of each step, micro-batches of similar length, padding on the right.

Everything here is a pure function of seed and step, so a resumed run needs no saved position in the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 0  # fills places without a token; no loss, score or sample reads them


def steps_in(epochs: float, n_rows: int, batch_size: int) -> int:
    """The number of optimizer steps in `epochs` passes over the rows."""
    return max(1, math.ceil(epochs * n_rows / batch_size))


def rows_of_step(step: int, n_rows: int, batch_size: int, seed: int) -> list[int]:
    """Row indices of step `step` (from 1). Every pass is a new permutation; a step may span two passes."""
    first = (step - 1) * batch_size
    positions = range(first, first + batch_size)
    passes = {position // n_rows for position in positions}
    orders = {number: _permutation(n_rows, seed, number) for number in passes}
    return [int(orders[position // n_rows][position % n_rows]) for position in positions]


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Groups rows of similar length: rows x longest row is at most `max_tokens`. A longer row is alone in its group.

    Returns lists of indices into `lengths`. Each index is in exactly one list.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[index] <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pad_right(rows: Sequence[Sequence[int]], fill: int = PADDING) -> Tensor:
    """Rows as a (batch, time) int64 tensor, padded on the right with `fill`."""
    import torch

    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.long)


@lru_cache(maxsize=4)  # a step may span two passes, and PPO reads both prompts and pretraining texts
def _permutation(n_rows: int, seed: int, number: int) -> Tensor:
    """(n_rows,) int64: the order of pass `number`. Cached, because drawing it costs time for all rows."""
    import torch

    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    return torch.randperm(n_rows, generator=generator)
