"""Pretraining: trains a GPT on documents. The later stages align this base model.

    align pretrain recipes/pretrain.yaml

GPT-2's shape (Radford et al. 2019) trained as GPT-3 was (2005.14165, appendix B): documents packed end to end with EOS
between them and no mask across, AdamW (0.9, 0.95), weight decay 0.1, gradients clipped at 1, warm-up, cosine to 10%.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from align import sections
from align.config import DryRun, Section, parse_training, to_yaml
from align.errors import UserError, exit_on_user_error
from align.prepare import Shards, Tokenizer, is_prepared, read_shards, write_shards

if TYPE_CHECKING:
    from torch import Tensor


Preset = Literal[
    "demo",
    "small",
    "gpt2",
    "gpt2-medium",
    "gpt2-large",
    "gpt2-xl",
    "gpt3-small",
    "gpt3-medium",
    "gpt3-large",
    "gpt3-xl",
    "gpt3-2.7b",
    "gpt3-6.7b",
    "gpt3-13b",
    "gpt3-175b",
]


class Shape(Section):
    """The model to train: a preset, with any of its sizes changed."""

    preset: Preset = "small"
    """A shape of align/gpt/presets.py."""
    n_layer: int | None = Field(None, gt=0)
    """Transformer blocks."""
    n_head: int | None = Field(None, gt=0)
    """Attention heads; divides n_embd."""
    n_embd: int | None = Field(None, gt=0)
    """Width."""
    n_positions: int | None = Field(None, gt=1)
    """Longest sequence."""
    path: str | None = None
    """A model of ours to train further, instead of a new one."""


class Recipe(sections.Run):
    """Pretraining."""

    data: sections.Data = sections.Data.defaults(validation=0.01)
    tokenizer: Tokenizer = Tokenizer()
    model: Shape = Shape()
    optim: sections.Optim = sections.Optim(learning_rate=6e-4, batch_size=64, weight_decay=0.1, warmup_steps=100)
    train: sections.Train = sections.Train.defaults(log_every=10)

    @model_validator(mode="after")
    def _validates(self) -> Self:
        if not self.data.validation and not is_prepared(self.data.path):
            raise ValueError("data.validation: pretraining needs validation documents; give a fraction such as 0.01")
        return self


def main() -> None:
    """Parses the command line and trains."""
    recipe, dry_run = parse_training(Recipe, "pretrain")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: DryRun | bool = False) -> None:
    """Pretrains into `recipe.output`. `dry_run` only prints the plan and its memory estimate."""
    from align.models.save import save_language_model, write_card
    from align.text.tokenizer import rows_needed
    from align.train.machine import accelerator as make_accelerator
    from align.train.plan import check_memory
    from align.train.run import Run

    if dry_run:
        plan(recipe, dry_run)
        return
    accelerator = make_accelerator(recipe.train.precision)
    with Run(recipe, "pretrain", accelerator) as folder:
        with accelerator.main_process_first():
            shards = prepared(recipe, folder.folder)
        folder.say(f"{len(shards.train):,} training tokens, {len(shards.validation):,} for validation")
        tokenizer = load_tokenizer_of(shards)
        check_memory(recipe, packed(shape_to_train(recipe, rows_needed(tokenizer))))
        figures, model = train(recipe, new_model(recipe, tokenizer), shards, folder, accelerator)
        if folder.writes:
            start = sections.Model(path=recipe.model.path) if recipe.model.path else None
            save_language_model(model, start, tokenizer, folder.folder, save_dtype=recipe.train.save_dtype)
            write_card(folder.folder, "pretrain", recipe, figures)
        folder.finish(figures)


def train(recipe: Recipe, model: Any, shards: Shards, run: Any, accelerator: Any) -> tuple[dict[str, float], Any]:
    """The loop over rows of packed tokens: each token is predicted once a pass. Returns last figures and the model."""
    import torch.nn.functional as F

    from align.models.language import LanguageModel
    from align.text.batches import rows_of_step, steps_in
    from align.train.optim import build_optimizer, learning_rate, set_learning_rate
    from align.train.parallel import my_share, synced_at_last, total
    from align.train.state import Trainable

    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    width = model.config.n_positions
    n_rows = (len(shards.train) - 1) // (width - 1)
    if n_rows < 1:
        raise UserError(f"data.path: {len(shards.train)} tokens do not fill one row of {width}; give more text")
    n_steps = recipe.train.steps or steps_in(recipe.train.epochs or 1, n_rows, recipe.optim.batch_size)
    eval_every = recipe.train.eval_every or max(1, n_steps // 10)
    rows_at_once = max(1, recipe.train.micro_batch_tokens // width)

    lm = LanguageModel(model)
    optimizer = build_optimizer(recipe.optim, lm)
    lm, optimizer = accelerator.prepare(lm, optimizer)
    parts = {"model": Trainable(model), "optimizer": optimizer}
    first = run.restore(parts)
    figures: dict[str, float] = {}
    since, n_seen = time.monotonic(), 0
    for step in run.steps(first, n_steps, parts):
        rate = learning_rate(recipe.optim, step - 1, n_steps)
        set_learning_rate(optimizer, rate)
        rows = rows_of_step(step, n_rows, recipe.optim.batch_size, recipe.seed)
        n_targets = len(rows) * (width - 1)
        mine = my_share(rows, accelerator)
        loss_sum: Any = 0.0
        micros = [mine[i : i + rows_at_once] for i in range(0, len(mine), rows_at_once)]
        lm.train()
        for micro in synced_at_last(accelerator, lm, micros):
            ids = windows(shards.train, micro, width).to(accelerator.device)
            logits = lm(ids, all_but_first(ids))
            nll = F.cross_entropy(logits.float(), ids[:, 1:].flatten(), reduction="sum")
            accelerator.backward(nll * accelerator.num_processes / n_targets)
            loss_sum += nll.detach()
        grad_norm = accelerator.clip_grad_norm_(lm.parameters(), recipe.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        n_seen += n_targets

        validates = run.is_time(step, n_steps, eval_every)
        if validates:
            figures = validate(lm, shards, width, rows_at_once, recipe.train.eval_rows, accelerator)
        if validates or run.is_time(step, n_steps, recipe.train.log_every):
            values = {"loss/train": total(accelerator, loss_sum)[0] / n_targets, "lr": rate, "grad_norm": grad_norm}
            values["tokens_per_s"] = n_seen / (time.monotonic() - since)
            run.log(step, values | (figures if validates else {}))
            since, n_seen = time.monotonic(), 0
    return figures, model


def validate(lm: Any, shards: Shards, width: int, rows_at_once: int, n_rows: int, accelerator: Any) -> dict[str, float]:
    """Validation loss in nats per token and in bits per byte, on the first `n_rows` rows of the validation text."""
    import torch
    import torch.nn.functional as F

    n_rows = max(1, min(n_rows, (len(shards.validation) - 1) // (width - 1)))
    width = min(width, len(shards.validation))
    loss_sum = torch.zeros((), device=accelerator.device)
    lm.eval()
    with torch.no_grad():
        for start in range(0, n_rows, rows_at_once):
            ids = windows(shards.validation, range(start, min(start + rows_at_once, n_rows)), width)
            ids = ids.to(accelerator.device)
            loss_sum += F.cross_entropy(lm(ids, all_but_first(ids)).float(), ids[:, 1:].flatten(), reduction="sum")
    loss = float(loss_sum) / (n_rows * (width - 1))
    bytes_per_token = shards.validation_bytes / len(shards.validation)
    return {"loss/validation": loss, "bits_per_byte": loss / math.log(2) / bytes_per_token}


def windows(tokens: Any, rows: Any, width: int) -> Tensor:
    """Rows of packed tokens, (len(rows), width). Neighbouring rows share one token, so each token is predicted once."""
    import numpy as np
    import torch

    starts = np.asarray(list(rows))[:, None] * (width - 1)
    return torch.from_numpy(tokens[starts + np.arange(width)].astype(np.int64))


def all_but_first(ids: Tensor) -> Tensor:
    """The targets of packed rows: every token but the first of its row."""
    import torch

    is_target = torch.ones_like(ids, dtype=torch.bool)
    is_target[:, 0] = False
    return is_target


def prepared(recipe: Recipe, folder: Path) -> Shards:
    """The token shards of the recipe. Documents are tokenised into the run's tokens/."""
    if is_prepared(recipe.data.path):
        return read_shards(str(recipe.data.path))
    if is_prepared(str(folder / "tokens")):  # by an interrupted run or by the first process
        return read_shards(folder / "tokens")
    from align.text.load import load
    from align.train.parallel import say

    documents = load(recipe.data, "documents", recipe.seed)
    say(*documents.report.lines())
    return write_shards(documents.train, documents.validation, recipe.tokenizer, folder / "tokens")


