"""All commands of `align`, in the order of the pipeline: one table for the command line, pipelines and schemas.

Nothing is imported here, so `align --help` is quick.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Command(NamedTuple):
    """A command: `align NAME`, which is the same as `python -m MODULE`."""

    module: str
    meaning: str
    """One line for `align --help`."""
    recipe: tuple[str, str] | None = None
    """Module and name of the recipe's class; None for a command that takes options."""
    run: str | None = None
    """The function beside the recipe's class that a pipeline calls; None if a pipeline cannot run it."""
    main: str = "main"
    """The function of `module` that parses the command line and runs."""


def _stage(name: str, meaning: str, run: str | None = "run") -> Command:
    return Command(f"align.{name}", meaning, (f"align.{name}", "Recipe"), run)


def _experiment(name: str, meaning: str) -> Command:
    return Command(f"align.lab.{name}", meaning, (f"align.lab.{name}", "Recipe"))


GROUPS: dict[str, dict[str, Command]] = {
    "Start": {
        "init": Command("align.init", "Start a folder of your own: recipes, prompt templates, a labelling project."),
        "demo": Command(
            "align.pipeline", "Run the whole pipeline on a small world, offline, to its report.", main="demo"
        ),
    },
    "The pipeline, in order": {
        "lab": Command(
            "align.lab",
            "Write the lab's data: a small world with a known truth.",
            ("align.lab.recipes", "World"),
            "run_world",
        ),
        "prepare": _stage("prepare", "Turn documents into token shards and a tokenizer."),
        "pretrain": _stage("pretrain", "Pretrain a GPT on documents."),
        "sft": _stage("sft", "Fine-tune a model on demonstrations."),
        "generate": _stage("generate", "Sample several answers to each prompt."),
        "label": Command("apps.label", "Let people rank the answers in a browser.", ("apps.store.project", "Recipe")),
        "rank": Command(
            "align.lab.annotators",
            "Let the lab's simulated annotators rank the answers.",
            ("align.lab.recipes", "Rank"),
            "run_rank",
        ),
        "rm": _stage("rm", "Train a reward model on rankings."),
        "score": _stage("score", "Score the answers of a file with a reward model."),
        "ppo": _stage("ppo", "Train a model with PPO against a reward."),
        "dpo": _stage("dpo", "Train a model with DPO on rankings, the baseline to PPO."),
        "evaluate": _stage("evaluate", "Compare models on the same prompts and write a report."),
        "compare": Command("apps.compare", "Show models side by side in a browser.", ("apps.compare.recipe", "Recipe")),
    },
    "More": {
        "pipeline": _stage("pipeline", "Run several stages in order and skip what is done.", run=None),
        "serve_rm": _stage("serve_rm", "Serve a reward model over HTTP.", run=None),
        "ab": _stage("ab", "Test which of two prompt templates is better.", run=None),
        "lm_eval": Command(
            "align.tasks.harness", "Run standard benchmarks with EleutherAI's lm-eval.", main="cli_evaluate"
        ),
        "overoptimization": _experiment("overoptimization", "Plot gold and proxy reward against KL in the lab."),
        "inverse_scaling": _experiment("inverse_scaling", "Find where larger models do worse in the lab."),
        "schema": Command("align.schema", "Write JSON schemas of all recipes, for editors."),
        "completion": Command("align.completion", "Print a completion script for bash, zsh or fish."),
    },
}

COMMANDS: dict[str, Command] = {name: command for group in GROUPS.values() for name, command in group.items()}


def program(module: str) -> str:
    """What the user typed to start `module`, for usage lines and advice: `align sft` or `python -m align.sft`."""
    return sys.argv[0] if sys.argv[0].startswith("align ") else f"python -m {module}"


def shown(name: str) -> str:
    """A command's name as people type it."""
    return name.replace("_", "-")


def entry(command: Command) -> ModuleType:
    """The module that `python -m` runs: a package's `__main__`."""
    module = import_module(command.module)
    return import_module(f"{command.module}.__main__") if hasattr(module, "__path__") else module
