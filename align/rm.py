"""The reward model: learns from people's rankings which answer they would prefer (InstructGPT step 2, 2203.02155).

    python -m align.rm recipes/rm.yaml

A scalar head on the SFT model. All pairs of a prompt's K answers are one example, weighted 1/C(K, 2), and each answer
goes through the model once. The score is read at EOS. At the end scores are shifted so that demonstrations average 0.
"""

from __future__ import annotations

import time
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from align import sections
from align.config import DryRun, parse_training
from align.errors import UserError, exit_on_user_error

if TYPE_CHECKING:
    from align.models.scalar import ScalarModel
    from align.text.records import Message, Ranking


class Recipe(sections.Run):
    """Reward modelling. Defaults are InstructGPT's (appendix C.2): one epoch, 9e-6, 64 prompts, cosine to 10%."""

    model: sections.Model
    data: sections.Data = sections.Data.defaults(too_long="drop")
    demonstrations: str | None = None
    """Conversations whose scores shall average 0; the preferred training answers if not given."""
    optim: sections.Optim = sections.Optim(learning_rate=9e-6, batch_size=64)
    train: sections.Train = sections.Train.defaults(log_every=10)


class Ranked(NamedTuple):
    """One prompt's answers as tokens."""

    answers: list[list[int]]  # prompt and answer, ending in EOS
    ranks: tuple[int, ...]  # 1 is best
    prompt: tuple[Message, ...]
    responses: tuple[str, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """What was ranked, whoever did it."""
        return self.prompt, self.responses

    @property
    def ids(self) -> list[int]:
        """All tokens, for counting."""
        return [token for answer in self.answers for token in answer]


def main() -> None:
    """Parses the command line and trains."""
    recipe, dry_run = parse_training(Recipe, "rm")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: DryRun | bool = False) -> None:
    """Trains into `recipe.output`; `dry_run` says what it would do and what it would cost."""
    from align.models.load import base_dtype, load_config, load_trunk
    from align.models.save import save_scalar_model, write_card
    from align.models.scalar import ScalarModel
    from align.text.load import load
    from align.text.tokenizer import load_tokenizer
    from align.train.machine import accelerator as make_accelerator
    from align.train.parallel import say
    from align.train.plan import Sizes, asked_shape, check_memory, check_positions, print_plan, trained_alone
    from align.train.run import Run

    if (shape := asked_shape(dry_run)) is not None:
        check_positions(shape, recipe.data.max_tokens, "--model-shape")
        print_plan(recipe, trained_alone(shape, Sizes(recipe.data.max_tokens, 1), "scalar"), {}, dry_run)
        return
    tokenizer = load_tokenizer(recipe.model.path, recipe.model.trust_remote_code)
    config = load_config(recipe.model)
    check_positions(config, recipe.data.max_tokens)
    rankings = load(recipe.data, "rankings", recipe.seed)
    say(*rankings.report.lines())
    training = encode(recipe, tokenizer, rankings.train)
    validation = encode(recipe, tokenizer, rankings.validation)
    longest = max((len(ids) for row in (*training, *validation) for ids in row.answers), default=1)
    roles = trained_alone(config, Sizes(longest, 1), "scalar")
    if dry_run:
        print_plan(recipe, roles, {"training": training, "validation": validation}, dry_run)
        return
    check_memory(recipe, roles)
    accelerator = make_accelerator(recipe.train.precision)
    with Run(recipe, "rm", accelerator) as folder:
        dtype = base_dtype(recipe.model, accelerator.mixed_precision)
        trunk = load_trunk(recipe.model, dtype, len(tokenizer))
        model = ScalarModel(trunk)
        figures = train(recipe, model, training, validation, folder, accelerator)
        figures |= annotators(validation)
        figures["shift"] = shift_to_demonstrations(recipe, model, tokenizer, training, accelerator)
        if folder.writes:
            save_scalar_model(model, recipe.model, tokenizer, folder.folder)
            write_card(folder.folder, "rm", recipe, figures)
        folder.finish(figures)


def train(
    recipe: Recipe, model: ScalarModel, training: list[Ranked], validation: list[Ranked], run: Any, accelerator: Any
) -> dict[str, float]:
    """The loop. Returns the last validation's figures."""
    from align.models.scalar import score_batch
    from align.rl.losses import pairs_of, ranking_loss
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
            pairs = pairs_of([row.ranks for row in ranked])
            loss = ranking_loss(scores, pairs)
            accelerator.backward(loss * accelerator.num_processes / len(rows))
            margins = (scores[pairs.better] - scores[pairs.worse]).detach()
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
    """Held-out loss, accuracy over pairs with its 95% interval (bootstrap over prompts), mean margin."""
    import torch

    from align.evals.stats import bootstrap_mean
    from align.models.scalar import score_all
    from align.rl.losses import pairs_of, ranking_loss

    rows = rows if full else rows[: recipe.train.eval_rows]
    if not rows:
        return {}
    answers = [answer for row in rows for answer in row.answers]
    scores = torch.tensor(score_all(scorer, answers, recipe.train.micro_batch_tokens, accelerator.device))
    pairs = pairs_of([row.ranks for row in rows])
    margins = scores[pairs.better] - scores[pairs.worse]
    accuracy = bootstrap_mean(accuracy_by_prompt(rows, scores.tolist()))
    figures = {
        "loss/validation": float(ranking_loss(scores, pairs)) / len(rows),
        "margin/validation": float(margins.mean()),
    }
    figures["accuracy/validation"] = accuracy.mean
    return figures | ({"accuracy/low": accuracy.low, "accuracy/high": accuracy.high} if full else {})


