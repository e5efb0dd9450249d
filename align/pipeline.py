"""Runs a whole pipeline: the recipe of every stage, in order. Finished stages are skipped.

    align pipeline recipes/demo.yaml

Each stage writes its own folder. pipeline.json lists the finished stages with their recipes, times and memory.
After an interruption or a kill, the same command continues.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from align.commands import COMMANDS
from align.config import Section, build, merged, parse_command, read_yaml, to_yaml
from align.errors import UserError, check_place, exit_on_user_error
from align.shipped import shipped

DEMO_HELP = """usage: align demo [seed=1] [output=runs/demo] [--dry-run]

Runs the whole pipeline on a small world, offline: pretraining, SFT, a reward model, PPO, an evaluation. It writes into
`output` and prints the path of a report. An older demo of another seed is renamed. The recipe comes with the package;
`align pipeline --help` lists its keys."""

Command = Literal["lab", "prepare", "pretrain", "sft", "generate", "rank", "rm", "score", "ppo", "dpo", "evaluate"]


class Stage(Section):
    """One stage of a pipeline."""

    command: Command
    """What runs: `align <command>`."""
    recipe: str
    """Its recipe file, relative to this file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Keys to change in that recipe, as a nested mapping."""


class Recipe(Section):
    """A pipeline."""

    stages: dict[str, Stage]
    """The stages in running order, as NAME: {command, recipe}."""
    written_for: str
    """The folder that the paths in the stages' recipes begin with. It is replaced by output."""
    output: str
    """The folder for all stages."""
    seed: int = Field(1, ge=0)
    """The seed of every stage."""
    existing: Literal["refuse", "rename", "overwrite"] = "refuse"
    """An output from another recipe or seed: refuse to run, rename it, or overwrite it."""


class Planned(NamedTuple):
    """A stage that is ready to run."""

    name: str
    recipe: Any
    run: Any


def main(argv: list[str] | None = None) -> None:
    """Parses the command line and runs."""
    argv = sys.argv[1:] if argv is None else argv
    recipe, dry_run = parse_command(Recipe, "pipeline", argv)
    recipe_path = next(word for word in argv if not word.startswith("--"))
    run(recipe, Path(recipe_path).parent, dry_run)


def demo() -> None:
    """Runs `align demo`: the demo recipe that comes with the package."""
    argv = sys.argv[1:]
    if "-h" in argv or "--help" in argv:
        print(DEMO_HELP)
        return
    main([str(shipped("recipes/demo.yaml")), "existing=rename", *argv])


def run(recipe: Recipe, recipe_folder: Path, dry_run: bool = False, only: Sequence[str] | None = None) -> None:
    """Runs every unfinished stage, or only those in `only`. All recipes are checked before the first stage starts."""
    if unknown := [name for name in only or () if name not in recipe.stages]:
        raise UserError(f"there is no stage {unknown[0]}; the stages are {', '.join(recipe.stages)}")
    planned = [plan(recipe, name, stage, recipe_folder) for name, stage in recipe.stages.items()]
    if dry_run:
        for stage in planned:
            print(f"# {stage.name}", to_yaml(stage.recipe), sep="\n")
        return
    folder = Path(recipe.output)
    done = begin(folder, seen_from(folder, recipe, recipe_folder), planned)
    for stage in planned:
        if only is not None and stage.name not in only:
            continue
        if stage.name in done:
            print(f"{stage.name}: done before", flush=True)
            continue
        print(f"\n== {stage.name} ==", flush=True)
        done[stage.name] = run_stage(stage, folder)
        write_state(folder, done)
    if only is None:
        total = sum(entry["seconds"] for entry in done.values())
        print(f"\n{len(done)} stages, {total / 60:.1f} minutes", flush=True)