def load_tokenizer_of(shards: Shards) -> Any:
    """The tokenizer that wrote the shards."""
    from align.text.tokenizer import load_tokenizer

    return load_tokenizer(shards.tokenizer_path)


def new_model(recipe: Recipe, tokenizer: Any) -> Any:
    """A new GPT of the recipe's shape, or the model that the recipe continues."""
    from align.gpt import GPTForCausalLM
    from align.text.tokenizer import rows_needed

    if recipe.model.path is not None:
        from align.models.load import load_causal_lm

        return load_causal_lm(sections.Model(path=recipe.model.path), n_tokens=rows_needed(tokenizer))
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return GPTForCausalLM(configuration(recipe, rows_needed(tokenizer), **special))


def configuration(recipe: Recipe, vocab_size: int, **special: int) -> Any:
    """The preset with the recipe's changes. Raises `UserError` if the sizes do not fit together."""
    from align.gpt import PRESETS, GPTConfig

    changed = recipe.model.model_dump(exclude={"preset", "path"}, exclude_none=True)
    try:
        return GPTConfig(**{**PRESETS[recipe.model.preset], **changed, **special, "vocab_size": vocab_size})
    except ValueError as error:
        raise UserError(f"model: {error}") from None


def plan(recipe: Recipe, dry_run: DryRun | bool) -> None:
    """Prints the dry run. If the tokenizer is not trained yet, a token is taken to be 4 bytes."""
    from align.text.load import load
    from align.text.tokenizer import rows_needed
    from align.train.plan import print_memory, requested_shape

    print(to_yaml(recipe))
    if (shape := requested_shape(dry_run)) is not None:
        print_memory(recipe, packed(shape), dry_run)
        return
    vocab_size = recipe.tokenizer.vocab_size
    if is_prepared(recipe.data.path):
        shards = read_shards(str(recipe.data.path))
        vocab_size = rows_needed(load_tokenizer_of(shards))
        print(f"{len(shards.train):,} training tokens, {len(shards.validation):,} for validation")
    else:
        documents = load(recipe.data, "documents", recipe.seed)
        n_bytes = sum(len(document.text.encode()) for document in documents.train)
        print(*documents.report.lines(), f"{n_bytes:,} bytes of training text, about {n_bytes // 4:,} tokens", sep="\n")
    print_memory(recipe, packed(shape_to_train(recipe, vocab_size)), dry_run)


def shape_to_train(recipe: Recipe, vocab_size: int) -> Any:
    """The configuration of the new model, or of the model that the recipe continues."""
    from align.models.load import load_config

    path = recipe.model.path
    return load_config(sections.Model(path=path), to="generate") if path else configuration(recipe, vocab_size)


def packed(config: Any) -> Any:
    """This run for the memory estimate: full-length rows, every token a target."""
    from align.train.plan import Sizes, plan_of_one_model

    return plan_of_one_model(config, Sizes(config.n_positions, config.n_positions - 1), "vocabulary")


if __name__ == "__main__":
    exit_on_user_error(main)
