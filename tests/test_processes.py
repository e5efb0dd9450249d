"""Two processes on one machine train what one trains alone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import STEADY, largest_difference, metrics, recipe_of, run

from align import ppo, pretrain, rm, sft
from align.config import to_yaml

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="this PyTorch has no gloo"
)

STAGES = {"pretrain": pretrain, "sft": sft, "rm": rm, "ppo": ppo}

# Five rows a step: the two shares differ in rows and in target tokens, and the loss must not care.
CHANGES = {**STEADY, "optim__batch_size": 5, "train__checkpoint_every": 2}

SCRIPT = """
import importlib, sys
from align import pretrain
from align.config import parse_command
from align.train.machine import accelerator

def say(text):
    sys.stdout.write(text + chr(10))
    sys.stdout.flush()

plain = pretrain.write_shards
pretrain.write_shards = lambda *given: say("tokens are written") or plain(*given)
for path in sys.argv[1:]:
    name = path.rsplit("/", 1)[-1].removesuffix(".yaml")
    stage = importlib.import_module("align." + name)
    stage.run(parse_command(stage.Recipe, name, [path])[0])
state = accelerator("fp32")
say(f"process {state.process_index} of {state.num_processes} on {state.device.type}")
"""


@pytest.fixture(scope="module")
def together(world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Every stage run by two processes that talk over gloo: their folders, and what was printed."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "script.py").write_text(SCRIPT)
    recipes = []
    for name, stage in STAGES.items():
        changes = CHANGES | ({"optim__batch_size": 6} if stage is ppo else {})
        recipes.append(folder / f"{name}.yaml")
        recipes[-1].write_text(to_yaml(recipe_of(stage, world, folder / name, **changes)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    command += [str(folder / "script.py"), *map(str, recipes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "process 0 of 2 on cpu" in done.stdout
    assert "process 1 of 2 on cpu" in done.stdout
    return folder, done.stdout


@pytest.mark.parametrize("name", ["pretrain", "sft", "rm"])
def test_two_processes_train_what_one_trains(name, together, world, tmp_path):
    one, two = run(STAGES[name], world, tmp_path / "one", **CHANGES), together[0] / name
    assert largest_difference(two, one) < 1e-5
    for ours, theirs in zip(metrics(two), metrics(one), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-4)


def test_ppo_counts_the_answers_of_all_processes(together):
    rows = metrics(together[0] / "ppo")
    assert [row["episode"] for row in rows] == [6, 12, 18]
    assert rows[0]["objective/kl"] == 0.0
    assert rows[0]["val/response_length"] * 6 == pytest.approx(round(rows[0]["val/response_length"] * 6))


def test_one_process_speaks_for_all(together):
    assert together[1].count("finished") == 4
    assert together[1].count("rows, format") == 4  # what was read, told once for each stage


def test_one_process_writes_the_tokens(together):
    """Two that write the same file at once may each read what the other has half written."""
    assert together[1].count("tokens are written") == 1
