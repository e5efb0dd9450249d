"""What several tests need: recipes from a few keys, whole runs, and how two of them are compared."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file

from align.config import build

ELAPSED = ("elapsed_s", "tokens_per_s", "time/")  # what a clock says is never twice the same

# What makes each stage run for six steps of four rows on the tiny world.
DEFAULTS: dict[str, Any] = {
    "train.steps": 6,
    "train.precision": "fp32",
    "train.log_every": 1,
    "optim.batch_size": 4,
    "optim.learning_rate": 0.01,
}
OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "pretrain": {"model.preset": "demo", "model.n_layer": 1, "model.n_embd": 16, "model.n_head": 2}
    | {"model.n_positions": 16, "tokenizer.vocab_size": 300, "data.validation": 0.1},
    "sft": {"data.max_tokens": 48, "data.validation": 0.2, "samples": 2},
    "rm": {"data.max_tokens": 48, "data.validation": 0.2},
    "dpo": {"data.max_tokens": 48, "data.validation": 0.2, "optim.warmup_steps": 0},
    # A rate at which something moves in a few steps can also make one answer far likelier: no ratio ends a run.
    "ppo": {"data.max_tokens": 48, "rollout.max_tokens": 8, "ppo.n_minibatches": 2, "ppo.n_epochs": 2}
    | {"ppo.max_ratio": 1000.0},
}

# Adam divides by the root of a gradient's square: where the gradient is all rounding, the sign of a step is too. A
# larger epsilon takes such weights out of the comparison and leaves the others as they are.
STEADY = {"optim__eps": 1e-3, "optim__learning_rate": 0.003, "optim__max_grad_norm": 1e9, "train__steps": 3}


def recipe_of(stage: ModuleType, world: Any, output: Path | str, **changes: Any) -> Any:
    """A stage's recipe on the tiny world. A double underscore in a change stands for the dot: train__steps=3."""
    name = stage.__name__.rsplit(".", 1)[-1]
    rows = {"pretrain": "documents", "sft": "conversations", "rm": "rankings", "dpo": "rankings", "ppo": "prompts"}[
        name
    ]
    keys = DEFAULTS | OWN_DEFAULTS[name] | {"data.path": getattr(world, rows), "output": str(output)}
    keys |= {} if name == "pretrain" else {"model.path": world.base}
    keys |= {"reward.path": world.reward} if name == "ppo" else {}
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    return build(stage.Recipe, nested({key: value for key, value in keys.items() if value is not ...}), "recipe")


def nested(keys: dict[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`."""
    tree: dict[str, Any] = {}
    for key, value in keys.items():
        *above, last = key.split(".")
        here = tree
        for part in above:
            here = here.setdefault(part, {})
        here[last] = value
    return tree


def run(stage: ModuleType, world: Any, output: Path | str, **changes: Any) -> Path:
    """Runs a stage on the tiny world. Returns its folder."""
    stage.run(recipe_of(stage, world, output, **changes))
    return Path(output)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what a clock said."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(ELAPSED)} for row in rows]


def figures(folder: Path) -> dict[str, Any]:
    """What result.json says of the model."""
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if not name.startswith(("seconds", "peak", *ELAPSED))}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor that a run left, by file and name; its checkpoints left out."""
    files = [path for path in sorted(folder.rglob("*.safetensors")) if "checkpoints" not in path.parts]
    return {f"{path.relative_to(folder)}:{name}": tensor for path in files for name, tensor in load_file(path).items()}


def assert_same_bits(found: Path, expected: Path) -> None:
    """Two runs left the same numbers: weights bit for bit, and every logged figure."""
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    assert ours
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert metrics(found) == metrics(expected)


def largest_difference(found: Path, expected: Path) -> float:
    """The largest difference of any weight between two runs."""
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)


def brevity(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward function: the shorter the better."""
    return [-float(len(response)) for response in responses]


def noisy_brevity(prompts: list[str], responses: list[str]) -> list[float]:
    """The same, with noise from the global random states of Python and of PyTorch."""
    return [random.random() + float(torch.rand(())) - 0.1 * len(response) for response in responses]


def judged(prompt: str, answer: str) -> float:
    """A judge to whom shorter is better too."""
    return -float(len(answer))


def judged_never(prompt: str, answer: str) -> float:
    """A judge that cannot judge."""
    raise RuntimeError("no")
