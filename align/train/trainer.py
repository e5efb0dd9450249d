"""TRL's preference trainer inside a run folder of ours: our tokens, our optimizer, our log and our checkpoints.

The loss is TRL's, and so are its forward passes and its figures. What differs from a plain `DPOTrainer`:

- rows come as tokens, from the encoding that all stages share, and are not written and tokenised anew by TRL;
- rows come in the order of training, so that the data of a step is a function of seed and step, as in every stage;
- `Run` counts the steps, logs, saves checkpoints without pickles and notes Ctrl-C; the Trainer writes nothing;
- TRL reports the use of its trainers to the hub unless told otherwise; here nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from trl import DPOTrainer, KTOTrainer

if TYPE_CHECKING:
    from align.train.run import Run

# TRL's names of figures, and ours. "eval_" stands before those of a validation.
FIGURES = {
    "loss": "loss/train",
    "rewards/accuracies": "accuracy/train",
    "rewards/margins": "margin/train",
    "rewards/chosen": "rewards/chosen",
    "rewards/rejected": "rewards/rejected",
    "logps/chosen": "logps/chosen",
    "logps/rejected": "logps/rejected",
    "kl": "kl/train",
    "grad_norm": "grad_norm",
    "eval_loss": "loss/validation",
    "eval_rewards/accuracies": "accuracy/validation",
    "eval_rewards/margins": "margin/validation",
}


class PreferenceTrainer(DPOTrainer):
    """A `DPOTrainer` for rows of `prompt_ids`, `chosen_ids`, `rejected_ids`."""

    def _prepare_dataset(self, dataset: Any, *unused: Any, **also_unused: Any) -> Any:
        return dataset  # TRL would write and tokenise a conversation here

    def _send_telemetry(self) -> None:
        pass


class UnpairedTrainer(KTOTrainer):
    """A `KTOTrainer` for rows of `prompt_ids`, `completion_ids`, `label`, `KL_completion_ids`."""

    def _prepare_dataset(self, dataset: Any, *unused: Any, **also_unused: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass


class InRun(TrainerCallback):
    """Hands the Trainer's steps to a `Run`: it counts and saves before each step what the one before has done."""

    def __init__(
        self, run: Run, steps: Iterator[int], first: int, n_steps: int, log_every: int, eval_every: int | None
    ) -> None:
        """`steps` is `Run.steps(first, n_steps, ...)`; `eval_every` is None where nothing was held out."""
        self.run, self.steps, self.n_steps = run, steps, n_steps
        self.log_every, self.eval_every = log_every, eval_every
        self.step = first
        self.row: dict[str, float] = {}
        self.validation: dict[str, float] = {}  # of the last validation
        self.n_tokens = 0  # that TRL has counted
        self._since = (run.elapsed_s, 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self._write()
        self.step = next(self.steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> Any:
        every = self.eval_every
        control.should_evaluate = every is not None and self.run.is_time(self.step, self.n_steps, every)
        control.should_log = control.should_evaluate or self.run.is_time(self.step, self.n_steps, self.log_every)
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **unused: Any) -> None:
        ours = {FIGURES[name]: float(value) for name, value in (logs or {}).items() if name in FIGURES}
        if "loss/validation" in ours:
            self.validation = ours
        elif "learning_rate" in (logs or {}):  # what the optimizer has just used; the scheduler moves on afterwards
            ours["lr"] = float(logs["learning_rate"])
        self.n_tokens = max(self.n_tokens, int((logs or {}).get("num_tokens", 0)))
        self.row |= ours

    def on_train_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self._write()
        for _ in self.steps:  # there is none: this ends the progress line and gives the signals back
            pass

    def _write(self) -> None:
        if not self.row:
            return
        seconds, n_before = self._since
        self._since = (self.run.elapsed_s, self.n_tokens)
        rate = (self.n_tokens - n_before) / max(self._since[0] - seconds, 1e-9)
        self.run.log(self.step, self.row | {"tokens_per_s": rate})
        self.row = {}
