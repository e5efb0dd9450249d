"""What a run writes: counted before it starts, and what to do when the disk is full all the same."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.models.memory import Role, Workload, count_parameters, optimizer_bytes, role_weights, size_text
from align.train.state import WRITING, Stateful, bytes_of, remove_leftovers, steps_saved


def written(recipe: Any, roles: Sequence[Role], workload: Workload) -> dict[str, float]:
    """Bytes by parts of the run folder, at most; one checkpoint is written beside those that are kept.

    Files of text are small beside them, and a tokenizer takes some MB: they are left out.
    """
    keeps_best = _asks(recipe, "evaluation", "best")
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


def _asks(recipe: Any, section: str, key: str) -> bool:
    return bool(getattr(getattr(recipe, section, None), key, None))


def _copies_kept(recipe: Any) -> int:
    """Copies of a policy in its checkpoint: the best one so far, the average, the reference that follows."""
    keys = (("evaluation", "best"), ("ppo", "ema"), ("kl", "reference_every"))
    return sum(_asks(recipe, section, key) for section, key in keys)


def disk_line(recipe: Any, roles: Sequence[Role], workload: Workload) -> str:
    """What a run writes and what is free, for people."""
    found = written(recipe, roles, workload)
    parts = ", ".join(f"{name} {size_text(size)}" for name, size in found.items())
    free = size_text(free_disk(recipe.output))
    return f"disk: at most {size_text(sum(found.values()))} ({parts}); free for {recipe.output}: {free}"


def check_disk(recipe: Any, roles: Sequence[Role], workload: Workload) -> None:
    """Raises `UserError` for a run that writes more than is free."""
    free = free_disk(recipe.output)
    n_written = 24.0 * (recipe.train.keep_checkpoints + 2)  # bytes a parameter, a bound that is quick to have
    if n_written * sum(count_parameters(role.config) for role in roles if role.kind in ("trained", "adapter")) < free:
        return
    if sum(written(recipe, roles, workload).values()) > free:
        raise UserError(
            f"{disk_line(recipe, roles, workload)}. Make room, choose an output on another disk, or keep less: "
            "train.keep_checkpoints=1 (train.check_memory=false tries anyway)"
        )


def free_disk(output: str) -> float:
    """Bytes that a run may write: what its disk has free, and what stands in its folder and will be replaced."""
    folder = Path(output)
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    own = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return float(shutil.disk_usage(there).free + own)


def no_room(folder: Path, parts: dict[str, Stateful], error: object, command: str) -> str:
    """What a full disk leaves of a run, and how to go on. Removes what was written of a checkpoint."""
    checkpoints = folder / "checkpoints"
    unfinished = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    needed = "what a run writes in all is told by --dry-run"
    if (checkpoints / WRITING).exists():
        unfinished, needed = checkpoints, f"a checkpoint takes {size_text(bytes_of(parts))}"
    free = size_text(shutil.disk_usage(folder).free)
    remove_leftovers(checkpoints)
    saved = steps_saved(checkpoints)
    safe = f"the checkpoint of step {saved[-1]} is whole" if saved else "no checkpoint was saved yet"
    return (
        f"{folder / unfinished.name.lstrip('.')} cannot be written: {error}. Free on its disk: {free}; {needed}. "
        f"Of this run {safe}. Make room, then go on with: {command}"
    )
