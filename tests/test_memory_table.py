"""The table of estimates in the hardware guide is what its command prints.

python tests/test_memory_table.py      # prints the table
"""

from __future__ import annotations

import re
import shlex
from functools import lru_cache
from pathlib import Path

import pytest

from align import ppo
from align.config import parse_training
from align.models.memory import Estimate
from align.models.shapes import SIZES, model_shape
from align.rl.plan import plan_of_shape
from align.train.plan import Device, estimate_of

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guides" / "hardware.md"
MODES = {
    "whole models": "",
    "LoRA on bf16": "model.adapter=lora",
    "LoRA on 8 bits": "model.adapter=lora model.quantization=8bit",
    "LoRA on 4 bits": "model.adapter=lora model.quantization=4bit",
}


def command() -> list[str]:
    """The words of the guide's command after `align ppo`."""
    guide = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\nalign ppo ([^`]*--model-shape[^`]*)```", guide)
    assert len(blocks) == 1
    return shlex.split(blocks[0].replace("\\\n", " "))


@lru_cache
def estimated(size: str, mode: str) -> Estimate:
    words = command()
    words[words.index("--model-shape") + 1] = size
    recipe, dry_run = parse_training(ppo.Recipe, "ppo", [str(ROOT / words[0]), *words[1:], *MODES[mode].split()])
    device = Device("gpu", dry_run.device_memory, is_here=False)
    return estimate_of(recipe, plan_of_shape(recipe, model_shape(size)), device)


def row(size: str) -> str:
    return f"| {size} | " + " | ".join(f"{estimated(size, mode).peak / 1e9:.1f} GB" for mode in MODES) + " |"


def head() -> list[str]:
    return ["| estimated peak | " + " | ".join(MODES) + " |", "|---|" + "---|" * len(MODES)]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["124M", "13B"])  # the ends: ten seconds each
def test_the_table_of_the_guide(size):
    guide = GUIDE.read_text(encoding="utf-8").splitlines()
    assert set(head()) <= set(guide)
    assert row(size) in guide


@pytest.mark.slow
def test_a_smaller_base_takes_less_to_hold():
    always = [estimated("13B", mode).always for mode in MODES]
    assert always == sorted(always, reverse=True)


if __name__ == "__main__":
    print("\n".join([*head(), *map(row, SIZES)]))
