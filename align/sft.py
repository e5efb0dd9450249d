"""Supervised fine-tuning (SFT): trains a model on demonstrations (InstructGPT step 1, 2203.02155).

    align sft recipes/sft.yaml

Works with any causal language model and any conversation format. Only the assistant's messages are targets. The loss
is the mean over all target tokens of a step, whatever the micro-batches.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from align import sections
from align.config import DryRun, parse_training
from align.errors import exit_on_user_error
from align.text.records import last_question

if TYPE_CHECKING:
    from align.text.encode import Encoded
    from align.text.records import Conversation


class Recipe(sections.Run):
    """Supervised fine-tuning. Defaults are InstructGPT's (appendix C.1), who trained for 16 epochs."""

    model: sections.Model
    data: sections.Data
    targets: Literal["assistant", "last"] = "assistant"
    """Messages to train on: all of the assistant's, or only its last."""
    optim: sections.Optim = sections.Optim(learning_rate=9.65e-6, batch_size=32)
    train: sections.Train = sections.Train.defaults(log_every=10)
    samples: int = Field(3, ge=0)
    """Validation prompts to answer at each validation; the answers go to samples.jsonl."""


def main() -> None:
    """Parses the command line and trains."""
    recipe, dry_run = parse_training(Recipe, "sft")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: DryRun | bool = False) -> None:
    """Fine-tunes into `recipe.output`. `dry_run` only prints the plan and its memory estimate."""
    from align.models.load import base_dtype, load_causal_lm, load_config
    from align.models.lora import shares
    from align.models.save import save_language_model, write_card
    from align.text.load import load
    from align.text.tokenizer import rows_needed
    from align.train.inputs import tokenizer_of
    from align.train.machine import accelerator as make_accelerator
    from align.train.parallel import say
    from align.train.plan import Sizes, check_memory, fitted, plan_of_one_model, print_plan, requested_shape
    from align.train.run import Run

    if (shape := requested_shape(dry_run)) is not None:
        recipe = fitted(recipe, shape)
        sizes = Sizes(recipe.data.max_tokens, recipe.data.max_tokens - 1)
        print_plan(recipe, plan_of_one_model(shape, sizes, "vocabulary"), {}, dry_run)
        return
    tokenizer = tokenizer_of(recipe)
    config = load_config(recipe.model, to="generate")
    recipe = fitted(recipe, config)
    conversations = load(recipe.data, "conversations", recipe.seed)
    say(*conversations.report.lines())
    training = _encode(recipe, tokenizer, conversations.train)
    validation = _encode(recipe, tokenizer, conversations.validation)
    roles = plan_of_one_model(config, Sizes.of([*training, *validation]), "vocabulary")
    if dry_run:
        print_plan(recipe, roles, {"training": training, "validation": validation}, dry_run)
        return
    check_memory(recipe, roles)
    accelerator = make_accelerator(recipe.train.precision)
    with Run(recipe, "sft", accelerator) as folder:
        dtype = base_dtype(recipe.model, accelerator.mixed_precision)
        model = load_causal_lm(recipe.model, dtype, rows_needed(tokenizer))
        reach = shares(model).lines(recipe.model.quantization)
        folder.say(*reach)
        sampler = _Samples(recipe, tokenizer, conversations.validation, folder)
        figures = train(recipe, model, training, validation, sampler, folder, accelerator)
        if folder.writes:
            save_language_model(model, recipe.model, tokenizer, folder.folder, save_dtype=recipe.train.save_dtype)
            write_card(folder.folder, "sft", recipe, figures, "\n".join([*reach, ""]))
        folder.finish(figures)


