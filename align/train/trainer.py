"""TRL's DPO and KTO trainers with our tokens, optimizer, log and checkpoints.

Loss, forward passes and metrics are TRL's. Differences from a plain `DPOTrainer`:

- Rows are already tokens, from the encoding that all stages share. TRL does not tokenise them again.
- Rows come in training order, so the data of a step is a function of seed and step, as in every stage.
- `Run` counts steps, logs, saves checkpoints without pickles and handles Ctrl-C. The Trainer writes nothing.
- TRL sends usage statistics of its trainers to the hub by default; here nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from trl import DPOTrainer, KTOTrainer

if TYPE_CHECKING:
    from align.train.run import Run

# TRL's names of metrics, and ours. Those of a validation begin with "eval_".
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
        return dataset  # TRL would render and tokenise a conversation here

    def _send_telemetry(self) -> None:
        pass


class UnpairedTrainer(KTOTrainer):
    """A `KTOTrainer` for rows of `prompt_ids`, `completion_ids`, `label`, `KL_completion_ids`."""

    def _prepare_dataset(self, dataset: Any, *unused: Any, **also_unused: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass


class InRun(TrainerCallback):
    """Connects the Trainer to a `Run`, which counts, logs and saves each step before the next one begins."""

    def __init__(
        self, run: Run, steps: Iterator[int], first: int, n_steps: int, log_every: int, eval_every: int | None
    ) -> None:
        """`steps` is `Run.steps(first, n_steps, ...)`. `eval_every` is None if there is no validation data."""
        self.run, self.steps, self.n_steps = run, steps, n_steps
        self.log_every, self.eval_every = log_every, eval_every
        self.step = first
        self.row: dict[str, float] = {}
        self.validation: dict[str, float] = {}  # of the last validation
        self.n_tokens = 0  # counted by TRL
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
        elif "learning_rate" in (logs or {}):  # of the step just taken; the scheduler advances later
            ours["lr"] = float(logs["learning_rate"])
        self.n_tokens = max(self.n_tokens, int((logs or {}).get("num_tokens", 0)))
        self.row |= ours

    def on_train_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self._write()
        for _ in self.steps:  # no step is left: this ends the progress line and restores the signal handlers
            pass

    def _write(self) -> None:
        if not self.row:
            return
        seconds, n_before = self._since
        self._since = (self.run.elapsed_s, self.n_tokens)
        rate = (self.n_tokens - n_before) / max(self._since[0] - seconds, 1e-9)
        self.run.log(self.step, self.row | {"tokens_per_s": rate})
        self.row = {}
