"""A full disk: what a run writes is counted before, and what happens when there is no room after all.

A limit on the size of a file stands for the full disk.
"""

import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import figures, recipe_of, run

from align import ppo, sft
from align.errors import UserError, exit_on_user_error, is_disk_full
from align.train import disk
from align.train.plan import Device
from align.train.run import Run
from align.train.state import WRITING, steps_saved

CPU = Device("cpu", 1e12)


@contextmanager
def no_file_larger(n_bytes: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fails_at(monkeypatch, owner, name: str, folder: Path, world, **changes) -> str:
    """A run whose disk is full from one call on. Returns what the user is told."""
    plain = getattr(owner, name)

    def full(*given, **keys):
        time.sleep(0.02)  # the clock of files ticks every few milliseconds, and tells what was written last
        with no_file_larger(1000):
            return plain(*given, **keys)

    monkeypatch.setattr(owner, name, full)
    monkeypatch.setattr(sys, "argv", ["sft", "recipe.yaml"])
    with pytest.raises(UserError) as told:
        run(sft, world, folder, **changes)
    monkeypatch.undo()
    assert not (folder / "result.json").exists()
    assert not (folder / "checkpoints" / WRITING).exists()
    assert str(told.value).endswith("Free some space, then continue with: python -m align.sft recipe.yaml resume=true")
    return str(told.value)


@pytest.mark.parametrize(
    ("function", "part", "saved"),
    [
        ("save_checkpoint", "checkpoints", []),
        ("save_language_model", "model", [2, 4]),
        ("write_card", "README.md", [2, 4]),
    ],
)
def test_what_a_full_disk_cuts_off_can_be_gone_on_with(function, part, saved, world, tmp_path, monkeypatch):
    from align.models import save
    from align.train import run as runs

    folder, whole = tmp_path / "run", run(sft, world, tmp_path / "whole")
    owner = runs if function == "save_checkpoint" else save
    told = fails_at(monkeypatch, owner, function, folder, world)
    assert told.startswith(f"{folder / part} cannot be written: ")
    assert ("a checkpoint takes " in told) == (part == "checkpoints")
    assert (f"The checkpoint of step {saved[-1]} is safe" if saved else "No checkpoint was saved yet") in told
    assert steps_saved(folder / "checkpoints") == saved
    run(sft, world, folder, resume=True)
    assert figures(folder) == figures(whole)


def test_a_row_that_finds_no_room_ends_the_run_in_words(world, tmp_path, monkeypatch):
    assert "metrics.jsonl cannot be written: [Errno 27]" in fails_at(monkeypatch, Run, "log", tmp_path / "run", world)


def test_libraries_tell_of_it_in_their_own_errors(tmp_path, capsys):
    import torch
    from safetensors.torch import save_file

    def main() -> None:
        save_file({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")

    with no_file_larger(1000), pytest.raises(SystemExit, match="2"):
        exit_on_user_error(main)
    assert "the disk is full (Error while serializing" in capsys.readouterr().err
    assert not is_disk_full(OSError(13, "Permission denied"))


def test_what_is_written_was_counted(world, tmp_path):
    """Whole and with an adapter, critic and best weights: the count is what the files then hold."""
    for changes in ({}, {"model__adapter": "lora"}):
        folder = tmp_path / str(len(changes))
        keys = {"data__validation": 0.2, "evaluation__best": "eval/scores", "train__eval_every": 3, **changes}
        recipe = recipe_of(ppo, world, folder, train__check_memory=False, train__checkpoint_every=2, **keys)
        ppo.run(recipe)
        from align.rl.plan import plan_of_models

        counted = disk.written(recipe, *plan_of_models(recipe, 20)(recipe, CPU))
        assert sum(counted.values()) > 0
        for name, size in counted.items():
            n_bytes = sum(path.stat().st_size for path in (folder / name).rglob("*.safetensors"))
            if name == "checkpoints":  # two stand there; a third was written beside them
                n_bytes *= 3 / 2
            assert abs(size / n_bytes - 1) < 0.1, (name, size, n_bytes)


def test_a_run_that_writes_more_than_is_free_is_refused_before_it_begins(world, tmp_path, monkeypatch, capsys):
    recipe = recipe_of(sft, world, tmp_path / "run")
    sft.run(recipe, dry_run=True)
    assert "disk: at most " in capsys.readouterr().out
    monkeypatch.setattr(disk, "free_disk", lambda output: 1000.0)
    with pytest.raises(UserError, match=r"disk: at most .* MB \(checkpoints .*\); free for .*train.keep_checkpoints=1"):
        sft.run(recipe)
    assert not (tmp_path / "run").exists()
