"""A run that is killed, at whatever moment, is gone on with to the bit; half a checkpoint is never loaded.

Two ways to look for a moment that breaks it. Real runs of the reward model and of PPO are killed by SIGKILL at random
moments, ALIGN_KILLS of them (4 by default; `.ci/run` sets 20), each time gone on with by the same command, and must end
with the weights, metrics and figures of the run that was let alone. And a small run is killed at every single change
that it makes to its folder, and in the middle of every write.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lives
import pytest
from helpers import assert_same_bits, figures, recipe_of
from lives import CHECKPOINT, START, STEP, Life, Moment, live

from align import ppo, rm, sections
from align.config import build, to_yaml
from align.train import run as run_module
from align.train.machine import accelerator
from align.train.run import Run
from align.train.state import load_checkpoint, steps_saved

N_KILLS = int(os.environ.get("ALIGN_KILLS", "4"))
N_STEPS = 12

# Whatever has a state of its own: dropout and the reward function draw from the global random states, and the rest
# remembers what came before.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rm": (rm, {"model__path": "gpt2", "heads": 2, "normalize": "samples", "samples__n": 8, "samples__max_tokens": 8}),
    "ppo": (
        ppo,
        {"reward__path": ..., "reward__function": "helpers:noisy_brevity", "reward__normalize": "running"}
        | {"kl__controller": "adaptive", "kl__target": 1.0, "kl__horizon": 100, "kl__reference_every": 2}
        | {"ppo__ema": 0.9, "ppo__target_kl": 0.05, "optim__learning_rate": 0.003}
        | {"ptx__path": "documents", "ptx__batch_size": 4}
        | {"data__validation": 0.2, "evaluation__best": "eval/scores", "train__eval_every": 2},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_at_random_moments_ends_as_one_that_was_let_alone(name, world, tmp_path, capsys):
    stage, changes = CASES[name]
    files = {"model__path": world.gpt2, "ptx__path": world.documents}
    changes = {**changes, **{key: path for key, path in files.items() if key in changes}}
    changes |= {"train__steps": N_STEPS, "train__checkpoint_every": 1}

    def command(folder: Path) -> Path:
        recipe = folder.with_suffix(".yaml")
        recipe.write_text(to_yaml(recipe_of(stage, world, folder, **changes)))
        return recipe

    whole = tmp_path / "whole"
    alone = live(name, command(whole), tmp_path / "whole.log")
    assert alone.exit_code == 0, (tmp_path / "whole.log").read_text()
    chance, hits, n_runs = random.Random(name), [], 0
    while len(hits) < N_KILLS:  # a second run only if the first was faster than its last kills
        killed, n_runs = tmp_path / f"killed {n_runs}", n_runs + 1
        hits += killed_until_it_ends(name, command(killed), killed, alone, chance, N_KILLS - len(hits))
        assert_same_bits(killed, whole)
        assert figures(killed) == figures(whole)
        if name == "ppo":
            assert (killed / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()
    with capsys.disabled():
        print(f"\n{name}: {len(hits)} kills: " + ", ".join(f"{n} in {what}" for what, n in Counter(hits).items()))
    if len(hits) >= 20:  # moments are drawn, so that each kind is likely and none is certain
        assert START in hits
        assert {STEP, CHECKPOINT} & set(hits)


def killed_until_it_ends(
    name: str, recipe: Path, folder: Path, alone: Life, chance: random.Random, n_kills: int
) -> list[str]:
    """Kills a run at random moments, then lets the command end it. Returns what it was about at each kill.

    Each moment lies in one of the phases of the run that was let alone, all equally likely however long they last, and
    the moments are taken in order. A quarter of the kills come while the command starts up.
    """
    begins = [at for at, _ in alone.phases]
    lengths = [end - at for at, end in pairwise([*begins, alone.seconds])]
    restored = [1] + [i + 1 for i, (_, what) in enumerate(alone.phases) if what == CHECKPOINT]
    log, hits = folder.with_suffix(".log"), []
    for aim in sorted(chance.randrange(1, len(begins)) for _ in range(n_kills)):
        n_saved = max(steps_saved(folder / "checkpoints"), default=0)
        n_passed = restored[n_saved] - 1  # phases of earlier lives that this one does not repeat
        moment = Moment(aim - n_passed, chance.uniform(0, lengths[aim]))
        if aim <= n_passed or chance.random() < 0.25:
            moment = Moment(None, chance.uniform(0, begins[1]))
        life = live(name, recipe, log, moment, resume=bool(hits))
        assert life.exit_code in (0, -signal.SIGKILL), log.read_text()
        if life.exit_code == 0:
            return hits
        hits.append(life.phases[-1][1] if life.phases else START)
        if (folder / "result.json").exists():
            return hits
    words = [sys.executable, "-m", f"align.{name}", str(recipe), "resume=true"]
    paths = os.pathsep.join(str(path) for path in (Path(__file__).parents[1], Path(__file__).parent))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return hits


# ---------------------------------------------------------------------------------------- every change, every write


class Recipe(sections.Run):
    """What every stage has."""

    optim: sections.Optim = sections.Optim()
    train: sections.Train = sections.Train(steps=3, checkpoint_every=1, keep_checkpoints=1)


class Count:
    """A part of a run that counts its steps."""

    def __init__(self) -> None:
        self.n = 0

    def state_dict(self) -> dict[str, Any]:
        return {"n": self.n}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.n = state_dict["n"]


def counts(folder: Path, until: int = 3, **keys: Any) -> None:
    """A run whose only work is counting to 3; perhaps it ends before that, without a word."""
    counter = Count()
    with Run(build(Recipe, {"output": str(folder), **keys}, "recipe"), "count", accelerator("fp32")) as run:
        parts = {"counter": counter}
        for step in run.steps(run.restore(parts), 3, parts):
            if step > until:
                os._exit(0)
            counter.n += 1
            run.log(step, {"n": counter.n} | {f"filler {i}": i / 7 for i in range(60)})  # more than recipe.yaml
        run.finish({"n": counter.n})


class Start(NamedTuple):
    """What stands in the folder when a command is killed."""

    before: int | None  # steps of the run that stands there and has ended without a word; None for an empty place
    keys: dict[str, Any]  # of the command that is killed, and given again
    until: int  # the killed command has no more than these steps: what comes later is the same from any start


STARTS = {
    "a new run": Start(None, {"resume": True}, until=1),
    "died before its first checkpoint": Start(0, {"resume": True}, until=0),
    "gone on with": Start(1, {"resume": True}, until=3),
    "replaced": Start(3, {"overwrite": True}, until=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("deadly", ["at each change", "in each write"])
def test_no_kill_leaves_what_cannot_be_gone_on_with(start, deadly, tmp_path):
    child = lives.start(kill_everywhere, start, deadly, str(tmp_path))
    child.join()
    assert child.exitcode == 0, (tmp_path / "trouble").read_text()


def kill_everywhere(start: str, deadly: str, tmp_path: str) -> None:
    """In a child, which forks: the command is killed at the first moment, the second, and so on, until none is left."""
    before, run = Path(tmp_path, "before"), Path(tmp_path, "run")
    n_before, keys, until = STARTS[start]
    dies = die_at_change if deadly == "at each change" else die_in_write
    run_module.environment = dict  # which asks git
    os.fsync = lambda descriptor: None  # no kill takes back what a system has been given to write
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        if n_before is not None:
            assert forked(lambda: counts(run, until=n_before)) == 0
            run.rename(before)
        for number in count(1):
            shutil.rmtree(run, ignore_errors=True)
            if before.exists():
                shutil.copytree(before, run)
            code = forked(lambda number=number: (dies(number, run), counts(run, until, **keys)))
            if code == 0:
                break
            assert code == (-signal.SIGKILL if dies is die_at_change else -signal.SIGXFSZ), f"kill {number}: {code}"
            check_what_a_kill_left(run, number)
            assert forked(lambda: counts(run, **keys)) == 0, (
                f"kill {number} leaves what the command does not go on with"
            )
            check_that_it_is_whole(run, number)
        assert number > 5  # so many kills there were
    except BaseException:
        with Path(tmp_path, "trouble").open("a") as file:
            traceback.print_exc(file=file)
        raise SystemExit(1) from None


def forked(act: Callable[[], Any]) -> int:
    """Runs something in a fork of this process. Returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at_change(number: int, folder: Path) -> None:
    """From now on this process is killed right before its n-th change: something made, opened to write, moved, gone."""
    changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
    n_seen = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal n_seen
        opened = event == "open" and str(args[0]).startswith(str(folder)) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if opened or event in changes:
            n_seen += 1
            if n_seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def die_in_write(number: int, folder: Path) -> None:
    """From now on the kernel ends this process when it writes a file beyond some bytes, which stay in the file."""
    limit = int(1.5**number)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def check_what_a_kill_left(folder: Path, number: int) -> None:
    """Every checkpoint that has a name is whole, and of the step that it is named by."""
    for step in steps_saved(folder / "checkpoints"):
        counter = Count()
        load_checkpoint(folder / "checkpoints", step, {"counter": counter})
        assert counter.n == step, f"kill {number}"


def check_that_it_is_whole(folder: Path, number: int) -> None:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["n"]) for row in rows] == [(1, 1), (2, 2), (3, 3)], f"kill {number}"
    assert json.loads((folder / "result.json").read_text())["n"] == 3
    assert "checkpoint_every: 1" in (folder / "recipe.yaml").read_text()
    assert [path.name for path in folder.rglob(".*")] == [], f"kill {number} leaves rubbish"
