"""Run folders: a new run claims its folder and never overwrites results or checkpoints by accident.

A folder belongs to the recipe.yaml in it. A folder with a result or a checkpoint is continued (`resume`), replaced
(`overwrite`), or left unchanged.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from align.config import to_yaml
from align.errors import UserError, check_place
from align.train.inputs import DATE, check_same, date_of, inputs
from align.train.state import remove, remove_leftovers, steps_saved, write_whole

# Keys that may change when a run is resumed, because no result depends on them.
FREE_TO_CHANGE = {
    "resume",
    "overwrite",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.check_memory",
    "train.save_dtype",
    "train.track",
    "reward.url",  # the server may move; the user must make sure that it serves the same model
    "reward.timeout_s",
    "reward.retries",
    "reward.url_batch",
}


def claim(folder: Path, recipe: Any) -> None:
    """Makes `folder` this recipe's run folder. Raises `UserError` if it holds another run or other files."""
    check_place(folder)
    contents = inputs(recipe)
    began = {DATE: {DATE: date_of(recipe).isoformat()}}
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "recipe.yaml").exists() or (folder / "pipeline.json").exists():
            raise UserError(f"output: {folder} exists and is not a run folder; choose another output")
        if recipe.overwrite:
            _clear(folder)
        elif (folder / "result.json").exists():
            raise UserError(
                f"output: {folder} has a finished run; choose another output, or replace it with overwrite=true"
            )
        elif steps_saved(folder / "checkpoints"):
            if not recipe.resume:
                raise UserError(
                    f"output: {folder} has an interrupted run; continue it with resume=true, or replace it with "
                    "overwrite=true"
                )
            _same_recipe(folder, recipe)
            check_same(folder, contents)
        else:  # it ended before its first checkpoint: nothing to keep
            _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").touch()  # marks the folder as a run's, so a run killed now can be started again
    write_whole(folder / "recipe.yaml", to_yaml(recipe))
    write_whole(folder / "inputs.json", json.dumps(contents | began, indent=2) + "\n")


def claim_experiment(folder: Path, recipe: Any) -> None:
    """`claim` for the folder of an experiment with several runs, which its command continues by itself.

    Raises `UserError` if the folder is from another recipe.
    """
    check_place(folder)
    wanted = to_yaml(recipe.model_copy(update={"overwrite": False}))
    found = folder / "recipe.yaml"
    if folder.exists() and any(folder.iterdir()):
        if not found.is_file() or (folder / "pipeline.json").exists() or (folder / "environment.json").exists():
            raise UserError(f"output: {folder} exists and is not a folder of this command; choose another output")
        if found.read_text(encoding="utf-8") == wanted:
            return
        if not recipe.overwrite:
            raise UserError(
                f"output: {folder} was made with another recipe; choose another output, or replace it with "
                "overwrite=true"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found.write_text(wanted, encoding="utf-8")


def _clear(folder: Path) -> None:
    """Removes a run except recipe.yaml, which marks the folder as a run's if this process is killed."""
    (folder / "result.json").unlink(missing_ok=True)
    remove_leftovers(folder)
    remove(folder / "checkpoints")
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != "recipe.yaml":
            path.unlink()


def _same_recipe(folder: Path, recipe: Any) -> None:
    before = _flat(yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")))
    now = _flat(yaml.safe_load(to_yaml(recipe)))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key) and key not in FREE_TO_CHANGE]
    if changed:
        listed = ", ".join(f"{key} ({before.get(key)} then, {now.get(key)} now)" for key in changed)
        raise UserError(f"resume: this recipe differs from the one that {folder} was started with: {listed}")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix.rstrip("."): tree}
    return {key: value for name, item in tree.items() for key, value in _flat(item, f"{prefix}{name}.").items()}
