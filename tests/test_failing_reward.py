"""A reward that fails in the middle of a PPO run: the run keeps its last finished step, and goes on from it exactly."""

from __future__ import annotations

import os
import random
import socket
import sys
from pathlib import Path
from typing import Any

import lives
import pytest
import torch
from helpers import assert_same_bits, figures, metrics, recipe_of, run

from align import ppo
from align.config import to_yaml
from align.errors import RewardError, exit_on_user_error
from align.train.state import steps_saved

calls = 0
fails_at: int | None = None


def noisy(prompts: list[str], responses: list[str]) -> list[float]:
    """Scores with noise from the global random state; raises at a certain call, half of its numbers drawn."""
    global calls
    calls += 1
    scores = []
    for index, response in enumerate(responses):
        if calls == fails_at and index == len(responses) // 2:
            raise ConnectionError("the annotators went home")
        scores.append(random.random() + float(torch.rand(())) - 0.1 * len(response))
    return scores


def failing_in_one_process(prompts: list[str], responses: list[str]) -> list[float]:
    """Fails at the third call, in the second of two processes alone."""
    global calls
    calls += 1
    if calls == 3 and os.environ["RANK"] == "1":
        raise ConnectionError("the annotators went home")
    return [-float(len(response)) for response in responses]


CHANGES: dict[str, Any] = {
    "reward__path": ...,
    "reward__function": "test_failing_reward:noisy",
    "reward__normalize": "running",
    "kl__controller": "adaptive",
    "kl__target": 1.0,
    "kl__horizon": 100,
    "optim__learning_rate": 0.002,
    "train__checkpoint_every": 100,
}


@pytest.fixture
def run_until(monkeypatch, world):
    """Runs PPO whose reward fails at a certain call, if any."""

    def start(folder: Path, call: int | None = None, **changes: Any) -> Path:
        module = sys.modules["test_failing_reward"]  # which the recipe names, and pytest may know by another name
        monkeypatch.setattr(module, "calls", 0)
        monkeypatch.setattr(module, "fails_at", call)
        return run(ppo, world, folder, **CHANGES | {"ppo__critic": world.base} | changes)

    return start


