"""A run that was stopped and resumed leaves, bit for bit, what it would have left had it never been stopped."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import lives
import pytest
import torch
from helpers import assert_same_bits, figures, metrics, recipe_of, run

from align import ppo, pretrain, rm, sft
from align.config import to_yaml
from align.errors import UserError, exit_on_user_error
from align.train.run import Run
from align.train.state import steps_saved

# Whatever has a state of its own: dropout draws from the global random state, the adaptive leash remembers its beta.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "pretrain": (pretrain, {}),
    "sft": (sft, {}),
    "sft, dropout": (sft, {"model__path": "gpt2"}),
    "sft, 8-bit adam": (sft, {"optim__name": "adamw8bit"}),
    "sft, lora": (sft, {"model__adapter": "lora", "model__lora__dropout": 0.2}),
    "rm": (rm, {}),
    "rm, lora": (rm, {"model__adapter": "lora"}),
    "ppo": (ppo, {"kl__controller": "adaptive", "kl__target": 1.0, "kl__horizon": 100}),
    "ppo, all that moves": (
        ppo,
        {"data__validation": 0.2, "evaluation__best": "eval/scores", "train__eval_every": 1, "ppo__ema": 0.9}
        | {"kl__reference_every": 2, "ptx__path": "documents", "ptx__batch_size": 4, "ppo__target_kl": 0.05}
        | {"ppo__critic": "trunk", "ppo__critic_warmup_steps": 1, "optim__learning_rate": 0.003},
    ),
    "ppo, grpo with lora": (
        ppo,
        {"ppo__advantage": "grpo", "rollout__answers": 2, "kl__placement": "loss", "kl__estimator": "k3"}
        | {"model__adapter": "lora", "kl__reference_every": 2, "optim__learning_rate": 0.002},
    ),
    "ppo, lora": (ppo, {"model__adapter": "lora", "optim__learning_rate": 0.002}),
}


class PowerCut(BaseException):
    """Ends a run as SIGKILL would, without a word."""


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, world: Any) -> tuple[Any, dict[str, Any]]:
    stage, changes = CASES[request.param]
    files = {"model__path": world.gpt2, "ptx__path": world.documents}
    return stage, {**changes, **{key: path for key, path in files.items() if key in changes}}


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Any) -> None:
    """Lets something happen right after a step has been logged."""
    plain_log = Run.log

    def log(self: Run, step: int, values: dict[str, float]) -> None:
        plain_log(self, step, values)
        if step == number:
            act()

    monkeypatch.setattr(Run, "log", log)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def power_cut() -> None:
    raise PowerCut


def run_until(number: int, act: Any, stage: Any, world: Any, folder: Path, **changes: Any) -> None:
    """Runs a stage in whose step `number` something happens."""
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, number, act)
        run(stage, world, folder, **changes)


def test_an_interrupted_run_and_a_killed_one_end_as_the_whole_one(case, world, tmp_path):
    stage, changes = case
    changes |= {"train__checkpoint_every": 2}
    whole = run(stage, world, tmp_path / "whole", **changes)
    interrupted, killed = tmp_path / "interrupted", tmp_path / "killed"
    with pytest.raises(SystemExit) as end:
        run_until(3, ctrl_c, stage, world, interrupted, **changes)
    assert end.value.code == 130
    assert steps_saved(interrupted / "checkpoints") == [2, 3]
    with pytest.raises(PowerCut):
        run_until(5, power_cut, stage, world, killed, **changes)
    assert steps_saved(killed / "checkpoints") == [2, 4]
    assert [row["step"] for row in metrics(killed)] == [1, 2, 3, 4, 5]
    for folder in (interrupted, killed):
        run(stage, world, folder, resume=True, **changes)
        assert_same_bits(folder, whole)
        assert figures(folder) == figures(whole)


def test_sampled_answers_are_told_once_for_each_step(world, tmp_path):
    """samples.jsonl of a run that was killed and resumed is that of the whole run."""
    changes = {"train__checkpoint_every": 2, "train__eval_every": 1}
    whole = run(sft, world, tmp_path / "whole", **changes)
    killed = tmp_path / "killed"
    with pytest.raises(PowerCut):
        run_until(5, power_cut, sft, world, killed, **changes)
    run(sft, world, killed, resume=True, **changes)
    assert (killed / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()


@pytest.mark.parametrize("stage", [pretrain, sft, rm, ppo])
def test_an_interruption_in_the_last_step_loses_no_figure(stage, world, tmp_path):
    whole = run(stage, world, tmp_path / "whole")
    interrupted = tmp_path / "interrupted"
    run_until(6, ctrl_c, stage, world, interrupted)  # nothing is left to stop: the run finishes
    assert_same_bits(interrupted, whole)
    assert figures(interrupted) == figures(whole)


def test_a_run_that_ends_at_its_budget_has_its_figures_if_it_is_killed_there(world, tmp_path, monkeypatch):
    """No step is made again when it is resumed: the figures of the last one are part of the checkpoint."""
    changes = {"kl__estimator": "full", "optim__learning_rate": 0.001, "train__checkpoint_every": 1}
    kl = [row["objective/kl"] for row in metrics(run(ppo, world, tmp_path / "without", **changes))]
    n_steps = next(i for i in range(2, 6) if kl[i] > max(kl[:i]))
    changes |= {"kl__budget": (max(kl[:n_steps]) + kl[n_steps]) / 2}
    whole = run(ppo, world, tmp_path / "whole", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "say", lambda self, *lines: "exceeds kl.budget" in "".join(lines) and power_cut())
        with pytest.raises(PowerCut):
            run(ppo, world, tmp_path / "killed", **changes)
    assert steps_saved(tmp_path / "killed" / "checkpoints") == [n_steps - 1, n_steps]
    killed = run(ppo, world, tmp_path / "killed", resume=True, **changes)
    assert_same_bits(killed, whole)
    assert figures(killed) == figures(whole)


def test_a_new_recipe_in_a_folder_that_died_early_reads_its_own_data(world, tmp_path):
    """Token shards that a run left before its first checkpoint belong to that run's recipe."""
    with pytest.raises(PowerCut):
        run_until(1, power_cut, pretrain, world, tmp_path / "run")
    other = {"data__path": world.conversations, "tokenizer__vocab_size": 301}
    again = run(pretrain, world, tmp_path / "run", **other)
    assert_same_bits(again, run(pretrain, world, tmp_path / "fresh", **other))