def plan(recipe: Recipe, name: str, stage: Stage, recipe_folder: Path) -> Planned:
    """The checked recipe of a stage, with its paths moved to `output`."""
    command = COMMANDS[stage.command]
    assert command.recipe, stage.command
    assert command.run, stage.command
    module_name, recipe_name = command.recipe
    module = importlib.import_module(module_name)
    path = recipe_folder / stage.recipe
    given = moved(merged(read_yaml(path), stage.set), recipe.written_for, recipe.output)
    given["seed"] = recipe.seed
    return Planned(
        name, build(getattr(module, recipe_name), given, f"{path} (stage {name})"), getattr(module, command.run)
    )


def seen_from(folder: Path, recipe: Recipe, recipe_folder: Path) -> Recipe:
    """The recipe with its stages' files relative to `folder`, so that the copy there runs too."""
    stages = {
        name: stage.model_copy(
            update={"recipe": os.path.relpath((recipe_folder / stage.recipe).resolve(), folder.resolve())}
        )
        for name, stage in recipe.stages.items()
    }
    return recipe.model_copy(update={"stages": stages})


def begin(folder: Path, recipe: Recipe, planned: list[Planned]) -> dict[str, Any]:
    """Makes the output folder or continues in it. Returns the finished stages."""
    check_place(folder)
    if folder.exists() and any(folder.iterdir()):
        state = read_state(folder)
        if state is None:
            raise UserError(f"output: {folder} exists and is not a pipeline folder; choose another output")
        made_by = {name: entry["recipe"] for name, entry in state.items()}
        wanted = {stage.name: to_yaml(stage.recipe) for stage in planned}
        changed = [name for name, text in made_by.items() if wanted.get(name) != text]
        if not changed:
            return state
        make_way(folder, recipe, changed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    write_state(folder, {})
    return {}


def make_way(folder: Path, recipe: Recipe, changed: list[str]) -> None:
    """Refuses, renames or removes an output from another recipe, as `existing` says."""
    if recipe.existing == "refuse":
        raise UserError(
            f"output: {folder} was made with another recipe or seed (it differs in {', '.join(changed)}); choose "
            "another output, set existing=rename to keep it under another name, or existing=overwrite to replace it"
        )
    if recipe.existing == "overwrite":
        shutil.rmtree(folder)
        return
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(aside)
    print(f"{folder} was made with another recipe or seed; renamed it to {aside}", flush=True)


def run_stage(stage: Planned, folder: Path) -> dict[str, Any]:
    """Runs one stage in this process and returns its time, memory and recipe. An interrupted training run resumes."""
    from align.train.machine import PeakMemory

    recipe = stage.recipe
    if "resume" in type(recipe).model_fields:
        recipe = recipe.model_copy(update={"resume": True})
    if "overwrite" in type(recipe).model_fields and "resume" not in type(recipe).model_fields:
        recipe = recipe.model_copy(update={"overwrite": True})
    started = time.monotonic()
    finished = Path(recipe.output) / "result.json"
    with PeakMemory() as memory:
        if not (
            finished.is_file() and Path(recipe.output) != folder
        ):  # else killed after the stage's end, before pipeline.json was written
            stage.run(recipe)
    return {
        "seconds": round(time.monotonic() - started, 2),
        "peak_memory_mb": memory.megabytes,
        "recipe": to_yaml(stage.recipe),
    }


def read_state(folder: Path) -> dict[str, Any] | None:
    """The finished stages in pipeline.json; None if there is no such file."""
    path = folder / "pipeline.json"
    return json.loads(path.read_text(encoding="utf-8"))["stages"] if path.is_file() else None


def write_state(folder: Path, done: dict[str, Any]) -> None:
    """Replaces pipeline.json atomically."""
    writing = folder / ".pipeline.json"
    writing.write_text(json.dumps({"stages": done}, indent=2) + "\n", encoding="utf-8")
    writing.replace(folder / "pipeline.json")


def moved(value: Any, old: str, new: str) -> Any:
    """A recipe's data with every path under `old` moved to `new`."""
    if isinstance(value, dict):
        return {key: moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(old + "/")):
        return new + value[len(old) :]
    return value


if __name__ == "__main__":
    exit_on_user_error(main)
