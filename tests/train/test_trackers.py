"""Each tracker gets the rows of metrics.jsonl; its files are read back here."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from align import sections
from align.config import build
from align.errors import RewardError, UserError
from align.train.machine import accelerator
from align.train.run import Run
from align.train.state import steps_saved


class Recipe(sections.Run):
    optim: sections.Optim = sections.Optim(batch_size=1)
    train: sections.Train = sections.Train(steps=2)


def logged(output: str, track: str, resume: bool = False, last: int = 2) -> None:
    """A run that logs a loss for the steps up to `last`."""
    recipe = build(Recipe, {"output": output, "resume": resume, "train": {"steps": 2, "track": track}}, "recipe")
    with Run(recipe, "count", accelerator("fp32")) as run:
        run._save(1, {})
        for step in range(1, last + 1):
            run.log(step, {"loss/train": 1 / step, "data/rows": step})


def test_tensorboard_gets_the_metrics(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logged(str(tmp_path / "run"), "tensorboard")
    board = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss/train")] == [(1, 1.0), (2, 0.5)]


# Trackio reads TRACKIO_DIR when it is imported, so it is tried in a process of its own.
TRACKIO = """
import json, pathlib
from tests.train.test_trackers import logged
logged("run", "trackio", last=1)
logged("run", "trackio", resume=True)
from trackio.sqlite_storage import SQLiteStorage
runs = SQLiteStorage.get_runs("lesson")
found = [runs, SQLiteStorage.get_run_config("lesson", "run"), SQLiteStorage.get_logs("lesson", "run")]
pathlib.Path("found.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_trackio_gets_the_recipe_and_the_metrics_and_a_resumed_run_goes_on_in_its_run(tmp_path):
    pytest.importorskip("trackio")
    root = Path(__file__).parents[2]
    variables = {"PYTHONPATH": str(root), "TRACKIO_DIR": str(tmp_path / "trackio"), "TRACKIO_PROJECT": "lesson"}
    done = subprocess.run(
        [sys.executable, "-c", TRACKIO], cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    runs, config, rows = json.loads((tmp_path / "found.json").read_text())
    assert runs == ["run"]
    assert config["train"]["track"] == "trackio"
    assert [(row["step"], row["loss/train"], row["data/rows"]) for row in rows] == [(1, 1, 1), (1, 1, 1), (2, 0.5, 2)]
    assert (tmp_path / "trackio" / "lesson.db").exists()


def test_wandb_gets_the_metrics(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged(str(tmp_path / "run"), "wandb")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_tracker_that_cannot_finish_leaves_the_checkpoint(tmp_path, monkeypatch):
    def fails() -> None:
        raise ConnectionError

    monkeypatch.setattr("align.train.run.open_tracker", lambda *_: SimpleNamespace(finish=fails))
    recipe = build(Recipe, {"output": str(tmp_path / "run"), "train": {"track": "wandb"}}, "recipe")
    run = Run(recipe, "count", accelerator("fp32")).__enter__()
    run.updated(1)
    with pytest.raises(ConnectionError):
        run.__exit__(RewardError, RewardError("the annotators went home"), None)
    assert steps_saved(tmp_path / "run" / "checkpoints") == [1]


def test_a_tracker_that_is_not_installed_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    with pytest.raises(UserError, match=r"train\.track: wandb is not installed\. Run: pip install wandb"):
        logged(str(tmp_path / "run"), "wandb")
