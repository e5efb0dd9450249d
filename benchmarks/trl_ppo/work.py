"""The workload of both sides. Plain Python, because both environments import it."""

from __future__ import annotations

import json
import resource
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

# Settings of both sides. Names are TRL's; ours.py maps them to keys of our recipe.
COMMON: dict[str, Any] = {
    "num_ppo_epochs": 4,
    "temperature": 0.7,
    "kl_coef": 0.05,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "gamma": 0.98,
    "lam": 0.95,
    "adam_epsilon": 1e-5,
}


@dataclass(frozen=True)
class Case:
    """One configuration of TRL, and its policy."""

    policy: str  # never-ends: all answers have full length; ends: sometimes samples EOS or pad
    micro_batch_size: int  # answers that go through TRL's models at once
    num_mini_batches: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Work:
    """The size of the models and of the workload."""

    shape: dict[str, int]  # of all models, as GPT-2 names it
    batch_size: int  # answers in an update
    n_tokens: int  # longest answer
    n_updates: int  # the last one is also the end of a pass over the prompts
    learning_rate: float
    distance: float  # standard deviation of the noise that turns the reference's weights into the policy's
    cases: dict[str, Case]

    @property
    def n_prompts(self) -> int:
        """One pass over them is the whole comparison."""
        return self.batch_size * self.n_updates

    def save(self, folder: Path) -> None:
        """Writes work.json."""
        (folder / "work.json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def load_work(folder: Path) -> Work:
    """The output of make_input.py in the folder."""
    found = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    return Work(**{**found, "cases": {name: Case(**case) for name, case in found["cases"].items()}})


def cases(batch_size: int, micro_batch_size: int, num_mini_batches: int) -> dict[str, Case]:
    """`equal`: settings under which the definitions agree; `natural`: under which they differ; `default`: TRL's own."""
    equal = {"stop_token": "eos", "vf_coef": 1.0, "kl_estimator": "k1", "max_grad_norm": 1e9}
    natural = {"stop_token": "eos", "vf_coef": 0.1, "kl_estimator": "k3", "max_grad_norm": 0.01}
    natural |= {"whiten_rewards": True, "missing_eos_penalty": 1.0}
    default = {"stop_token": None, "vf_coef": 0.1, "kl_estimator": "k1", "max_grad_norm": 1.0, "bf16": True}
    return {
        "equal": Case("never-ends", batch_size, 1, equal),
        "natural": Case("ends", micro_batch_size, num_mini_batches, natural),
        "default": Case("ends", batch_size, num_mini_batches, default),
    }


def timed_case(policy: str, micro_batch_size: int) -> Case:
    """The workload of the speed benchmark: one optimizer step per pass on both sides."""
    settings = {"stop_token": "eos", "vf_coef": 0.1, "kl_estimator": "k1", "max_grad_norm": 1.0}
    return Case(policy, micro_batch_size, 1, settings | {"learning_rate": 1e-6})


PHASES = ("sampling", "measuring", "learning")


def timing(laps: list[list[float]], n_tokens: list[float]) -> dict[str, Any]:
    """The output of a timed run: seconds of each update and its phases, mean tokens of answers, and peak memory.

    A lap is the times at which an update began and at which each of its phases ended.
    """
    return {
        "seconds": [lap[-1] - lap[0] for lap in laps],
        "phases": [[after - before for before, after in pairwise(lap)] for lap in laps],
        "tokens": n_tokens,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


WORKS = {
    # 13.9 million parameters each.
    "small": Work(
        {"vocab_size": 8192, "n_positions": 128, "n_embd": 384, "n_layer": 6, "n_head": 6},
        batch_size=32,
        n_tokens=64,
        n_updates=2,
        learning_rate=1e-5,
        distance=0.004,
        cases=cases(32, micro_batch_size=4, num_mini_batches=4),
    ),
    # Small enough for a test: its results with TRL are stored in tests/.
    "tiny": Work(
        {"vocab_size": 261, "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2},
        batch_size=16,
        n_tokens=12,
        n_updates=2,
        learning_rate=1e-3,
        distance=0.02,
        cases=cases(16, micro_batch_size=4, num_mini_batches=2),
    ),
}
