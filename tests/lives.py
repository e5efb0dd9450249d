"""Processes to kill: commands that run in children of a process which has imported what takes seconds.

Python's own fork server (`multiprocessing`) imports the libraries once and forks a child for each life of a run. The
child does what `python -m align.<stage>` does after its imports, and writes down what it is about, line by line, so
that it can be told afterwards in what a SIGKILL came.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

CHILDREN = get_context("forkserver")
PRELOADED = [
    "lives",
    "align.ppo",
    "align.rm",
    "align.evaluate",
    "align.gpt.model",
    "align.report.reward_card",
    "align.models.classifier",
    "align.models.save",
    "align.rl.learner",
    "align.rl.plan",
    "align.rl.ptx",
    "align.rl.roles",
    "align.generation.text_model",
    "align.text.load",
    "align.train.plan",
    "align.train.run",
    "accelerate",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "transformers.models.gpt2.modeling_gpt2",
    "tokenizers.trainers",
    "apps.label.server",
    "apps.store.migrate",
    "alembic.command",
    "gradio",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "uvicorn.protocols.http.httptools_impl",
]
START, STEP, CHECKPOINT, EVALUATION, SAVE = "start-up", "step", "checkpoint", "evaluation", "final save"


class Moment(NamedTuple):
    """When a life is killed: so long after its n-th phase began, counted from 0, or after its start if None."""

    phase: int | None
    after_s: float


class Life(NamedTuple):
    """How a life ended: the child's exit code, negative for a signal, and when it was about what."""

    exit_code: int
    seconds: float
    phases: list[tuple[float, str]]  # seconds since the start, what began then


def live(stage: str, recipe: Path, log: Path, killed_at: Moment | None = None, resume: bool = False) -> Life:
    """Runs a command in a child, and kills it at a moment if it has not ended by then."""
    phases = log.with_suffix(".phases")
    phases.unlink(missing_ok=True)
    words = [str(recipe), f"resume={str(resume).lower()}"]
    warm_up()
    started = time.monotonic()
    child = start(command, stage, words, str(log), str(phases))
    if killed_at is not None:
        while child.is_alive() and killed_at.phase is not None and len(begun(phases)) <= killed_at.phase:
            time.sleep(0.001)
        child.join(killed_at.after_s)
        child.kill()
    child.join()
    return Life(
        child.exitcode or 0,
        time.monotonic() - started,
        [(float(at) - started, what) for at, what in (line.split(" ", 1) for line in begun(phases))],
    )


def begun(phases: Path) -> list[str]:
    """One line for each phase that has begun."""
    return phases.read_text().splitlines() if phases.exists() else []


def start(function: Callable[..., None], *args: Any) -> Any:
    """Starts a child that calls a function of a test's module."""
    with preloading():
        child = CHILDREN.Process(target=function, args=args)
        child.start()
    return child


@cache
def warm_up() -> None:
    """Waits until the fork server has imported all, so that a life's time is its own."""
    start(sys.getrefcount, 0).join()


@contextmanager
def preloading() -> Iterator[None]:
    """The fork server, when it starts, finds this package and these tests, and computes on one thread."""
    CHILDREN.set_forkserver_preload(PRELOADED)
    here = Path(__file__).parent
    changes = {"PYTHONPATH": os.pathsep.join([str(here.parent), str(here)]), "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def command(stage: str, words: list[str], log: str, phases: str) -> None:
    """In the child: `python -m align.<stage> words`, watched."""
    import torch

    from align.errors import exit_on_user_error

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
    sys.argv = [stage, *words]
    module = importlib.import_module(f"align.{stage}")
    watch(module, Path(phases))
    exit_on_user_error(module.main)


def evaluate(recipe: str, log: str) -> None:
    """In the child: `python -m align.evaluate recipe`."""
    import torch

    from align.errors import exit_on_user_error
    from align.evaluate import main

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
    sys.argv = ["evaluate", recipe]
    exit_on_user_error(main)


def serve_labels(project: str, port: int, log: str) -> None:
    """In the child: `python -m apps.label serve project --port port`."""
    from align.errors import exit_on_user_error
    from apps.label.__main__ import main

    sys.stdout = sys.stderr = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
    sys.argv = ["label", "serve", project, "--port", str(port)]
    exit_on_user_error(main)


def watch(stage: Any, path: Path) -> None:
    """Lets the child write down what it is about. Only notes are added: nothing is done otherwise."""
    from align.train import run, state

    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(phase: str) -> None:
        os.write(file, f"{time.monotonic()} {phase}\n".encode())

    def noted(owner: Any, name: str, during: str | None, after: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if during is not None:
                note(during)
            result = plain(*args, **kwargs)
            note(after)
            return result

        setattr(owner, name, call)

    note(START)
    noted(run.Run, "restore", None, STEP)
    noted(run, "save_checkpoint", CHECKPOINT, STEP)
    noted(stage, "evaluate" if stage.__name__ == "align.ppo" else "validate", EVALUATION, STEP)
    noted(run.Progress, "close", None, SAVE)
    assert run.save_checkpoint is not state.save_checkpoint
