"""Plans a run: checks that it fits the model's positions, the memory and the disk, and prints `--dry-run`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import torch

from align import sections
from align.config import DryRun, to_yaml
from align.errors import UserError
from align.models.load import max_positions
from align.models.memory import (
    LIBRARY_BYTES,
    Estimate,
    Role,
    Workload,
    count_parameters,
    estimate,
    reach,
    size_text,
    table,
)
from align.models.shapes import model_shape
from align.train.disk import check_disk, disk_line
from align.train.machine import free_memory, resident_memory, resolve_precision
from align.train.parallel import say

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Device(NamedTuple):
    """The device of a run."""

    kind: Literal["cpu", "gpu"]
    memory: float  # bytes that a run may take
    is_here: bool = True  # False: a GPU given by --device-memory

    def precision(self, wanted: Literal["auto", "fp32", "bf16"]) -> Literal["fp32", "bf16"]:
        """Resolves a recipe's precision on this device. A GPU given by --device-memory has bf16."""
        if not self.is_here:
            return "bf16" if wanted == "auto" else wanted
        return resolve_precision(wanted)


class Sizes(NamedTuple):
    """The largest example of the data."""

    length: int  # tokens of its longest row
    n_scored: int  # tokens of a row with logits or scores
    rows: int = 1  # rows that are never separated: the answers of a ranking

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Sizes:
        """The largest of rows with `.ids` and `.is_target`."""
        sizes = [(len(row.ids), sum(row.is_target)) for row in rows] or [(1, 1)]
        return cls(max(length for length, _ in sizes), max(1, *(scored for _, scored in sizes)))


Described = tuple[Sequence[Role], Workload]
Describe = Callable[[Any, Device], Described]  # the roles and the workload of a recipe on a device


R = TypeVar("R")


def fitting(max_tokens: int, configs: Iterable[PretrainedConfig], key: str = "data.max_tokens") -> int:
    """`max_tokens`, or the positions of these models if that is less, with a message."""
    limit = min(filter(None, map(max_positions, configs)), default=max_tokens)
    if limit < max_tokens:
        say(f"{key} = {max_tokens}: the model has {limit} positions, so {limit} is used")
    return min(limit, max_tokens)


def fitted(recipe: R, config: PretrainedConfig) -> R:
    """The recipe with `data.max_tokens` lowered to the positions of its model."""
    given: Any = recipe
    most = fitting(given.data.max_tokens, [config])
    fits: R = given.model_copy(update={"data": given.data.model_copy(update={"max_tokens": most})})
    return fits


def check_positions(config: PretrainedConfig, max_tokens: int, key: str) -> None:
    """Raises `UserError` if sequences may exceed the positions of the model that `key` names."""
    limit = max_positions(config)
    if limit is not None and max_tokens > limit:
        raise UserError(
            f"data.max_tokens = {max_tokens}: this model has {limit} positions ({key}); "
            f"give data.max_tokens={limit} or less"
        )


def requested_shape(dry_run: DryRun | bool) -> PretrainedConfig | None:
    """The configuration of `--model-shape`, if given. Then neither model nor data are read."""
    if isinstance(dry_run, DryRun) and dry_run.model_shape is not None:
        return model_shape(dry_run.model_shape)
    return None


def plan_of_one_model(
    config: PretrainedConfig, sizes: Sizes, head: Literal["vocabulary", "scalar"], heads: int = 1
) -> Describe:
    """Describes a run that trains one model: all of it, or an adapter on its frozen base. `heads` are scalar heads."""

    def describe(recipe: Any, device: Device) -> Described:
        model = recipe.model if isinstance(recipe.model, sections.Model) else sections.Model(path="")
        precision = device.precision(recipe.train.precision)
        examples = rows_at_once(sizes.length * sizes.rows, recipe.train.micro_batch_tokens, recipe.optim.batch_size)
        rows = examples * sizes.rows
        name = "policy" if head == "vocabulary" else "reward"
        return with_adapter(name, config, model, precision, head, ("update",), heads), Workload(
            rows=rows,
            length=sizes.length,
            n_scored=rows * sizes.n_scored,
            dropout=True,
            **shared_workload(recipe, model, device),
        )

    return describe