def test_a_resumed_run_refuses_another_recipe(world, tmp_path):
    with pytest.raises(SystemExit):
        run_until(3, ctrl_c, sft, world, tmp_path / "run")
    with pytest.raises(UserError, match=r"optim\.learning_rate \(0\.01 then, 0\.02 now\)"):
        run(sft, world, tmp_path / "run", resume=True, optim__learning_rate=0.02)


def ended_at_step_3(recipe: str, number: int, log: str) -> None:
    """In a child: `python -m align.sft recipe`, which gets a signal in its third step."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    sys.argv = ["sft.py", recipe]
    with pytest.MonkeyPatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), number))
        exit_on_user_error(sft.main)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_process_that_is_ended_from_outside_can_be_resumed(world, tmp_path, number, status):
    changes = {"train__checkpoint_every": 2, "model__path": world.gpt2}
    folder, recipe, log = (tmp_path / name for name in ("ended", "recipe.yaml", "log"))
    recipe.write_text(to_yaml(recipe_of(sft, world, folder, **changes)))
    child = lives.start(ended_at_step_3, str(recipe), int(number), str(log))
    child.join()
    assert child.exitcode == status, log.read_text()
    assert ("Continue with: python -m align.sft" in log.read_text()) == (number == signal.SIGTERM)
    assert steps_saved(folder / "checkpoints")[-1] == (3 if number == signal.SIGTERM else 2)
    run(sft, world, folder, resume=True, **changes)
    assert_same_bits(folder, run(sft, world, tmp_path / "whole", **changes))