def accuracy_by_prompt(rows: list[Ranked], scores: list[float], skip_ties: bool = False) -> list[float]:
    """The share of each prompt's pairs that the scores order as its annotators did; a tie in score counts half.

    One figure for a prompt, whoever and however many ranked it: prompts are what the sample was drawn from. With
    `skip_ties` pairs of equal score are left out.
    """
    found: dict[tuple[Any, ...], list[float]] = {}
    first = 0
    for row in rows:
        mine = scores[first : first + len(row.ranks)]
        first += len(row.ranks)
        for i, j in combinations(range(len(mine)), 2):
            if row.ranks[i] != row.ranks[j] and not (skip_ties and mine[i] == mine[j]):
                agrees = (mine[i] > mine[j]) == (row.ranks[i] < row.ranks[j])
                found.setdefault(row.key, []).append(0.5 if mine[i] == mine[j] else float(agrees))
    return [sum(values) / len(values) for values in found.values()]


def annotators(rows: list[Ranked]) -> dict[str, float]:
    """How often two annotators who ranked the same answers agree on a pair, and the accuracy that this noise allows.

    If every pair were as hard, agreement a = p^2 + (1-p)^2 would bound accuracy by p = (1 + sqrt(2a - 1)) / 2; pairs
    differ, and then the true bound is lower. Empty where no answers were ranked twice.
    """
    views: dict[tuple[Any, ...], list[tuple[int, ...]]] = {}
    for row in rows:
        views.setdefault(row.key, []).append(row.ranks)
    agreements = [
        float((a[i] < a[j]) == (b[i] < b[j]))
        for ranks in views.values()
        for a, b in combinations(ranks, 2)
        for i, j in combinations(range(len(a)), 2)
        if a[i] != a[j] and b[i] != b[j]
    ]
    if not agreements:
        return {}
    agreement = sum(agreements) / len(agreements)
    return {"annotator_agreement": agreement, "accuracy_bound": (1 + max(0.0, 2 * agreement - 1) ** 0.5) / 2}


def shift_to_demonstrations(
    recipe: Recipe, model: ScalarModel, tokenizer: Any, training: list[Ranked], accelerator: Any
) -> float:
    """Shifts all scores so that demonstrations average 0 (InstructGPT, section 3.5). Returns the shift."""
    from align.models.scalar import score_all
    from align.text.encode import encode_conversations
    from align.text.load import load

    if recipe.demonstrations is None:
        answers = [row.answers[row.ranks.index(min(row.ranks))] for row in training[:1000]]
    else:
        data = sections.Data(path=recipe.demonstrations, validation=0.0, limit=1000)
        conversations = load(data, "conversations", recipe.seed).train
        encoded, _ = encode_conversations(tokenizer, conversations, recipe.data.max_tokens, "drop")
        answers = [row.ids for row in encoded]
    scores = score_all(model, answers, recipe.train.micro_batch_tokens, accelerator.device)
    model.shift += sum(scores) / len(scores)
    return float(model.shift)


def encode(recipe: Recipe, tokenizer: Any, rankings: list[Ranking]) -> list[Ranked]:
    """Rankings as tokens. Raises `UserError` if none is left."""
    from align.train.parallel import say

    rows, counts = encode_rankings(tokenizer, rankings, recipe.data.max_tokens, recipe.data.too_long)
    for reason, count in counts.items():
        if count:
            say(f"{count} of {len(rankings)} rankings {reason}")
    if rankings and not rows:
        raise UserError(f"data.path: none of {len(rankings)} rankings is left; raise data.max_tokens")
    return rows


def encode_rankings(
    tokenizer: Any, rankings: list[Ranking], max_tokens: int, too_long: Literal["truncate", "drop"]
) -> tuple[list[Ranked], dict[str, int]]:
    """Rankings as tokens, and how many were left out or cut.

    One with an answer that is too long is left out, or its answers are cut with their EOS kept. One without any
    preference, all tied, teaches nothing and is left out.
    """
    from align.text.encode import encode_prompts, encode_responses

    prompts = encode_prompts(tokenizer, [ranking.prompt for ranking in rankings])
    responses = iter(encode_responses(tokenizer, [(r.prompt, answer) for r in rankings for answer in r.responses]))
    rows: list[Ranked] = []
    tied = long = 0
    for ranking, prompt in zip(rankings, prompts, strict=True):
        answers = [prompt + next(responses) for _ in ranking.responses]
        is_long, is_tied = max(map(len, answers)) > max_tokens, len(set(ranking.ranks)) == 1
        hopeless = is_long and (too_long == "drop" or len(prompt) > max_tokens - 2)
        tied, long = tied + is_tied, long + is_long
        if not (is_tied or hopeless):
            answers = [shortened(answer, max_tokens) for answer in answers]
            rows.append(Ranked(answers, ranking.ranks, ranking.prompt, ranking.responses))
    what = "left out" if too_long == "drop" else "cut before their EOS, or left out if the prompt fills them"
    return rows, {f"longer than max_tokens={max_tokens}: {what}": long, "all tied: left out": tied}


def shortened(ids: list[int], max_tokens: int) -> list[int]:
    """A sequence cut to `max_tokens` with its EOS kept, since that is where its score is read."""
    return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]


def padded_size(row: Ranked) -> int:
    """Tokens that a prompt's answers take in a batch."""
    return len(row.answers) * max(map(len, row.answers))


if __name__ == "__main__":
    exit_on_user_error(main)