def with_adapter(
    name: str,
    config: PretrainedConfig,
    model: sections.Model,
    precision: Literal["fp32", "bf16"],
    head: Literal["vocabulary", "scalar"],
    passes: tuple[Any, ...],
    heads: int = 1,
) -> list[Role]:
    """The roles of one trained model: the model, or its frozen base and its adapter."""
    if model.adapter == "none":
        return [Role(name, config, "trained", passes, head, heads=heads)]
    frozen: dict[str, Any] = {
        "dtype": torch.bfloat16 if precision == "bf16" else torch.float32,
        "quantization": model.quantization,
    }
    base = Role("base", config, "frozen", **frozen)
    return [base, Role(name, config, "adapter", passes, head, lora=model.lora, heads=heads, **frozen)]


def shared_workload(recipe: Any, model: sections.Model, device: Device) -> dict[str, Any]:
    """The fields of a `Workload` that are the same in every stage."""
    return {
        "precision": device.precision(recipe.train.precision),
        "optimizer": recipe.optim.name,
        "checkpointing": recipe.train.gradient_checkpointing,
        "device": device.kind,
        "merges": model.adapter == "lora",
    }


def rows_at_once(length: int, max_tokens: int, n_rows: int) -> int:
    """Rows of a micro-batch if all have this length, as in `align.text.batches.micro_batches`."""
    return max(1, min(max_tokens // length, n_rows))


def print_plan(
    recipe: Any, describe: Describe, rows: Mapping[str, Sequence[Any]], dry_run: DryRun | bool = True
) -> None:
    """Prints the resolved recipe, row and token counts, and estimated memory. Rows have `.ids` or are lists of ids."""
    print(to_yaml(recipe))
    for name, sequences in rows.items():
        n_tokens = sum(len(getattr(row, "ids", row)) for row in sequences)
        print(f"{name}: {len(sequences):,} sequences, {n_tokens:,} tokens")
    print_memory(recipe, describe, dry_run)


def print_memory(recipe: Any, describe: Describe, dry_run: DryRun | bool) -> None:
    """Prints the estimated memory. If it is too much, also prints a change that fits."""
    given = dry_run.device_memory if isinstance(dry_run, DryRun) else None
    device = this_device() if given is None else Device("gpu", given, is_here=False)
    print(f"precision: {device.precision(recipe.train.precision)}, device: {device.kind}")
    try:
        with _counting():
            lines = reach(describe(recipe, device)[0])
        print(*lines, sep="\n", end="\n" if lines else "")
        found = estimate_of(recipe, describe, device)
    except NotCountedError as error:
        print(error)
        return
    print(table(found, device.memory))
    if found.peak > device.memory:
        print(remedy(recipe, describe, device))
    print(disk_line(recipe, *describe(recipe, device)))


def check_memory(recipe: Any, describe: Describe) -> None:
    """Raises `UserError` with the smallest change that fits, if a run needs more memory or disk than is free."""
    device = this_device()
    if not recipe.train.check_memory:
        return
    described = describe(recipe, device)
    fits = _surely_fits(described, device)
    try:
        with _counting():
            check_disk(recipe, *described)
        if fits:
            return
        found = estimate_of(recipe, describe, device)
    except NotCountedError as error:
        say(str(error))
        return
    if found.peak > device.memory:
        raise UserError(
            f"this run needs about {size_text(found.peak)} ({size_text(found.always)} always, the rest in "
            f"{found.largest_phase}); free {'on this GPU' if device.kind == 'gpu' else 'on this machine'}: "
            f"{size_text(device.memory)}. {remedy(recipe, describe, device)} (train.check_memory=false tries anyway)"
        )


def this_device() -> Device:
    """The device of this process and its free memory."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", 0)))
        return Device("gpu", free)
    share = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Device("cpu", resident_memory() + free_memory() / share)


class NotCountedError(UserError):
    """A model's code does not run on fake tensors, so its memory cannot be counted."""


def estimate_of(recipe: Any, describe: Describe, device: Device) -> Estimate:
    """Estimates the memory of a recipe. Raises `NotCountedError` if it cannot be counted."""
    with _counting():
        found = estimate(*describe(recipe, device))
    if not device.is_here:
        return found
    # On a CPU the memory of libraries can be measured; on a GPU the free memory is already without it.
    return found._replace(libraries=resident_memory() if device.kind == "cpu" else 0.0)


@contextmanager
def _counting() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise NotCountedError(f"memory cannot be estimated: {type(error).__name__}: {first_line}") from None


def remedy(recipe: Any, describe: Describe, device: Device) -> str:
    """The smallest change that makes a recipe fit, as a message."""
    least: tuple[float, str] | None = None
    for keys in changes(recipe):
        for portions in (None, "least"):
            tried = keys if portions is None else keys | _portions(recipe, 2**30)
            if not tried:
                continue
            peak = estimate_of(changed(recipe, tried), describe, device).peak
            if peak <= device.memory:
                if portions:
                    tried, peak = _largest_portions(recipe, keys, describe, device)
                return f"What would fit: {_as_overrides(tried)} (about {size_text(peak)})"
            if least is None or peak < least[0]:
                least = peak, _as_overrides(tried)
    assert least is not None
    return f"No setting makes it fit: {least[1]} still needs {size_text(least[0])}; use a smaller model"


def changes(recipe: Any) -> Iterator[dict[str, Any]]:
    """Changes to try, from the cheapest to the costliest. Smaller token budgets are tried with each.

    Smaller budgets do not change results, recomputing takes a third more time, 8-bit moments and adapters change
    training.
    """
    recompute = {"train.gradient_checkpointing": True}
    small_moments = {"optim.name": "adamw8bit"}
    yield from ({}, recompute, small_moments, recompute | small_moments)
    if isinstance(recipe.model, sections.Model):
        for quantization in ("none", "8bit", "4bit"):
            if ("none", "8bit", "4bit").index(recipe.model.quantization) <= ("none", "8bit", "4bit").index(
                quantization
            ):
                bits = {} if quantization == "none" else {"model.quantization": quantization}
                yield {"model.adapter": "lora"} | bits
                yield {"model.adapter": "lora"} | bits | recompute


def changed(recipe: Any, keys: Mapping[str, Any]) -> Any:
    """The recipe with these `section.key`s changed."""
    for key, value in keys.items():
        section, name = key.split(".")
        recipe = recipe.model_copy(update={section: getattr(recipe, section).model_copy(update={name: value})})
    return recipe


def _portions(recipe: Any, divisor: int) -> dict[str, Any]:
    """The token budgets divided by `divisor`. A budget below the longest row means one row at a time."""
    keys = {"train.micro_batch_tokens": max(1, recipe.train.micro_batch_tokens // divisor)}
    if hasattr(recipe, "rollout"):
        keys["rollout.batch_tokens"] = max(1, recipe.rollout.batch_tokens // divisor)
    return keys


def _largest_portions(
    recipe: Any, keys: dict[str, Any], describe: Describe, device: Device
) -> tuple[dict[str, Any], float]:
    """The largest halving of the token budgets that fits: only the first budget, or both."""
    divisor = 1
    while True:
        divisor *= 2
        both = _portions(recipe, divisor)
        for portions in (dict([next(iter(both.items()))]), both):
            peak = estimate_of(changed(recipe, keys | portions), describe, device).peak
            if peak <= device.memory:
                return keys | portions, peak


def _as_overrides(keys: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in keys.items())


def _surely_fits(described: Described, device: Device) -> bool:
    """Whether an upper bound for any transformer fits. Counting takes seconds; this is quick for small runs.

    The bound has 24 bytes per parameter of each role (weights, gradients, moments and a copy). For the largest pass it
    has 500 bytes per token, layer and unit of width (a GPT-2 block keeps about 170 in fp32), 40 per logit, and 8 per
    number in the KV cache.
    """
    roles, workload = described
    bound, passes = 2 * LIBRARY_BYTES[device.kind], 0.0
    for role in roles:
        text = role.config.get_text_config()
        tokens = max(workload.rows * workload.length, workload.rollout_rows * (workload.prompt_length + 1))
        cached = workload.rollout_rows * (workload.prompt_length + workload.answer_length)
        kept = text.num_hidden_layers * text.hidden_size * (500.0 * tokens + 8.0 * cached)
        passes = max(passes, kept + 40.0 * text.vocab_size * max(workload.n_scored, workload.rollout_rows))
        bound += 24.0 * count_parameters(role.config)
    return bound + passes < device.memory
