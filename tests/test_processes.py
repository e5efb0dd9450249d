"""Two processes on one machine train what one trains alone, and stop and go on together."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers import STEADY, assert_same_bits, largest_difference, metrics, recipe_of, run

from align import ppo, pretrain, rm, sft
from align.config import to_yaml
from align.train.state import steps_saved

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
        reason="this PyTorch has no gloo",
    ),
]

STAGES = {"pretrain": pretrain, "sft": sft, "rm": rm, "ppo": ppo}

# Five rows a step: the two shares differ in rows and in target tokens, and the loss must not care.
CHANGES = {**STEADY, "optim__batch_size": 5, "train__checkpoint_every": 2}

# Whatever draws from the global random states: dropout, and a reward function. Shares differ in size, so that the
# processes do not draw alike.
STOPPED: dict[str, dict[str, Any]] = {
    "sft": {"optim__batch_size": 5, "train__checkpoint_every": 2, "model__path": "gpt2"},
    "ppo": {"optim__batch_size": 5, "train__checkpoint_every": 2, "ppo__critic": "base", "ppo__n_minibatches": 1}
    | {"reward__path": ..., "reward__function": "test_processes:drawn"},
}

# Runs the recipes that it is given. In the second process alone a signal comes at step 3 of those in a folder stopped/
# that do not resume: SIGTERM in sft, SIGKILL in ppo.
SCRIPT = """
import importlib, os, signal, sys
from align import pretrain
from align.config import parse_command
from align.train.machine import accelerator
from align.train.run import Run

def say(text):
    sys.stdout.write(text + chr(10))
    sys.stdout.flush()

def log(run, step, values):
    plain_log(run, step, values)
    stops = "stopped" in run.folder.parts and not run.recipe.resume and step == 3
    if stops and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM if run.stage == "sft" else signal.SIGKILL)

plain_log, Run.log = Run.log, log
plain = pretrain.write_shards
pretrain.write_shards = lambda *given: say("tokens are written") or plain(*given)
for path in sys.argv[1:]:
    name = path.rsplit("/", 1)[-1].removesuffix(".yaml")
    stage = importlib.import_module("align." + name)
    try:
        stage.run(parse_command(stage.Recipe, name, [path])[0])
    except SystemExit as end:
        say(f"{name} ended with {end.code}")
state = accelerator("fp32")
say(f"process {state.process_index} of {state.num_processes} on {state.device.type}")
"""


def drawn(prompts: list[str], responses: list[str]) -> list[float]:
    """A reward function that draws from every global random state."""
    return [random.random() + float(np.random.rand()) + float(torch.rand(())) - len(text) for text in responses]


class Together(NamedTuple):
    """What two processes that talk over gloo left and printed."""

    folder: Path  # each stage's run; whole/ and stopped/, the latter stopped at step 3 and resumed
    printed: str
    first_stop: str  # what was printed up to where stopped/ was stopped
    halted: Path  # a copy of stopped/ as it was then


@pytest.fixture(scope="module")
def together(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Every stage run by two processes: in two launches, the first of which is killed."""
    folder = tmp_path_factory.mktemp("together")

    def written(where: str, name: str, **changes: Any) -> Path:
        path = folder / where / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        changes |= {key: getattr(world, value) for key, value in changes.items() if value in ("gpt2", "base")}
        path.write_text(to_yaml(recipe_of(STAGES[name], world, path.with_suffix(""), **changes)))
        return path

    first = launch(folder, [written("stopped", name, **changes) for name, changes in STOPPED.items()])
    assert first.returncode != 0
    shutil.copytree(folder / "stopped", folder / "halted")
    recipes = [written("", name, **CHANGES | ({"optim__batch_size": 6} if name == "ppo" else {})) for name in STAGES]
    recipes += [written("whole", name, **changes) for name, changes in STOPPED.items()]
    recipes += [written("stopped", name, **changes, resume=True) for name, changes in STOPPED.items()]
    done = launch(folder, recipes)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "process 0 of 2 on cpu" in done.stdout
    assert "process 1 of 2 on cpu" in done.stdout
    return Together(folder, done.stdout, first.stdout, folder / "halted")


def launch(folder: Path, recipes: list[Path]) -> Any:
    """Two processes run these recipes."""
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    command += [str(folder / "script.py"), *map(str, recipes)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment | {"PYTHONPATH": paths})


@pytest.mark.parametrize("name", ["pretrain", "sft", "rm"])
def test_two_processes_train_what_one_trains(name, together, world, tmp_path):
    one, two = run(STAGES[name], world, tmp_path / "one", **CHANGES), together.folder / name
    assert largest_difference(two, one) < 1e-5
    for ours, theirs in zip(metrics(two), metrics(one), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-4)


def test_ppo_counts_the_answers_of_all_processes(together):
    rows = metrics(together.folder / "ppo")
    assert [row["episode"] for row in rows] == [6, 12, 18]
    assert rows[0]["objective/kl"] == 0.0
    assert rows[0]["val/response_length"] * 6 == pytest.approx(round(rows[0]["val/response_length"] * 6))


def test_one_process_speaks_for_all(together):
    assert together.printed.count("finished") == 4 + 4
    assert together.printed.count("rows, format") == 4 + 4  # what was read, told once for each run


def test_one_process_writes_the_tokens(together):
    """Two that write the same file at once may each read what the other has half written."""
    assert together.printed.count("tokens are written") == 1


def test_a_signal_to_one_process_stops_both_after_the_same_step(together):
    assert together.first_stop.count("sft ended with 130") == 2
    assert together.first_stop.count("stopped at step 3 of 6; checkpoint saved") == 1
    assert steps_saved(together.halted / "sft" / "checkpoints") == [2, 3]
    assert steps_saved(together.halted / "ppo" / "checkpoints") == [2]  # which was killed


@pytest.mark.parametrize("name", STOPPED)
def test_two_processes_that_were_stopped_end_as_two_that_were_not(name, together):
    assert_same_bits(together.folder / "stopped" / name, together.folder / "whole" / name)


def test_one_process_goes_on_with_what_two_have_begun(together, world, capsys):
    """It says that its numbers are others, and begins its random states anew, but not as at the start."""
    folder = together.halted / "sft"
    recipe = recipe_of(sft, world, together.folder / "stopped" / "sft", **STOPPED["sft"] | {"model__path": world.gpt2})
    (folder / "recipe.yaml").write_text(to_yaml(recipe.model_copy(update={"output": str(folder)})))
    run(sft, world, folder, resume=True, **STOPPED["sft"] | {"model__path": world.gpt2})
    assert "the checkpoint was saved by 2 processes and continues with 1" in capsys.readouterr().out
    ours, theirs = metrics(folder), metrics(together.folder / "whole" / "sft")
    assert ours[:3] == theirs[:3]
    assert [row["step"] for row in ours] == [1, 2, 3, 4, 5, 6]
    assert ours[3]["loss/train"] == pytest.approx(theirs[3]["loss/train"], rel=0.2)  # the same rows, another dropout
