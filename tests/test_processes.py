"""Two processes on one machine train what one trains alone."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import STEADY, largest_difference, metrics, recipe_of, run

from align import sft
from align.config import to_yaml

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="this PyTorch has no gloo"
)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def launch(recipe: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command of the guide: `accelerate launch --num_processes 2 -m align.sft recipe.yaml`."""
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    options = ["--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--main_process_port", str(free_port()), "--num_cpu_threads_per_process", "1", "--dynamo_backend", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "align.sft", "recipe.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=folder)


def test_sft_on_two_processes_is_sft_on_one(world, tmp_path):
    """Five rows a step: the shares differ in rows and in target tokens, and the loss must not care."""
    changes = {**STEADY, "optim__batch_size": 5}
    done = launch(recipe_of(sft, world, tmp_path / "two", **changes), tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.count("finished") == 1  # one of them speaks
    one, two = run(sft, world, tmp_path / "one", **changes), tmp_path / "two"
    assert largest_difference(two, one) < 1e-5
    for ours, theirs in zip(metrics(two), metrics(one), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-4)
