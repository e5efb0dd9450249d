"""The estimate that a dry run prints against the peak that the run then has, in a process of its own.

The model is large enough that its memory is more than what Python and its libraries take.
"""

import json
import random
import re
import sys
from importlib import import_module
from pathlib import Path

import lives
import pytest
import torch
from helpers import nested
from tiny import WORDS, special_ids, write_rows

from align.config import build

pytestmark = pytest.mark.slow

MODES = {
    "full": {},
    "lora": {"model.adapter": "lora"},
    "8bit": {"model.adapter": "lora", "model.quantization": "8bit"},
    "4bit": {"model.adapter": "lora", "model.quantization": "4bit"},
    # what `auto` is on a CPU that does not multiply bf16: weights of the file's own dtype are not converted
    "4bit in fp32": {"model.adapter": "lora", "model.quantization": "4bit", "train.precision": "fp32"},
}


def estimate_and_run(stage: str, keys: dict, log: str) -> None:
    """In a child: the dry run, then the run."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115
    module = import_module(f"align.{stage}")
    recipe = build(module.Recipe, keys, "recipe")
    module.run(recipe, dry_run=True)
    module.run(recipe)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    """A GPT of 45 million parameters with random weights, and rows that fill 160 tokens."""
    from align.gpt import GPTConfig, GPTForCausalLM
    from align.models.scalar import ScalarModel

    folder = tmp_path_factory.mktemp("measured")
    shape = {"n_positions": 160, "n_embd": 640, "n_layer": 8, "n_head": 10, "vocab_size": 8192}
    model = GPTForCausalLM(GPTConfig(**shape, **special_ids(tokenizer)))
    model.save_pretrained(folder / "model")
    ScalarModel(model.transformer).save(folder / "reward")
    for name in ("model", "reward"):
        tokenizer.save_pretrained(folder / name)
    chance = random.Random(1)
    rows = [{"prompt": "say " + word, "completion": " ".join(chance.choices(WORDS, k=200))} for word in WORDS * 2]
    write_rows(folder / "rows.jsonl", rows)
    return folder


def estimated_and_measured(stage: str, folder: Path, name: str, keys: dict) -> tuple[float, float]:
    """Both in MB."""
    output = folder / name
    recipe = {
        "model.path": str(folder / "model"),
        "data.path": str(folder / "rows.jsonl"),
        "data.max_tokens": 160,
        "data.validation": 0.0,
        "optim.batch_size": 8,
        "train.steps": 2,
        "train.micro_batch_tokens": 640,
        "output": str(output),
    }
    log = folder / f"{name}.log"
    child = lives.start(estimate_and_run, stage, nested(recipe | keys), str(log))
    child.join()
    told = log.read_text()
    assert child.exitcode == 0, told
    peak = re.search(r"^peak: ([\d.]+) (GB|MB)", told, flags=re.MULTILINE)
    assert peak, told
    measured = json.loads((output / "result.json").read_text())["peak_memory_mb"]
    print(told, f"{stage} {name}: estimated {peak[0]}, measured {measured:.0f} MB", sep="\n")
    return float(peak[1]) * {"GB": 1000, "MB": 1}[peak[2]], measured


@pytest.mark.parametrize("mode", MODES)
def test_the_estimate_is_within_a_fifth_of_the_measured_peak(mode, folder):
    estimated, measured = estimated_and_measured("sft", folder, mode, {"samples": 0, **MODES[mode]})
    assert abs(estimated / measured - 1) < 0.2


def test_so_it_is_in_dpo(folder):
    chance = random.Random(2)
    answers = [" ".join(chance.choices(WORDS, k=200)) for _ in range(2)]
    write_rows(
        folder / "rankings.jsonl", [{"prompt": "say " + w, "responses": answers, "ranks": [1, 2]} for w in WORDS]
    )
    keys = {"data.path": str(folder / "rankings.jsonl"), "data.too_long": "truncate", "optim.warmup_steps": 0}
    estimated, measured = estimated_and_measured("dpo", folder, "dpo", keys | MODES["lora"] | {"optim.batch_size": 4})
    assert abs(estimated / measured - 1) < 0.2


def test_so_it_is_in_ppo(folder):
    keys = {
        "reward.path": str(folder / "reward"),
        "rollout.max_tokens": 80,
        "ppo.n_epochs": 1,
        "train.steps": 1,
        "optim.batch_size": 6,
        "train.micro_batch_tokens": 400,
    }
    estimated, measured = estimated_and_measured("ppo", folder, "ppo", keys)
    assert abs(estimated / measured - 1) < 0.2
