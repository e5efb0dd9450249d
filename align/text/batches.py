"""Which rows go into which step, and how a batch is laid out: similar lengths together, padded on the right.

Everything here is a pure function of the seed and the step, so that resuming needs no position in the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PADDING = 0  # Stands where no token is. No loss, score or sample ever looks there.


def steps_in(epochs: float, n_rows: int, batch_size: int) -> int:
    """Optimizer steps in so many passes over the rows."""
    return max(1, math.ceil(epochs * n_rows / batch_size))


def rows_of_step(step: int, n_rows: int, batch_size: int, seed: int) -> list[int]:
    """The rows of step `step` (from 1): every pass is a fresh permutation, read without a gap from pass to pass."""
    first = (step - 1) * batch_size
    positions = range(first, first + batch_size)
    passes = {position // n_rows for position in positions}
    orders = {number: _permutation(n_rows, seed, number) for number in passes}
    return [int(orders[position // n_rows][position % n_rows]) for position in positions]


def micro_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Groups rows of similar length so that rows x longest row stays within `max_tokens`; a longer row goes alone.

    Returns lists of indices into `lengths`; each index is in exactly one.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[index] <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pad_right(rows: Sequence[Sequence[int]], fill: int = PADDING) -> Tensor:
    """(batch, time) int64 tensor of rows, filled up on the right."""
    import torch

    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.long)


@lru_cache(maxsize=4)  # two passes may meet in a step, and PPO reads prompts and pretraining texts side by side
def _permutation(n_rows: int, seed: int, number: int) -> Tensor:
    """(n_rows,) int64: the order of one pass. It is drawn once, or each step would cost what all the data cost."""
    import torch

    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    return torch.randperm(n_rows, generator=generator)
