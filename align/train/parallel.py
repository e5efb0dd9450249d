"""Data parallelism: each process takes its share of a batch's rows; sums and gradients are over all processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch

from align.errors import RewardError, UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

Item = TypeVar("Item")


def say(*lines: str) -> None:
    """Prints lines, only from the first process. Works without an `Accelerator`."""
    if os.environ.get("RANK", "0") == "0":
        for line in lines:
            print(line, flush=True)


def my_share(rows: Sequence[Item], accelerator: Accelerator) -> list[Item]:
    """This process's share of the rows: every n-th row, for n processes."""
    return list(rows[accelerator.process_index :: accelerator.num_processes])


def check_shares(accelerator: Accelerator, key: str, n_rows: int, least: int = 1) -> None:
    """Raises `UserError` if a process would get fewer than `least` of the `n_rows` rows that `key` sets.

    The other processes would wait for the gradients of a process without rows.
    """
    n = accelerator.num_processes
    if n_rows // n < least:
        each = "one" if least == 1 else str(least)
        raise UserError(f"{key} = {n_rows}: each of {n} processes needs at least {each}; give {n * least} or more")


def total(accelerator: Accelerator, *values: float | torch.Tensor) -> list[float]:
    """Sums each value over all processes."""
    counted = torch.stack([torch.as_tensor(value, dtype=torch.float64).cpu() for value in values])
    if accelerator.num_processes > 1:
        on_device = counted.to(accelerator.device, torch.float32 if accelerator.device.type == "mps" else None)
        counted = accelerator.reduce(on_device, "sum").cpu()
    return counted.tolist()


def gathered(accelerator: Accelerator, value: Item) -> list[Item]:
    """The values of all processes, in order."""
    if accelerator.num_processes == 1:
        return [value]
    from accelerate.utils import gather_object

    return gather_object([value])


@contextmanager
def failing_together(accelerator: Accelerator) -> Iterator[None]:
    """Raises a `RewardError` of one process in all, so that none waits forever and the first can save the run."""
    error: RewardError | None = None
    try:
        yield
    except RewardError as found:
        error = found
    n_failed = total(accelerator, float(error is not None))[0] if accelerator.num_processes > 1 else 0
    if error is not None:
        raise error
    if n_failed:
        raise RewardError("the reward failed in another process; see its message")


def synced_at_last(accelerator: Accelerator, model: torch.nn.Module, items: Iterable[Item]) -> Iterator[Item]:
    """Yields the micro-batches of a step. Gradients are synchronised between processes only at the last one."""
    waiting = list(items)
    for index, item in enumerate(waiting):
        last = index == len(waiting) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            yield item
