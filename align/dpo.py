"""DPO and related losses: train a policy on rankings directly, without a reward model or sampling.

    align dpo recipes/dpo.yaml

The baseline to PPO: the same SFT model, the same rankings, the same evaluation. The loss of a pair is
-log sigmoid(beta ((log pi - log pi_ref)(chosen) - (log pi - log pi_ref)(rejected))), Rafailov et al. 2023 (2305.18290),
equation 7. Two losses learn from single answers labelled good or bad (align/rl/unpaired.py). Loss and training loop
are TRL's `DPOTrainer` and `KTOTrainer`. Tokens, data order, optimizer, schedule and run folder are those of the other
stages (align/train/trainer.py).
"""

from __future__ import annotations

import copy
import importlib
import logging
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from align import sections
from align.config import DryRun, Section, parse_training
from align.errors import UserError, exit_on_user_error

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.text.rankings import Ranked
    from align.text.records import Ranking
    from align.train.plan import Describe, Described, Device

# TRL 1.16 has two more, aot and aot_unpaired. They sort the margins within a micro-batch, so train.micro_batch_tokens
# would change the results.
Loss = Literal[
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "kto",
    "apo_zero_unpaired",
]
UNPAIRED = ("kto", "apo_zero_unpaired")  # learn from single answers labelled good or bad: TRL's `KTOTrainer`
SMOOTHED = ("robust", "exo_pair")