def test_the_last_finished_step_is_kept_and_the_run_goes_on_exactly(run_until, tmp_path, capsys):
    whole = run_until(tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(
        RewardError, match=r"raised ConnectionError: the annotators went home \(.*test_failing_reward\.py:"
    ):
        run_until(broken, call=4)
    assert steps_saved(broken / "checkpoints") == [3]
    assert [row["step"] for row in metrics(broken)] == [1, 2, 3]
    told = capsys.readouterr().out
    assert "stopped after step 3; checkpoint saved." in told
    assert "resume=true" in told
    run_until(broken, resume=True)
    assert_same_bits(broken, whole)


HELD_OUT = {"data__validation": 0.2, "train__eval_every": 2, "evaluation__best": "eval/scores", "ppo__ema": 0.9}


@pytest.mark.parametrize(("call", "step"), [(4, 2), (7, 4), (10, 6)])
def test_an_evaluation_whose_reward_fails_loses_no_step(run_until, tmp_path, capsys, call, step):
    """Its step has learned by then: that is kept, and the evaluation alone is made anew.

    The reward is asked in step 1, in its evaluation, in step 2, in its evaluation, in steps 3 and 4, and so on.
    """
    whole = run_until(tmp_path / "whole", **HELD_OUT)
    broken = tmp_path / "broken"
    for resume, fails_at in ((False, call), (True, 1)):  # the second time it fails at once
        with pytest.raises(RewardError):
            run_until(broken, call=fails_at, resume=resume, **HELD_OUT)
        assert steps_saved(broken / "checkpoints") == [step]
        assert [row["step"] for row in metrics(broken)] == list(range(1, step))
        assert f"stopped after step {step}; checkpoint saved." in capsys.readouterr().out
    if step < 6:  # the evaluation is made, and then the next step fails: both are made anew
        with pytest.raises(RewardError):
            run_until(broken, call=2, resume=True, **HELD_OUT)
        assert [row["step"] for row in metrics(broken)] == list(range(1, step + 1))
    run_until(broken, resume=True, **HELD_OUT)
    assert_same_bits(broken, whole)
    assert figures(broken) == figures(whole)
    assert (broken / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()


def test_a_judge_that_fails_keeps_the_run_too(run_until, tmp_path, monkeypatch):
    """Even though the rewards were fine: nothing of the step is taken in before all of it is there."""
    gold = {"gold": "helpers:brevity"}
    whole = run_until(tmp_path / "whole", **gold)
    broken = tmp_path / "broken"
    n_asked = iter(range(3))
    with monkeypatch.context() as patch:
        patch.setattr("helpers.brevity", lambda prompts, texts: [1.0 / (2 - next(n_asked))] * len(texts))
        with pytest.raises(RewardError, match="helpers:brevity raised ZeroDivisionError"):
            run_until(broken, **gold)
    assert steps_saved(broken / "checkpoints") == [2]
    run_until(broken, resume=True, **gold)
    ours, theirs = metrics(broken), metrics(whole)
    assert ours[2:] == theirs[2:]


def test_a_reward_that_fails_at_once_leaves_nothing_behind_that_is_in_the_way(run_until, tmp_path, capsys):
    with pytest.raises(RewardError):
        run_until(tmp_path / "run", call=1)
    assert steps_saved(tmp_path / "run" / "checkpoints") == []
    assert "stopped in step 1, before any update: run the same command again" in capsys.readouterr().out
    run_until(tmp_path / "run")
    assert_same_bits(tmp_path / "run", run_until(tmp_path / "whole"))


def test_a_checkpoint_that_is_there_already_is_left_as_it_is(run_until, tmp_path):
    with pytest.raises(RewardError):
        run_until(tmp_path / "run", call=5, train__checkpoint_every=2)
    assert steps_saved(tmp_path / "run" / "checkpoints") == [2, 4]
    run_until(tmp_path / "run", resume=True, train__checkpoint_every=2)
    assert_same_bits(tmp_path / "run", run_until(tmp_path / "whole"))


def test_the_server_may_be_another_when_the_run_goes_on(world, tmp_path):
    """What names the server and its patience is free to change; what scores are made of is not."""
    from align.train.folder import FREE_TO_CHANGE

    keys = {f"reward.{key}" for key in ("url", "timeout_s", "retries", "url_batch")}
    assert keys <= FREE_TO_CHANGE
    assert "reward.clip" not in FREE_TO_CHANGE


def test_running_moments_go_on_exactly_after_an_interruption(run_until, tmp_path):
    """The statistics are part of the checkpoint: without them the rest of the run would be scaled otherwise."""
    broken = tmp_path / "broken"
    with pytest.raises(RewardError):
        run_until(broken, call=3)
    saved = broken / "checkpoints" / "step-00000002" / "reward.json"
    assert '"n", 8.0' in saved.read_text()  # four answers in each of two steps


def one_of_two(rank: int, port: int, recipe: str, log: str) -> None:
    """In a child: what `torchrun --nproc_per_node 2 -m align.ppo recipe` starts as one of its processes."""
    processes = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in processes.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    sys.argv = ["ppo.py", recipe]
    exit_on_user_error(ppo.main)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")
def test_when_the_reward_fails_in_one_of_two_processes_both_stop_and_the_first_saves(world, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    function = {"reward__function": "test_failing_reward:failing_in_one_process", "ppo__critic": world.base}
    recipe.write_text(to_yaml(recipe_of(ppo, world, tmp_path / "run", **CHANGES | function)))
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    children = [lives.start(one_of_two, rank, port, str(recipe), str(log)) for rank, log in enumerate(logs)]
    for child in children:
        child.join()
    first, second = (log.read_text() for log in logs)
    assert [child.exitcode for child in children] == [2, 2], first + second
    assert "error: the reward failed in another process; see its message" in first
    assert "raised ConnectionError: the annotators went home" in second
    assert steps_saved(tmp_path / "run" / "checkpoints") == [2]
    assert "stopped after step 2; checkpoint saved" in first
    saved = tmp_path / "run" / "checkpoints" / "step-00000002" / "reward.json"
    assert '"n", 8.0' in saved.read_text()  # the running moments are of both processes' answers
