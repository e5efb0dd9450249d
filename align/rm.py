"""Reward model: learns a scalar score from human rankings (InstructGPT step 2, 2203.02155).

    align rm recipes/rm.yaml

A scalar head on the SFT model or any causal model; an existing reward model is trained further with its own head.
All pairs of a prompt's K answers are one example, weighted 1/C(K, 2), and each answer goes through the model once. The
score is read at EOS. At the end scores are shifted to mean 0 on demonstrations, or normalised on samples. Several
heads on one trunk are an ensemble.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from align import sections
from align.config import DryRun, parse_training
from align.errors import UserError, exit_on_user_error
from align.rewards.normalize import Samples, normalize
from align.rl.ranking import Loss, check_loss, encoded, margins_of, objective
from align.text.rankings import Ranked, padded_size

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from align.models.scalar import ScalarModel
    from align.text.records import Ranking


class Recipe(sections.Run):
    """Reward modelling. Defaults are InstructGPT's (appendix C.2): one epoch, 9e-6, 64 prompts, cosine to 10%."""

    model: sections.Model
    data: sections.Data = sections.Data.defaults(too_long="drop")
    loss: Loss = Loss()
    heads: int = Field(1, gt=0)
    """Heads on the trunk. Several are an ensemble: each has its own random start and its own bootstrap of prompts."""
    normalize: Literal["demonstrations", "samples", "none"] = "demonstrations"
    """Shift scores to mean 0 on demonstrations (InstructGPT, section 3.5); or to mean 0 and variance 1 on the
    policy's samples (lm-human-preferences, which also does so before training); or leave them (none)."""
    demonstrations: str | None = None
    """Conversations on which scores get mean 0. By default the preferred training answers."""
    samples: Samples = Samples()
    optim: sections.Optim = sections.Optim(learning_rate=9e-6, batch_size=64)
    train: sections.Train = sections.Train.defaults(log_every=10)

    @model_validator(mode="after")
    def _normalizes_by_what_is_given(self) -> Self:
        if self.demonstrations is not None and self.normalize != "demonstrations":
            raise ValueError(f"demonstrations has no effect with normalize: {self.normalize}; remove one of them")
        if self.samples != Samples() and self.normalize != "samples":
            raise ValueError(f"samples has no effect with normalize: {self.normalize}; remove it or set samples")
        return self


def main() -> None:
    """Parses the command line and trains."""
    recipe, dry_run = parse_training(Recipe, "rm")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: DryRun | bool = False) -> None:
    """Trains into `recipe.output`. `dry_run` only prints the plan and its memory estimate."""
    from align.models.load import base_dtype, load_config, load_trunk
    from align.models.lora import shares
    from align.models.save import save_reward_model
    from align.models.scalar import ScalarModel, load_scalar_model
    from align.report.reward_card import write_readme
    from align.stats.agreement import annotators
    from align.text.load import load
    from align.text.tokenizer import rows_needed
    from align.train.inputs import tokenizer_of
    from align.train.machine import accelerator as make_accelerator
    from align.train.parallel import say
    from align.train.plan import Sizes, check_memory, fitted, plan_of_one_model, print_plan, requested_shape
    from align.train.run import Run

    if (shape := requested_shape(dry_run)) is not None:
        recipe = fitted(recipe, shape)
        pairs = Sizes(recipe.data.max_tokens, 1, rows=2)
        print_plan(recipe, plan_of_one_model(shape, pairs, "scalar", recipe.heads), {}, dry_run)
        return
    tokenizer = tokenizer_of(recipe)
    config = load_config(recipe.model)
    recipe = fitted(recipe, config)
    continues = check_start(recipe, config)
    rankings = load(recipe.data, "rankings", recipe.seed)
    say(*rankings.report.lines())
    check_loss(recipe.loss, rankings.train)
    training = encode(recipe, tokenizer, rankings.train)
    validation = encode(recipe, tokenizer, rankings.validation)
    longest = max((len(ids) for row in (*training, *validation) for ids in row.answers), default=1)
    most = max((len(row.answers) for row in (*training, *validation)), default=1)
    roles = plan_of_one_model(config, Sizes(longest, 1, most), "scalar", recipe.heads)
    if dry_run:
        print_plan(recipe, roles, {"training": training, "validation": validation}, dry_run)
        return
    check_memory(recipe, roles)
    accelerator = make_accelerator(recipe.train.precision)
    with Run(recipe, "rm", accelerator) as folder:
        dtype = base_dtype(recipe.model, accelerator.mixed_precision)
        if continues:
            model = load_scalar_model(recipe.model, dtype, rows_needed(tokenizer))
        else:
            model = ScalarModel(load_trunk(recipe.model, dtype, rows_needed(tokenizer)), recipe.heads)
        reach = shares(model).lines(recipe.model.quantization)
        folder.say(*reach)
        initial = model.head.weight.detach().clone()
        figures = train(recipe, model, training, validation, folder, accelerator)
        figures |= annotators(validation)
        figures |= normalize(recipe, model, tokenizer, training, accelerator)
        card = make_card(recipe, model, validation, accelerator, folder.folder if folder.writes else None)
        figures |= {"ece": card["calibration"]["ece"]} if card else {}
        if folder.writes:
            dtype_kept = recipe.train.save_dtype
            note = save_reward_model(model, recipe.model, tokenizer, folder.folder, initial, dtype_kept)
            write_readme(folder.folder, recipe, figures, card, note, reach)
        folder.finish(figures)