class Dpo(Section):
    """The loss and its keys, as in TRL's DPOConfig."""

    beta: float = Field(0.1, gt=0)
    """Strength of the KL constraint to the reference (2305.18290: 0.1; for summaries 0.5); tau of IPO."""
    loss: Loss = "sigmoid"
    """sigmoid is DPO; hinge is SLiC (2305.10425); ipo is IPO (2310.12036), a mean over tokens in TRL; robust is DPO
    for labels that may be flipped (2403.00409); kto (2402.01306) and apo_zero_unpaired learn from single answers
    labelled good or bad, {prompt, completion, label}; the others are named as in TRL's DPOConfig, which has their
    papers."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """robust: the assumed share of flipped labels (its paper: 0.1); exo_pair: its epsilon (1e-3)."""

    desirable_weight: float = Field(1.0, gt=0)
    """kto, apo_zero_unpaired: weight of good answers. If the classes are unbalanced, bring the ratio of their total
    weights to between 1 and 4/3."""
    undesirable_weight: float = Field(1.0, gt=0)
    """kto, apo_zero_unpaired: weight of bad answers."""

    @property
    def is_paired(self) -> bool:
        return self.loss not in UNPAIRED

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        for name in ("desirable_weight", "undesirable_weight"):
            if self.is_paired and getattr(self, name) != 1:
                raise ValueError(f"dpo.{name} has no effect with dpo.loss: {self.loss}; remove it")
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise ValueError(
                f"dpo.label_smoothing = {self.label_smoothing} has no effect with dpo.loss: {self.loss}; remove it, or "
                f"choose {' or '.join(SMOOTHED)}"
            )
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("dpo.loss: exo_pair needs a dpo.label_smoothing above 0 (its paper: 0.001)")
        return self


class Recipe(sections.Run):
    """DPO. Defaults are those of its paper (2305.18290, appendix B), with AdamW in place of RMSprop."""

    model: sections.Model
    """The model that the policy starts from. It is also the reference."""
    data: sections.Data = sections.Data.defaults(too_long="drop")
    """Rankings. Every two answers of different rank are a pair."""
    dpo: Dpo = Dpo()
    optim: sections.Optim = sections.Optim(
        learning_rate=1e-6, batch_size=64, schedule="constant", warmup_steps=150, betas=(0.9, 0.999)
    )
    """batch_size counts pairs, or answers where they are not paired."""
    train: sections.Train = sections.Train.defaults(log_every=10)

    @model_validator(mode="after")
    def _dropout_is_off(self) -> Self:
        if self.model.lora.dropout:
            raise ValueError("model.lora.dropout has no effect: TRL's DPO keeps dropout off; remove it")
        return self


class Pair(NamedTuple):
    """Two answers to one prompt as tokens, both ending in EOS."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def ids(self) -> list[int]:
        """All tokens that the pair takes in a step, for counting."""
        return [*self.prompt_ids, *self.chosen_ids, *self.prompt_ids, *self.rejected_ids]

    @property
    def longest(self) -> int:
        """Tokens of the longer of its two sequences."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def main() -> None:
    """Parses the command line and trains."""
    recipe, dry_run = parse_training(Recipe, "dpo")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: DryRun | bool = False) -> None:
    """Trains into `recipe.output`. `dry_run` only prints the plan and its memory estimate."""
    from align.models.load import base_dtype, load_causal_lm, load_config
    from align.models.lora import shares
    from align.models.save import save_language_model, write_card
    from align.text.tokenizer import rows_needed
    from align.train.inputs import tokenizer_of
    from align.train.machine import accelerator as make_accelerator
    from align.train.plan import check_memory, fitted, print_plan, requested_shape
    from align.train.run import Run

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # TRL imports it, and it warns about missing kernels
    importlib.import_module("align.train.trainer")  # imports TRL now, so its memory counts as a library's
    if (shape := requested_shape(dry_run)) is not None:
        recipe = fitted(recipe, shape)
        print_plan(recipe, plan(shape, recipe.data.max_tokens), {}, dry_run)
        return
    tokenizer = tokenizer_of(recipe)
    config = load_config(recipe.model, to="generate")
    recipe = fitted(recipe, config)
    training, validation = read(recipe, tokenizer)
    memory = plan(config, max(row.longest for row in [*training, *validation]))
    if dry_run:
        print_plan(recipe, memory, {"training": training, "validation": validation}, dry_run)
        return
    check_memory(recipe, memory)
    accelerator = make_accelerator(recipe.train.precision)
    with Run(recipe, "dpo", accelerator) as folder:
        dtype = base_dtype(recipe.model, accelerator.mixed_precision)
        model = load_causal_lm(recipe.model, dtype, rows_needed(tokenizer))
        reach = shares(model).lines(recipe.model.quantization)
        folder.say(*reach)
        figures = train(recipe, model, tokenizer, training, validation, folder, accelerator)
        if folder.writes:
            save_language_model(model, recipe.model, tokenizer, folder.folder, save_dtype=recipe.train.save_dtype)
            write_card(folder.folder, "dpo", recipe, figures, "\n".join([*reach, ""]))
        folder.finish(figures)


def plan(config: PretrainedConfig, longest: int) -> Describe:
    """This run for the memory estimate: a trained policy and a frozen reference.

    `longest` is the longest sequence in tokens. A pair is two sequences.
    """
    from align.models.memory import Role, Workload
    from align.train.plan import shared_workload, with_adapter

    def describe(recipe: Recipe, device: Device) -> Described:
        rows = (1 + recipe.dpo.is_paired) * pairs_at_once(recipe, longest, int(os.environ.get("WORLD_SIZE", 1)))
        precision = device.precision(recipe.train.precision)
        roles = with_adapter("policy", config, recipe.model, precision, "vocabulary", ("update",))
        base = roles[0]  # with LoRA the reference is this model without its adapter
        kind: Literal["shared", "frozen"] = "shared" if recipe.model.adapter == "lora" else "frozen"
        below: dict[str, Any] = {"dtype": base.dtype, "quantization": base.quantization} if kind == "shared" else {}
        return [*roles, Role("reference", config, kind, ("score",), **below)], Workload(
            rows=rows,
            length=longest,
            n_scored=rows * (longest - 1),
            loss="preference",
            **shared_workload(recipe, recipe.model, device),
        )

    return describe


def train(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    training: list[Any],
    validation: list[Any],
    run: Any,
    accelerator: Any,
) -> dict[str, float]:
    """Runs TRL's trainer for the steps that `run` yields. Returns the figures of the last validation."""
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import PrinterCallback

    from align.models.adapters import trunk_prefix
    from align.rl.unpaired import with_mismatched
    from align.text.batches import rows_of_step, steps_in
    from align.train.optim import build_optimizer, learning_rate
    from align.train.state import Trainable
    from align.train.trainer import InRun, PreferenceTrainer, UnpairedTrainer

    optim = recipe.optim
    n_steps = recipe.train.steps or steps_in(recipe.train.epochs or 1, len(training), optim.batch_size)
    if recipe.model.quantization == "none":  # bitsandbytes has already placed its model
        model.to(accelerator.device)
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    if plain.base_model is plain:  # TRL finds the trunk by the class's name for it, which is wrong for Llama 4
        plain.base_model_prefix = trunk_prefix(plain).rstrip(".")
    reference = None if recipe.model.adapter == "lora" else copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = build_optimizer(optim, model)
    parts = {"model": Trainable(model), "optimizer": optimizer}
    first = run.restore(parts)
    schedule = LambdaLR(optimizer, lambda step: learning_rate(optim, first + step, n_steps) / optim.learning_rate)
    by_step = [
        [training[i] for i in rows_of_step(step, len(training), optim.batch_size, recipe.seed)]
        for step in range(first + 1, n_steps + 1)
    ]
    rows = [row for step in by_step for row in (step if recipe.dpo.is_paired else with_mismatched(step))]
    eval_every = (recipe.train.eval_every or max(1, n_steps // 10)) if validation else None
    steps = run.steps(first, n_steps, parts)
    in_run = InRun(run, steps, first, n_steps, recipe.train.log_every, eval_every)
    held_out = validation[: recipe.train.eval_rows]
    longest = max(pair.longest for pair in training + held_out)
    n_pairs = pairs_at_once(recipe, longest, accelerator.num_processes)
    if held_out and not recipe.dpo.is_paired:
        held_out = with_mismatched(held_out)
    trained = {name: value.clone() for name, value in Trainable(model).state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # meant for TRL, not for the user
        trainer = (PreferenceTrainer if recipe.dpo.is_paired else UnpairedTrainer)(
            model,
            reference,
            trl_settings(
                recipe, n_steps - first, n_pairs, even_batch(n_pairs, len(held_out), accelerator), accelerator
            ),
            train_dataset=as_dataset(rows),
            eval_dataset=as_dataset(held_out) if held_out else None,
            processing_class=copy.deepcopy(tokenizer),  # TRL adds a pad token to it; attention masks hide it
            callbacks=[in_run],
            optimizers=(optimizer, schedule),
        )
        trainer.remove_callback(PrinterCallback)
        check_log_probs(model)
        if reference is None:
            adapter_alone(model, trained)
        trainer.train()
    return in_run.validation


def check_log_probs(model: Any) -> None:
    """Raises `UserError` if TRL's log probabilities are not the model's.

    TRL multiplies the trunk's states by the head's matrix itself. It skips anything that a class does in between, as
    BERT's heads do.
    """
    import torch

    from align.models.language import rounding, token_logprobs
    from align.models.merging import answer, probe

    ids, plain = probe(model), model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.no_grad():
        logits = answer(plain, ids)[:, :-1].float()
        expected = token_logprobs(logits.flatten(0, 1), ids[:, 1:].flatten()).view(len(ids), -1)
        try:
            found = plain(input_ids=ids, labels=ids, fused_lm_head=True).log_probs[:, -expected.shape[1] :]
            gap = float((found - expected).abs().mean())
        except (AttributeError, RuntimeError):  # the head is not one matrix, or TRL does not find the trunk
            gap = float("inf")
    if not gap <= rounding(model) * float(logits.std()):
        raise UserError(
            f"model.path: TRL cannot compute the log probabilities of a {type(plain).__name__} ({gap:.3g} nats "
            "apart), so DPO cannot train it; use ppo or another model"
        )


def adapter_alone(model: Any, trained: dict[str, Any]) -> None:
    """Undoes two changes that TRL makes to a model with a LoRA adapter.

    TRL copies the adapter as the reference. Our adapter is new, so the reference is the base without an adapter; TRL
    computes that if there is no copy. TRL also rounds an adapter on a quantised base to bf16; ours is trained in fp32.
    """
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.data = trained[name].to(parameter.device)
        parameter.requires_grad_(name in trained)


def trl_settings(recipe: Recipe, n_steps: int, n_pairs: int, n_eval_pairs: int, accelerator: Any) -> Any:
    """The recipe as TRL's arguments. Logging, saving and reporting are off, because `Run` does them."""
    from trl import DPOConfig, KTOConfig

    is_cpu = accelerator.device.type == "cpu"
    dpo, weights = recipe.dpo, ("desirable_weight", "undesirable_weight")
    own: dict[str, Any] = {"loss_type": [dpo.loss], "label_smoothing": dpo.label_smoothing}
    if not dpo.is_paired:
        own = {"loss_type": dpo.loss, **{name: getattr(dpo, name) for name in weights}}
    return (DPOConfig if dpo.is_paired else KTOConfig)(
        output_dir=recipe.output,
        beta=dpo.beta,
        **own,
        router_aux_loss_coef=0.0,  # routers are balanced in pretraining; TRL would read keys that some models lack
        max_length=None,  # rows are short enough already, and an answer's EOS must not be cut
        max_steps=n_steps,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=n_pairs,
        per_device_eval_batch_size=n_eval_pairs,
        gradient_accumulation_steps=recipe.optim.batch_size // accelerator.num_processes // n_pairs,
        max_grad_norm=recipe.optim.max_grad_norm,
        gradient_checkpointing=recipe.train.gradient_checkpointing,
        bf16=accelerator.mixed_precision == "bf16",
        use_cpu=is_cpu,
        dataloader_pin_memory=not is_cpu,
        seed=recipe.seed,
        logging_nan_inf_filter=False,  # a NaN loss stops the run
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
        log_level="error",
    )


def pairs_at_once(recipe: Recipe, longest: int, n_processes: int) -> int:
    """Pairs in a micro-batch: as many of the longest pairs as fit in `train.micro_batch_tokens`.

    It divides each process's share of a step, so all micro-batches have one size and the mean of their means is the
    mean over the step. Raises `UserError` if the processes cannot share a step evenly.
    """
    if recipe.optim.batch_size % n_processes:
        raise UserError(
            f"optim.batch_size = {recipe.optim.batch_size}: not divisible by {n_processes} processes; give a "
            f"multiple of {n_processes}"
        )
    share = recipe.optim.batch_size // n_processes
    room = recipe.train.micro_batch_tokens // ((1 + recipe.dpo.is_paired) * longest)
    if recipe.dpo.loss == "kto" and share < 2:
        raise UserError("optim.batch_size: kto estimates its KL as a mean over a step's answers; give 2 or more")
    if recipe.dpo.loss == "kto" and room < share:
        raise UserError(
            f"train.micro_batch_tokens = {recipe.train.micro_batch_tokens}: kto estimates its KL as a mean over the "
            f"answers of a step, so all {share} must be in one micro-batch; give {share * longest}, a smaller "
            "optim.batch_size, or dpo.loss=apo_zero_unpaired, which has no such mean"
        )
    return max(n for n in range(1, share + 1) if share % n == 0 and n <= max(room, 1))


def even_batch(most: int, n_pairs: int, accelerator: Any) -> int:
    """Pairs in a validation batch: at most `most`, and all batches of one size.

    TRL reports the mean of its batches' means. With equal batches that is the mean over pairs.
    """
    n = accelerator.num_processes
    return max(size for size in range(1, most + 1) if size == 1 or n_pairs % (size * n) == 0)


def as_dataset(rows: Sequence[Any]) -> Any:
    """Pairs or answers as a data set with the columns of TRL's collator."""
    from datasets import Dataset

    return Dataset.from_dict({name: [getattr(row, name) for row in rows] for name in rows[0]._fields})


def read(recipe: Recipe, tokenizer: Any) -> tuple[list[Any], list[Any]]:
    """Training and validation rows as tokens: `Pair`s, or `LabelledAnswer`s for a loss on single answers."""
    from align.rl.unpaired import encode_unpaired
    from align.text.load import load
    from align.train.parallel import say

    if recipe.dpo.is_paired:
        rankings = load(recipe.data, "rankings", recipe.seed)
        say(*rankings.report.lines())
        pairs = encode(recipe, tokenizer, rankings.train, "training")
        return pairs, encode(recipe, tokenizer, rankings.validation, "validation")
    answers = load(recipe.data, "answers", recipe.seed)
    say(*answers.report.lines())
    marked = encode_unpaired(recipe.data, tokenizer, answers.train, "training")
    return marked, encode_unpaired(recipe.data, tokenizer, answers.validation, "validation")


def encode(recipe: Recipe, tokenizer: Any, rankings: list[Ranking], what: str) -> list[Pair]:
    """Encodes rankings as pairs. Raises `UserError` if no pair is left."""
    from align.rl.ranking import encoded
    from align.train.parallel import say

    rows = encoded(tokenizer, rankings, recipe.data)
    pairs = [pair for row in rows for pair in pairs_of_row(row, row.n_prompt)]
    if rankings and not pairs:
        raise UserError(
            f"data.path: {len(rankings)} {what} rankings leave no pair, because answers of different rank have the "
            f"same tokens; give other answers, or raise data.max_tokens = {recipe.data.max_tokens} if it cut them"
        )
    if rankings:
        say(f"{what}: {len(pairs):,} pairs of different rank from {len(rows):,} rankings")
    return pairs


def pairs_of_row(row: Ranked, n_prompt: int) -> list[Pair]:
    """Every two answers of different rank, the better one first. Pairs of equal tokens are left out."""
    from align.rl.losses import pairs_of

    found = pairs_of([row.ranks])
    prompt = row.answers[0][:n_prompt]
    answers = [answer[n_prompt:] for answer in row.answers]
    both = zip(found.better, found.worse, strict=True)
    return [Pair(prompt, answers[i], answers[j]) for i, j in both if answers[i] != answers[j]]


if __name__ == "__main__":
    exit_on_user_error(main)
