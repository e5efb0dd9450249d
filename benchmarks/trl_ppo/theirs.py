"""TRL's side, in TRL's environment: one run of its PPOTrainer, recorded from outside.

    python theirs.py --input runs/trl_ppo/input --case natural --out runs/trl_ppo/natural

Nothing of TRL is changed. Its trainer calls `log` inside its training loop, and from there the loop's local variables
can be read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer
from work import COMMON, Case, Work, load_work, timed_case, timing

# Local variables of PPOTrainer.train.
ROLLOUT = ("queries", "responses", "scores", "logprobs", "ref_logprobs", "kl", "values")
TARGETS = ("advantages", "returns", "padding_mask", "padding_mask_p1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="folder that make_input.py wrote")
    parser.add_argument("--case", help="a case of work.py, to be watched")
    parser.add_argument("--out", type=Path, help="folder to write into what was seen")
    parser.add_argument("--time", type=int, metavar="N", help="time N updates instead; prints JSON")
    parser.add_argument("--policy", default="ends", help="ends or never-ends, to be timed (ends)")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor, not of the clock")
    parser.add_argument("--micro-batch", type=int, help="answers that are trained on at once (the whole batch)")
    arguments = parser.parse_args()
    work = load_work(arguments.input)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.time:
            case = timed_case(arguments.policy, arguments.micro_batch or work.batch_size)
            n_episodes = arguments.time * work.batch_size
            trainer = make_trainer(Timed, arguments.input, work, case, folder, total_episodes=n_episodes)
            if arguments.cpu_time:
                trainer.now = time.process_time
            trainer.train()
            print(json.dumps(timing(trainer.laps, trainer.n_tokens)))
        else:
            arguments.out.mkdir(parents=True, exist_ok=True)
            trainer = make_trainer(Watched, arguments.input, work, work.cases[arguments.case], folder)
            trainer.watch(arguments.out)
            trainer.train()
            save_file(trainer.read("data"), arguments.out / "last_weights.safetensors")


class Timed(PPOTrainer):
    """TRL's trainer, with the times of each update and the length of its answers."""

    now = time.perf_counter

    def train(self) -> None:
        self.laps, self.n_tokens, self.lap = [], [], [self.now()]
        generation, permutation = ppo_trainer.batch_generation, np.random.permutation

        def generated(*arguments: Any) -> Any:
            found = generation(*arguments)
            self.lap.append(self.now())
            return found

        def permuted(n: int) -> Any:
            if len(self.lap) == 2:  # the first of the update's passes begins
                self.lap.append(self.now())
            return permutation(n)

        with (
            mock.patch.object(ppo_trainer, "batch_generation", generated),
            mock.patch.object(np.random, "permutation", permuted),
        ):
            super().train()

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        self.laps.append([*self.lap, self.now()])
        self.lap = self.laps[-1][-1:]
        self.n_tokens.append(float((~sys._getframe(1).f_locals["padding_mask"]).sum(1).float().mean()))


class Watched(PPOTrainer):
    """TRL's trainer. Records the tensors and figures of each update, and the gradients of its first step."""

    def watch(self, folder: Path) -> None:
        self.folder = folder
        self.n_steps = 0  # of the optimizer, in this update
        self.orders: list[Any] = []  # of the rows, pass by pass
        self.optimizer.optimizer.register_step_pre_hook(lambda *_: self.before_step())

    def train(self) -> None:
        permutation = np.random.permutation

        def remembered(n: int) -> Any:
            self.orders.append(permutation(n))
            return self.orders[-1]

        with mock.patch.object(np.random, "permutation", remembered):
            super().train()

    def before_step(self) -> None:
        if self.n_steps == 0 and self.state.global_step == 0:
            save_file(self.read("grad"), self.folder / "first_gradients.safetensors")
        self.n_steps += 1

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        found = sys._getframe(1).f_locals
        tensors = {name: small(found[name]) for name in (*ROLLOUT, *TARGETS)}
        tensors["orders"] = small(torch.tensor(np.stack(self.orders)))
        save_file(tensors, self.folder / f"{self.state.global_step}.safetensors")
        figures = json.dumps({**logs, "n_steps": self.n_steps}, indent=1)
        (self.folder / f"{self.state.global_step}.json").write_text(figures + "\n", encoding="utf-8")
        self.n_steps, self.orders = 0, []
        super().log(logs, *arguments)

    def read(self, what: str) -> dict[str, torch.Tensor]:
        """Data or gradients of all trained parameters, by name."""
        return {name: getattr(p, what).detach().clone() for name, p in self.model.named_parameters()}


def small(tensor: torch.Tensor) -> torch.Tensor:
    """A copy, with integers in 16 bits, which are enough for the token ids."""
    return tensor.detach().clone().contiguous().to(torch.int16 if tensor.dtype == torch.int64 else tensor.dtype)


def make_trainer(kind: type, folder: Path, work: Work, case: Case, output: str, **more: Any) -> Any:
    """TRL's trainer on the common models and prompts."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "reward", padding_side="left")
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(folder / f"{case.policy}-{role}") for role in ("policy", "reference")
    )
    reward, critic = (
        AutoModelForSequenceClassification.from_pretrained(folder / role, num_labels=1) for role in ("reward", "critic")
    )
    np.random.seed(1)  # PPOTrainer shuffles with it and does not seed it
    settings = {"total_episodes": work.n_prompts, "learning_rate": work.learning_rate, "bf16": False}
    return kind(
        PPOConfig(
            output_dir=output,
            per_device_train_batch_size=case.micro_batch_size,
            gradient_accumulation_steps=work.batch_size // case.micro_batch_size,
            num_mini_batches=case.num_mini_batches,
            local_rollout_forward_batch_size=work.batch_size,
            response_length=work.n_tokens,
            **settings | COMMON | case.settings | more,
            num_sample_generations=0,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            seed=1,
        ),
        tokenizer,
        policy,
        reference,
        reward,
        Dataset.from_list([{"input_ids": row["input_ids"]} for row in rows]),
        critic,
    )


if __name__ == "__main__":
    main()