def train(
    recipe: Recipe,
    model: Any,
    training: list[Encoded],
    validation: list[Encoded],
    samples: _Samples,
    run: Any,
    accelerator: Any,
) -> dict[str, float]:
    """The training loop. Returns the figures of the last validation."""
    from align.models.language import LanguageModel, negative_log_likelihood
    from align.text.batches import micro_batches, rows_of_step, steps_in
    from align.train.optim import build_optimizer, learning_rate, set_learning_rate
    from align.train.parallel import my_share, synced_at_last, total
    from align.train.state import Trainable

    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    n_steps = recipe.train.steps or steps_in(recipe.train.epochs or 1, len(training), recipe.optim.batch_size)
    eval_every = recipe.train.eval_every or max(1, n_steps // 10)
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
        rows = [training[i] for i in rows_of_step(step, len(training), recipe.optim.batch_size, recipe.seed)]
        n_targets = sum(sum(row.is_target) for row in rows)
        mine = my_share(rows, accelerator)
        micros = micro_batches([len(row.ids) for row in mine], recipe.train.micro_batch_tokens)
        loss_sum: Any = 0.0
        n_right: Any = 0
        lm.train()
        for micro in synced_at_last(accelerator, lm, micros):
            nll, right = negative_log_likelihood(lm, [mine[i] for i in micro], accelerator.device)
            accelerator.backward(nll * accelerator.num_processes / n_targets)
            loss_sum, n_right = loss_sum + nll.detach(), n_right + right
        grad_norm = accelerator.clip_grad_norm_(lm.parameters(), recipe.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        n_seen += sum(len(row.ids) for row in rows)

        validates = run.is_time(step, n_steps, eval_every)
        if validates:
            figures = validate(lm, validation[: recipe.train.eval_rows], recipe.train.micro_batch_tokens, accelerator)
            samples.write(model, step, accelerator)
        if validates or run.is_time(step, n_steps, recipe.train.log_every):
            sums = total(accelerator, loss_sum, n_right)
            values = {"loss/train": sums[0] / n_targets, "accuracy/train": sums[1] / n_targets, "lr": rate}
            values |= {"grad_norm": grad_norm, "tokens_per_s": n_seen / (time.monotonic() - since)}
            run.log(step, values | (figures if validates else {}))
            since, n_seen = time.monotonic(), 0
    return figures


def validate(lm: Any, rows: list[Encoded], max_tokens: int, accelerator: Any) -> dict[str, float]:
    """Loss and token accuracy on held-out conversations."""
    import torch

    from align.models.language import negative_log_likelihood
    from align.text.batches import micro_batches

    if not rows:
        return {}
    lm.eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for micro in micro_batches([len(row.ids) for row in rows], max_tokens):
            nll, n_right = negative_log_likelihood(lm, [rows[i] for i in micro], accelerator.device)
            loss, right = loss + float(nll), right + int(n_right)
    n_targets = sum(sum(row.is_target[1:]) for row in rows)
    return {"loss/validation": loss / n_targets, "accuracy/validation": right / n_targets}


class _Samples:
    """Samples answers to a few validation prompts and appends them to samples.jsonl."""

    def __init__(self, recipe: Recipe, tokenizer: Any, conversations: list[Conversation], run: Any) -> None:
        self.recipe, self.tokenizer, self.run = recipe, tokenizer, run
        self.prompts = [row.messages[:-1] for row in conversations[: recipe.samples]]

    def write(self, model: Any, step: int, accelerator: Any) -> None:
        import torch

        from align.generation.sampling import Sampling, sample
        from align.models.language import never_sampled
        from align.text.encode import decode_answer, encode_prompts
        from align.text.ends import ends_of

        if not self.prompts or not self.run.writes:
            return
        ids = encode_prompts(self.tokenizer, self.prompts)
        room = self.recipe.data.max_tokens - max(map(len, ids))
        if room < 1:
            return
        model.eval()
        generator = torch.Generator(accelerator.device).manual_seed(self.recipe.seed)
        with accelerator.autocast():
            how = Sampling(max_tokens=min(room, 128), temperature=0)
            never = never_sampled(self.tokenizer, model)
            answers = sample(model, ids, how, ends_of(self.tokenizer).ids, never, generator)
        with (self.run.folder / "samples.jsonl").open("a", encoding="utf-8") as file:
            for prompt, before, answer in zip(self.prompts, ids, answers, strict=True):
                decoded = decode_answer(self.tokenizer, answer.tokens, before)
                row: dict[str, Any] = {"step": step, "prompt": last_question(prompt)}
                row |= {"thoughts": decoded.thoughts} if decoded.thoughts else {}
                row["answer"] = decoded.text
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _encode(recipe: Recipe, tokenizer: Any, conversations: list[Conversation]) -> list[Encoded]:
    from align.text.encode import encode_conversations
    from align.train.parallel import say

    last_only = recipe.targets == "last"
    data = recipe.data
    encoded, counts = encode_conversations(tokenizer, conversations, data.max_tokens, data.too_long, last_only)
    say(*counts.lines(data.max_tokens))
    return encoded


if __name__ == "__main__":
    exit_on_user_error(main)
