"""Run: the folder of one training run, with its log, checkpoints, interruption and resumption.

The folder has recipe.yaml, environment.json, metrics.jsonl, checkpoints/, model/, README.md and, written last,
result.json: a folder with result.json is finished. The training loops get their steps from a `Run`:

    with Run(recipe, "sft", accelerator) as run:
        first = run.restore(parts)
        for step in run.steps(first, n_steps, parts):
            ...
            run.log(step, {"loss/train": loss})
        run.finish({...})
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from align import sections
from align.errors import RewardError, UserError, is_disk_full
from align.train.disk import no_room
from align.train.folder import claim
from align.train.machine import PeakMemory, environment
from align.train.parallel import check_shares, gathered, total
from align.train.state import (
    RandomState,
    RandomStates,
    Stateful,
    generator,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    seed_everything,
    steps_saved,
    write_whole,
)
from align.train.trackers import open_tracker

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.tracking import GeneralTracker

# Commands that run several stages and continue by themselves after an interruption, by file name.
CONTINUES = {"pipeline": "align.pipeline"}
CONTINUES |= {name: f"align.lab.{name}" for name in ("overoptimization", "inverse_scaling")}


class Recipe(Protocol):
    """The keys of every training stage's recipe; see `align.sections`."""

    @property
    def output(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def resume(self) -> bool: ...
    @property
    def overwrite(self) -> bool: ...
    @property
    def optim(self) -> sections.Optim: ...
    @property
    def train(self) -> sections.Train: ...


class CompleteStep(NamedTuple):
    """The last complete step. It exists only until the next update, because then it cannot be saved any more."""

    step: int
    parts: dict[str, Stateful]
    random: dict[str, Any]  # the random states at its end


class Run:
    """The folder of one run with its log and checkpoints. Of several processes only the first writes."""

    def __init__(self, recipe: Any, stage: str, accelerator: Accelerator) -> None:
        self.recipe: Recipe = recipe
        self.stage = stage
        self.folder = Path(recipe.output)
        self.writes = accelerator.is_main_process
        self._accelerator = accelerator
        self._interrupted = False
        self._memory = PeakMemory()
        self._earlier_s = 0.0
        self._tracker: GeneralTracker | None = None
        self._parts: dict[str, Stateful] = {}
        self._complete: CompleteStep | None = None
        self.latest: dict[str, float] = {}  # the last logged values, for the progress line

    def __enter__(self) -> Run:
        check_shares(self._accelerator, "optim.batch_size", self.recipe.optim.batch_size)
        if self.writes:
            claim(self.folder, self.recipe)
            (self.folder / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
            if self.recipe.train.track != "none":
                self._tracker = open_tracker(self.recipe.train.track, self.folder, self.recipe)
        self._accelerator.wait_for_everyone()
        seed_everything(self.recipe.seed)
        self._started = time.monotonic()
        self._memory.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._memory.__exit__(kind, error, trace)
        if isinstance(error, RewardError) and self._complete is not None:
            self._save_complete(self._complete)
        if is_disk_full(error):
            raise UserError(no_room(self.folder, self._parts, error, self._command_to_continue())) from None
        if self._tracker is not None:  # last, because it may fail: it may need the network
            self._tracker.finish()

    @property
    def elapsed_s(self) -> float:
        """Seconds of work, including those before an interruption."""
        return self._earlier_s + time.monotonic() - self._started

    def say(self, *lines: str) -> None:
        """Prints lines, only from the first process."""
        if self.writes:
            for line in lines:
                print(line, flush=True)

    def restore(self, parts: dict[str, Stateful]) -> int:
        """Loads the last checkpoint into `parts` if the recipe resumes. Returns the number of finished steps."""
        self._parts = parts
        if self.writes:
            remove_leftovers(self.folder / "checkpoints")
        saved = steps_saved(self.folder / "checkpoints")
        if not self.recipe.resume or not saved:
            self.drop_rows_after(0)
            return 0
        random = RandomStates()
        load_checkpoint(self.folder / "checkpoints", saved[-1], {**parts, "clock": self._clock(), "random": random})
        self.drop_rows_after(saved[-1])
        self.say(f"resumed {self.folder} at step {saved[-1]}")
        self._restore_random(random.states, saved[-1])
        self.updated(saved[-1])
        return saved[-1]

    def _restore_random(self, states: list[dict[str, Any]], step: int) -> None:
        """Restores each process's random state. With another number of processes it is seeded from seed and step."""
        n_processes = self._accelerator.num_processes
        if len(states) == n_processes:
            RandomState().load_state_dict(states[self._accelerator.process_index])
            return
        seed_everything(generator("cpu", self.recipe.seed, step).initial_seed())
        self.say(
            f"the checkpoint was saved by {len(states)} processes and continues with {n_processes}: rows are divided "
            "differently and random states are new, so results will not be exactly those of an uninterrupted run"
        )

    def steps(self, first: int, n_steps: int, parts: dict[str, Stateful]) -> Iterator[int]:
        """Yields the step numbers first + 1 .. n_steps. Saves checkpoints in between and on an interruption."""
        self._parts = parts
        every = self.recipe.train.checkpoint_every or max(1, math.ceil(n_steps / 4))
        progress = Progress(self.stage, first, n_steps, shown=self.writes)
        with self._signals_noted():
            for step in range(first + 1, n_steps + 1):
                self.updated(step - 1)
                yield step
                self._complete = None
                progress.advance(step, self.latest)
                if step == n_steps:
                    break  # the run is finished: no checkpoint is needed
                stops = self._is_to_stop()
                if stops or step % every == 0:
                    self._save(step, parts)
                if stops:
                    progress.close()
                    self.say(
                        f"stopped at step {step} of {n_steps}; checkpoint saved. Continue with: "
                        f"{self._command_to_continue()}"
                    )
                    raise SystemExit(130)
        progress.close()

    def _is_to_stop(self) -> bool:
        """Whether any process got a signal. All must stop after the same step, or some would wait forever."""
        if self._accelerator.num_processes == 1:
            return self._interrupted
        return total(self._accelerator, float(self._interrupted))[0] > 0

    def updating(self) -> None:
        """Call before weights are updated: from here on the last complete step can no longer be saved."""
        self._complete = None

    def updated(self, step: int) -> None:
        """Call after the update of `step`, possibly before it is evaluated and logged."""
        self._complete = CompleteStep(step, self._parts, RandomState().state_dict())

    def is_time(self, step: int, n_steps: int, every: int) -> bool:
        """Whether something is due that happens after every `every` steps, after the first step and after the last."""
        return step == 1 or step == n_steps or step % every == 0

    def log(self, step: int, values: dict[str, float]) -> None:
        """Appends a row to metrics.jsonl, sends it to the tracker and shows it in the progress line."""
        self.latest = values
        for name, value in values.items():
            if name.startswith("loss/") and not math.isfinite(value):
                raise UserError(
                    f"step {step}: {name} is {float(value)}: the run has diverged. Lower optim.learning_rate or check "
                    "the data. The last checkpoint is kept"
                )
        if not self.writes:
            return
        plain = {name: _plain(value) for name, value in values.items()}
        row = {"step": step, **plain, "elapsed_s": round(self.elapsed_s, 3)}
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._tracker is not None:
            self._tracker.log(plain, step)

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes result.json, which marks the run as finished."""
        if not self.writes:
            return
        result = {"stage": self.stage, "seconds": round(self.elapsed_s, 2), "peak_memory_mb": self._memory.megabytes}
        if self._memory.gpu_megabytes is not None:
            result["peak_gpu_memory_mb"] = self._memory.gpu_megabytes
        write_whole(self.folder / "result.json", json.dumps({**result, **summary}, indent=2) + "\n")
        self.say(f"finished {self.folder} in {result['seconds']:.0f} s")

    def _save(self, step: int, parts: dict[str, Stateful]) -> None:
        random = RandomStates(gathered(self._accelerator, RandomState().state_dict()))
        if self.writes:
            keep = self.recipe.train.keep_checkpoints
            everything = {**parts, "clock": self._clock(), "random": random}
            save_checkpoint(self.folder / "checkpoints", step, everything, keep)
        self._accelerator.wait_for_everyone()

    def _save_complete(self, last: CompleteStep) -> None:
        """Saves the last complete step when a reward fails after it."""
        if last.step == 0:
            self.say("", "stopped in step 1, before any update: run the same command again")
            return
        if last.step not in steps_saved(self.folder / "checkpoints"):
            RandomState().load_state_dict(
                last.random
            )  # a reward function may have used random numbers before it failed
            self._save(last.step, last.parts)
        self.say(
            "",
            f"stopped after step {last.step}; checkpoint saved. Fix the error below, then continue with: "
            f"{self._command_to_continue()}",
        )

    def _clock(self) -> Stateful:
        run = self

        class Clock:
            def state_dict(self) -> dict[str, Any]:
                return {"elapsed_s": run.elapsed_s}

            def load_state_dict(self, state_dict: dict[str, Any]) -> None:
                run._earlier_s = state_dict["elapsed_s"]

        return Clock()

    def drop_rows_after(self, step: int) -> None:
        """Removes logged rows of later steps, because a resumed run writes them again."""
        for path in (self.folder / "metrics.jsonl", self.folder / "samples.jsonl"):
            if not self.writes or not path.exists():
                continue
            rows = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in rows if json.loads(line)["step"] <= step]
            write_whole(path, "".join(kept))

    def _command_to_continue(self) -> str:
        words = [word for word in sys.argv[1:] if not word.startswith(("resume=", "overwrite="))]
        if sys.argv[0].startswith("align "):
            is_stage = sys.argv[0] == f"align {self.stage}"  # else a pipeline or experiment, which continues by itself
            return " ".join([sys.argv[0], *words, *["resume=true"] * is_stage])
        if command := CONTINUES.get(Path(sys.argv[0]).stem):
            return " ".join(["python -m", command, *words])
        return " ".join(["python -m", f"align.{self.stage}", *words, "resume=true"])

    def _signals_noted(self) -> _SignalsNoted:
        return _SignalsNoted(self)


class _SignalsNoted:
    """Ctrl-C and SIGTERM end a run after the current step; a second Ctrl-C ends it at once."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> None:
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: the caller handles interrupts
                return

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.run._interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.run._interrupted = True
        self.run.say("", "stopping after this step; press Ctrl-C again to stop at once")


class Progress:
    """A progress line with step, rate and time left: redrawn on a terminal, printed every 15 seconds in a log."""

    def __init__(self, name: str, first: int, n_steps: int, shown: bool) -> None:
        self.name, self.first, self.n_steps, self.shown = name, first, n_steps, shown
        self.started = self.printed = time.monotonic()
        self.is_terminal = sys.stdout.isatty()

    def advance(self, step: int, values: dict[str, float]) -> None:
        """Shows that `step` is done."""
        now = time.monotonic()
        interval_s = 0.2 if self.is_terminal else 15.0
        if not self.shown or (now - self.printed < interval_s and step < self.n_steps):
            return
        self.printed = now
        rate = (step - self.first) / max(now - self.started, 1e-9)
        left_s = (self.n_steps - step) / rate
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in list(values.items())[:3])
        text = f"{self.name} {step}/{self.n_steps}  {rate:.2f} steps/s  {_clock_time(left_s)} left  {numbers}"
        print(f"\r\x1b[K{text}" if self.is_terminal else text, end="" if self.is_terminal else "\n", flush=True)

    def close(self) -> None:
        """Ends the redrawn line."""
        if self.shown and self.is_terminal:
            print(flush=True)


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | str) else float(value)


def _clock_time(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
