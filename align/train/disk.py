"""Disk space: estimates what a run writes before it starts, and explains what to do if the disk is full."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.models.memory import Role, Workload, count_parameters, optimizer_bytes, role_weights, size_text
from align.train.state import WRITING, Stateful, bytes_of, remove_leftovers, steps_saved


def written(recipe: Any, roles: Sequence[Role], workload: Workload) -> dict[str, float]:
    """The most bytes that each part of the run folder takes. One checkpoint is written before an old one is removed.

    Text files and the tokenizer are small and left out.
    """
    keeps_best = _is_set(recipe, "evaluation", "best")
    found = {"checkpoints": 0.0}
    for role in roles:
        if role.kind not in ("trained", "adapter"):
            continue
        counted = role_weights(role)
        state = 4.0 * counted.n_trained
        best = keeps_best and role.head == "vocabulary"
        n_copies = _copies_kept(recipe) if role.head == "vocabulary" else 0
        checkpoint = (1 + n_copies) * state + optimizer_bytes(workload.optimizer, counted.trained)
        found["checkpoints"] += (recipe.train.keep_checkpoints + 1) * checkpoint
        name = "critic" if role.name == "critic" else "model"
        if role.kind == "adapter":
            found["adapter" if name == "model" else "critic_adapter"] = state
        for folder in (name, "best") if best else (name,):
            found[folder] = 4.0 * (counted.parameters if role.kind == "adapter" else counted.n_trained)
    return found


def _is_set(recipe: Any, section: str, key: str) -> bool:
    return bool(getattr(getattr(recipe, section, None), key, None))


def _copies_kept(recipe: Any) -> int:
    """Copies of the policy in its checkpoint: the best so far, the moving average, a reference that is updated."""
    keys = (("evaluation", "best"), ("ppo", "ema"), ("kl", "reference_every"))
    return sum(_is_set(recipe, section, key) for section, key in keys)


def disk_line(recipe: Any, roles: Sequence[Role], workload: Workload) -> str:
    """A line with the bytes that a run writes and the free disk space."""
    found = written(recipe, roles, workload)
    parts = ", ".join(f"{name} {size_text(size)}" for name, size in found.items())
    free = size_text(free_disk(recipe.output))
    return f"disk: at most {size_text(sum(found.values()))} ({parts}); free for {recipe.output}: {free}"


def check_disk(recipe: Any, roles: Sequence[Role], workload: Workload) -> None:
    """Raises `UserError` if a run writes more than the free disk space."""
    free = free_disk(recipe.output)
    n_written = 24.0 * (
        recipe.train.keep_checkpoints + 2
    )  # bytes per parameter: an upper bound that is quick to compute
    if n_written * sum(count_parameters(role.config) for role in roles if role.kind in ("trained", "adapter")) < free:
        return
    if sum(written(recipe, roles, workload).values()) > free:
        raise UserError(
            f"{disk_line(recipe, roles, workload)}. Free some space, choose an output on another disk, or keep fewer "
            "checkpoints: train.keep_checkpoints=1 (train.check_memory=false tries anyway)"
        )


def free_disk(output: str) -> float:
    """Bytes that a run may write: the free space of its disk and the files in its folder, which it replaces."""
    folder = Path(output)
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    own = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return float(shutil.disk_usage(there).free + own)


def no_room(folder: Path, parts: dict[str, Stateful], error: object, command: str) -> str:
    """The message for a full disk: what is saved and how to continue. Removes an unfinished checkpoint."""
    checkpoints = folder / "checkpoints"
    unfinished = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    needed = "--dry-run shows what a run writes"
    if (checkpoints / WRITING).exists():
        unfinished, needed = checkpoints, f"a checkpoint takes {size_text(bytes_of(parts))}"
    free = size_text(shutil.disk_usage(folder).free)
    remove_leftovers(checkpoints)
    saved = steps_saved(checkpoints)
    safe = f"The checkpoint of step {saved[-1]} is safe" if saved else "No checkpoint was saved yet"
    return (
        f"{folder / unfinished.name.lstrip('.')} cannot be written: {error}. Free on its disk: {free}; {needed}. "
        f"{safe}. Free some space, then continue with: {command}"
    )