def check_start(recipe: Recipe, config: PretrainedConfig) -> bool:
    """Whether training starts from a reward model. Raises `UserError` for a value model or another number of heads."""
    from align.models.purpose import adapter_settings, check_purpose, head_role, is_classifier
    from align.models.scalar import n_heads

    path = recipe.model.path
    scores = str(adapter_settings(path).get("task_type")).endswith("_CLS")  # an adapter of a classifier is refused
    if not (scores or head_role(path) or is_classifier(path, config)):
        return False
    check_purpose(path, config, "reward", "model.path")
    if (found := n_heads(path)) != recipe.heads:
        raise UserError(
            f"heads = {recipe.heads}: the reward model at model.path = {path!r} has {found}; set heads={found}"
        )
    return True


def train(
    recipe: Recipe, model: ScalarModel, training: list[Ranked], validation: list[Ranked], run: Any, accelerator: Any
) -> dict[str, float]:
    """The training loop. Returns the figures of the last validation."""
    from align.models.scalar import score_batch
    from align.text.batches import micro_batches, rows_of_step, steps_in
    from align.train.optim import build_optimizer, learning_rate, set_learning_rate
    from align.train.parallel import my_share, synced_at_last, total
    from align.train.state import Trainable

    if recipe.train.gradient_checkpointing:
        model.trunk.gradient_checkpointing_enable()
    n_steps = recipe.train.steps or steps_in(recipe.train.epochs or 1, len(training), recipe.optim.batch_size)
    eval_every = recipe.train.eval_every or max(1, n_steps // 10)
    optimizer = build_optimizer(recipe.optim, model)
    scorer, optimizer = accelerator.prepare(model, optimizer)
    parts = {"model": Trainable(model), "optimizer": optimizer}
    first = run.restore(parts)
    figures: dict[str, float] = {}
    since, n_seen = time.monotonic(), 0
    for step in run.steps(first, n_steps, parts):
        rate = learning_rate(recipe.optim, step - 1, n_steps)
        set_learning_rate(optimizer, rate)
        rows = [training[i] for i in rows_of_step(step, len(training), recipe.optim.batch_size, recipe.seed)]
        mine = my_share(rows, accelerator)
        micros = micro_batches([padded_size(row) for row in mine], recipe.train.micro_batch_tokens)
        loss_sum: Any = 0.0
        n_right: Any = 0
        n_pairs = 0
        scorer.train()
        for micro in synced_at_last(accelerator, scorer, micros):
            ranked = [mine[i] for i in micro]
            scores = score_batch(scorer, [answer for row in ranked for answer in row.answers], accelerator.device)
            loss = objective(recipe.loss, recipe.seed, scores, ranked)
            accelerator.backward(loss * accelerator.num_processes / len(rows))
            margins = margins_of(recipe.loss, scores.detach(), ranked)
            loss_sum, n_right = loss_sum + loss.detach(), n_right + (margins > 0).sum()
            n_pairs += len(margins)
        grad_norm = accelerator.clip_grad_norm_(scorer.parameters(), recipe.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        n_seen += sum(len(answer) for row in rows for answer in row.answers)

        validates = run.is_time(step, n_steps, eval_every)
        if validates:
            figures = validate(recipe, scorer, validation, accelerator, full=step == n_steps)
        if validates or run.is_time(step, n_steps, recipe.train.log_every):
            sums = total(accelerator, loss_sum, n_right, n_pairs)
            values = {"loss/train": sums[0] / len(rows), "accuracy/train": sums[1] / max(sums[2], 1), "lr": rate}
            values |= {"grad_norm": grad_norm, "tokens_per_s": n_seen / (time.monotonic() - since)}
            run.log(step, values | (figures if validates else {}))
            since, n_seen = time.monotonic(), 0
    return figures


def validate(recipe: Recipe, scorer: Any, rows: list[Ranked], accelerator: Any, full: bool) -> dict[str, float]:
    """Held-out loss, pair accuracy with its 95% interval (bootstrap over prompts), mean margin."""
    import torch

    from align.models.scalar import score_all
    from align.stats.agreement import accuracy_by_prompt
    from align.stats.bootstrap import bootstrap_mean

    rows = rows if full else rows[: recipe.train.eval_rows]
    if not rows:
        return {}
    answers = [answer for row in rows for answer in row.answers]
    scores = torch.tensor(score_all(scorer, answers, recipe.train.micro_batch_tokens, accelerator.device))
    figures = {"loss/validation": float(objective(recipe.loss, recipe.seed, scores, rows)) / len(rows)}
    right = accuracy_by_prompt(rows, scores.tolist())
    if not right:  # only ties
        return figures
    accuracy = bootstrap_mean(right)
    figures["margin/validation"] = float(margins_of(recipe.loss, scores, rows).mean())
    figures["accuracy/validation"] = accuracy.mean
    return figures | ({"accuracy/low": accuracy.low, "accuracy/high": accuracy.high} if full else {})


def make_card(
    recipe: Recipe, model: ScalarModel, rows: list[Ranked], accelerator: Any, folder: Path | None
) -> dict[str, Any]:
    """The reward card on held-out rankings, for the model as it will be saved. Writes card.json and a plot."""
    from align.models.scalar import score_members
    from align.report.reward_card import reward_card, write_reward_card

    answers = [answer for row in rows for answer in row.answers]
    members = score_members(model, answers, recipe.train.micro_batch_tokens, accelerator.device)
    card = reward_card(rows, members, model.scale.reshape(-1).tolist())
    if folder is not None:
        write_reward_card(folder, card, members, rows)
    return card


def encode(recipe: Recipe, tokenizer: Any, rankings: list[Ranking]) -> list[Ranked]:
    """Encodes rankings. Rankings that are all ties are kept only if the loss uses ties."""
    return encoded(tokenizer, rankings, recipe.data, keep_tied=recipe.loss.ties == "half")


if __name__ == "__main__":
    exit_on_user_error(main)
