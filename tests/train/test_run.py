"""A run is a folder: who may write it, what it holds, and what an interruption leaves."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from align import sections
from align.config import build
from align.errors import UserError
from align.train.folder import claim
from align.train.machine import accelerator
from align.train.run import Run
from align.train.state import steps_saved


class Recipe(sections.Run):
    """What every stage has, and one key of its own."""

    colour: str = "red"
    optim: sections.Optim = sections.Optim(batch_size=1)
    train: sections.Train = sections.Train(steps=4)


class Counter:
    """A part of a run that counts its steps."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


def recipe(folder: Path, **keys: Any) -> Recipe:
    return build(Recipe, {"output": str(folder), **keys}, "recipe")


def count(recipe: Recipe, signalled_at: int | None = None, number: int = signal.SIGINT) -> Counter:
    """A run whose only work is counting to 4; a signal arrives in the middle of one of its steps."""
    counter = Counter()
    with Run(recipe, "count", accelerator("fp32")) as run:
        parts = {"counter": counter}
        first = run.restore(parts)
        for step in run.steps(first, 4, parts):
            counter.count += 1
            if step == signalled_at:
                os.kill(os.getpid(), number)
            run.log(step, {"count": counter.count})
        run.finish({"count": counter.count})
    return counter


def test_a_batch_that_several_processes_cannot_share_is_refused(tmp_path):
    several = SimpleNamespace(num_processes=2, is_main_process=True)
    with pytest.raises(UserError, match=r"optim\.batch_size = 1: each of 2 processes needs at least one"):
        Run(recipe(tmp_path / "run"), "count", several).__enter__()
    assert not (tmp_path / "run").exists()


def logged(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def finished(tmp_path) -> Path:
    count(recipe(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def interrupted(request, tmp_path) -> Path:
    with pytest.raises(SystemExit) as end:
        count(recipe(tmp_path / "run"), signalled_at=2, number=request.param)
    assert end.value.code == 130
    return tmp_path / "run"


def test_a_finished_run_holds_its_recipe_environment_metrics_and_result(finished):
    assert yaml.safe_load((finished / "recipe.yaml").read_text())["train"]["steps"] == 4
    environment = json.loads((finished / "environment.json").read_text())
    assert {"command", "git_commit", "python", "packages", "threads"} < environment.keys()
    assert environment["packages"]["torch"]
    assert logged(finished) == [1, 2, 3, 4]
    result = json.loads((finished / "result.json").read_text())
    assert (result["stage"], result["count"]) == ("count", 4)
    assert result["peak_memory_mb"] > 10


def test_an_interrupted_run_ends_its_step_saves_and_says_how_to_go_on(interrupted, capfd):
    assert logged(interrupted) == [1, 2]
    assert steps_saved(interrupted / "checkpoints")[-1] == 2
    assert not (interrupted / "result.json").exists()


def test_the_way_to_go_on_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["count.py", "recipe.yaml", "colour=blue", "overwrite=true"])
    with pytest.raises(SystemExit):
        count(recipe(tmp_path / "run"), signalled_at=2)
    told = capsys.readouterr().out
    assert "stopped at step 2 of 4; checkpoint saved" in told
    assert "python -m align.count recipe.yaml colour=blue resume=true\n" in told


def test_signals_are_handled_as_before_once_the_steps_are_over(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    count(recipe(tmp_path / "run"))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_ends_the_run_at_once(tmp_path):
    with Run(recipe(tmp_path / "run"), "count", accelerator("fp32")) as run:
        steps = run.steps(0, 4, {})
        next(steps)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        steps.close()
    assert steps_saved(tmp_path / "run" / "checkpoints") == []


def test_a_resumed_run_goes_on_where_it_stopped(interrupted):
    assert count(recipe(interrupted, resume=True)).count == 4
    assert logged(interrupted) == [1, 2, 3, 4]
    assert json.loads((interrupted / "result.json").read_text())["count"] == 4


def test_a_finished_run_is_not_overwritten(finished):
    for resume in (False, True):
        with pytest.raises(UserError, match=r"output: .*run has a finished run; .*overwrite=true"):
            count(recipe(finished, resume=resume))
    assert logged(finished) == [1, 2, 3, 4]


def test_a_finished_run_is_replaced_if_asked_for(finished):
    (finished / "leftover").write_text("x")
    count(recipe(finished, overwrite=True, colour="blue"))
    assert not (finished / "leftover").exists()
    assert yaml.safe_load((finished / "recipe.yaml").read_text())["colour"] == "blue"


def test_an_interrupted_run_is_gone_on_with_only_if_asked_for(interrupted):
    with pytest.raises(UserError, match=r"has an interrupted run; continue it with resume=true, or replace it"):
        count(recipe(interrupted))
    assert steps_saved(interrupted / "checkpoints")[-1] == 2


def test_a_changed_recipe_is_not_resumed_and_every_change_is_told(interrupted):
    changed = recipe(interrupted, resume=True, colour="blue", train={"steps": 4, "micro_batch_tokens": 17})
    with pytest.raises(UserError) as refused:
        count(changed)
    told = str(refused.value)
    assert "colour (red then, blue now)" in told
    assert "train.micro_batch_tokens (8192 then, 17 now)" in told
    assert "seed" not in told
    assert yaml.safe_load((interrupted / "recipe.yaml").read_text())["colour"] == "red"


def test_what_no_number_depends_on_may_change(interrupted):
    train = {"steps": 4, "log_every": 3, "checkpoint_every": 3, "keep_checkpoints": 5}
    assert count(recipe(interrupted, resume=True, train=train)).count == 4


def test_a_folder_that_is_no_run_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for keys in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UserError, match="exists and is not a run folder; choose another output"):
            claim(tmp_path, recipe(tmp_path, **keys))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tmp_path):
    folder = tmp_path / "run"
    with Run(recipe(folder), "count", accelerator("fp32")) as run:
        run.log(1, {"count": 1.0})  # and then the machine went off
    count(recipe(folder))
    assert logged(folder) == [1, 2, 3, 4]


def test_rows_logged_after_the_last_checkpoint_are_dropped_on_resuming(interrupted):
    with (interrupted / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "count": 99}\n{"step": 4, "cou')  # killed while writing
    count(recipe(interrupted, resume=True))
    rows = [json.loads(line) for line in (interrupted / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["count"]) for row in rows] == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_the_time_of_all_parts_is_counted(interrupted):
    before = [json.loads(line) for line in (interrupted / "metrics.jsonl").read_text().splitlines()]
    count(recipe(interrupted, resume=True))
    after = [json.loads(line) for line in (interrupted / "metrics.jsonl").read_text().splitlines()]
    assert after[:2] == before
    assert after[2]["elapsed_s"] >= before[-1]["elapsed_s"]


def test_an_interruption_in_the_last_step_lets_the_run_finish(tmp_path):
    folder = tmp_path / "run"
    assert count(recipe(folder), signalled_at=4).count == 4
    assert logged(folder) == [1, 2, 3, 4]
    assert (folder / "result.json").exists()


def test_checkpoints_are_four_in_a_run_unless_the_recipe_says_otherwise(tmp_path):
    def saved(name: str, n_steps: int, **train: Any) -> list[int]:
        keys = recipe(tmp_path / name, train={"steps": n_steps, "keep_checkpoints": 9, **train})
        with Run(keys, "count", accelerator("fp32")) as run:
            for _ in run.steps(0, n_steps, {}):
                pass
        return steps_saved(tmp_path / name / "checkpoints")

    assert saved("default", 8) == [2, 4, 6]  # the last step's is the model itself
    assert saved("every 3", 8, checkpoint_every=3) == [3, 6]
    assert saved("short", 2) == [1]
