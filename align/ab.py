"""A/B test of two prompt templates: asks the same questions with both until one is significantly better.

    align ab recipes/ab.yaml

After every batch it counts the questions that only one template got right and runs the sequential test of
align/stats/sequential.py. The test stays valid when it stops early. It also stops when no question is left. Prints the
decision and writes ab.json.

This is a separate command, because an evaluation asks all of its questions and this test stops early.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section, parse_command, to_yaml
from align.errors import check_place, exit_on_user_error
from align.tasks.settings import Task

if TYPE_CHECKING:
    from align.stats.sequential import Look
    from align.tasks.results import Outcome
    from align.tasks.task import Prepared


class Recipe(Section):
    """An A/B test of two templates."""

    model: sections.PromptedModel
    asked: Literal["chat", "plain"] = "chat"
    """How questions are written: chat uses the chat template; plain is a text, for a base model."""
    max_tokens: int = Field(1024, gt=1)
    """Longest sequence: prompt and answer together; at most the model's positions."""
    task: Task
    """The questions: kind choice or generate, with one number of shots. Its template is A."""
    against: str
    """Template B."""
    alpha: float = Field(0.05, gt=0, lt=1)
    """Highest rate of false positives: decisions between equally good templates."""
    batch: int = Field(50, gt=0)
    """Questions between two looks at the test."""
    output: str
    """The folder for ab.json and the cache of answers. A killed test continues from it."""
    seed: int = Field(1, ge=0)
    """Seed of the order of questions, the few-shot examples and the sampling."""

    @model_validator(mode="after")
    def _is_decided_by_right_and_wrong(self) -> Self:
        if self.task.kind == "perplexity" or self.task.measured[0] in ("f1", "rouge_l"):
            found = self.task.kind if self.task.kind == "perplexity" else self.task.measured[0]
            raise ValueError(f"task: {found} is not right or wrong; give choice, or generate with metrics: [exact]")
        if len(self.task.shots) != 1:
            raise ValueError(f"task.shots = {self.task.shots}: give one number, for both templates")
        if self.against == self.task.template:
            raise ValueError(f"against = {self.against!r} is also task.template; give another template")
        if self.asked == "plain" and (self.model.template or self.model.template_options):
            raise ValueError("model.template, model.template_options: no effect with asked: plain; remove them")
        return self


class Sides(NamedTuple):
    """The same questions in the same order, prepared for each template."""

    a: Prepared
    b: Prepared

    def picked(self, places: Sequence[int]) -> Sides:
        """The questions at these places, in this order."""
        return Sides(
            *(
                side._replace(
                    questions=[side.questions[i] for i in places], examples=[side.examples[i] for i in places]
                )
                for side in self
            )
        )


def main() -> None:
    """Parses the command line and tests."""
    recipe, dry_run = parse_command(Recipe, "ab")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Writes ab.json into `recipe.output` and prints the decision."""
    from align.evals.cache import Cache
    from align.evals.models import EvalModels, check_template
    from align.models.load import load_config

    check_place(recipe.output)
    sides = read_sides(recipe)
    load_config(recipe.model, to="generate")
    check_template(recipe.model, "model")
    if dry_run:
        print(to_yaml(recipe), f"questions: {len(sides.a.questions):,}", sep="\n")
        return
    path = Path(recipe.output) / "ab.json"
    cache = Cache(path.parent / "cache")
    models = EvalModels({"model": recipe.model}, {"model": recipe.asked == "plain"}, recipe.max_tokens, cache)
    report = compare_templates(recipe, sides, models["model"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(report["verdict"], f"wrote {path}", sep="\n")


def read_sides(recipe: Recipe) -> Sides:
    """The questions in random order, so each batch is a random sample. Both templates get the same examples."""
    from align.tasks.task import prepare

    first = prepare(recipe.task, recipe.seed)
    second = prepare(recipe.task.model_copy(update={"template": recipe.against}), recipe.seed)
    order = list(range(len(first.questions)))
    random.Random(recipe.seed).shuffle(order)
    return Sides(first, second).picked(order)


def compare_templates(recipe: Recipe, sides: Sides, text_model: Any) -> dict[str, Any]:
    """Asks batch by batch until the test decides or no question is left. Returns the report."""
    from align.stats.sequential import look
    from align.tasks.task import run_task

    asked: tuple[list[Outcome], list[Outcome]] = [], []
    looks: list[dict[str, Any]] = []
    now = look(0, 0, recipe.alpha)
    n = len(sides.a.questions)
    for begin in range(0, n, recipe.batch):
        seed = recipe.seed * 10_000 + begin // recipe.batch
        for outcomes, side in zip(asked, sides.picked(range(begin, min(n, begin + recipe.batch))), strict=True):
            outcomes += run_task(recipe.task, text_model, seed, side).rounds[0].outcomes
        now = look(*only_one_right(*asked, recipe.task.measured[0]), recipe.alpha)
        looks.append({"n": len(asked[0])} | now._asdict() | {"share": now.share._asdict()})
        print(line(looks[-1]), flush=True)
        if now.decision != "undecided":
            break
    return summarise(recipe, asked, now, looks)


def only_one_right(a: Sequence[Outcome], b: Sequence[Outcome], metric: str) -> tuple[int, int]:
    """The number of questions that only A, and only B, got right, among those that fit both prompts."""
    pairs = [(x.scores[metric], y.scores[metric]) for x, y in zip(a, b, strict=True) if x.scores and y.scores]
    return sum(x > y for x, y in pairs), sum(y > x for x, y in pairs)


def line(seen: dict[str, Any]) -> str:
    """One look at the test, as a line for the log."""
    counts = f"only A right on {seen['n_only_a']}, only B on {seen['n_only_b']}"
    return f"{seen['n']:,} questions: {counts}; Bayes factor {seen['bayes_factor']:.3g}"


def summarise(
    recipe: Recipe, asked: tuple[list[Outcome], list[Outcome]], now: Look, looks: list[dict[str, Any]]
) -> dict[str, Any]:
    """The report: the decision, both templates' figures over the questions that both answered, every look."""
    metric, names = recipe.task.measured[0], (str(recipe.task.template), recipe.against)
    both = [(x, y) for x, y in zip(*asked, strict=True) if x.scores and y.scores]
    report: dict[str, Any] = {"verdict": verdict(recipe, now, len(both)), "decision": now.decision}
    for key, name, outcomes in zip("ab", names, zip(*both, strict=True) if both else ((), ()), strict=True):
        right = sum(outcome.scores[metric] for outcome in outcomes) / len(outcomes) if outcomes else None
        report[key] = {"template": name, "right": right}
    report |= {"metric": metric, "alpha": recipe.alpha, "n_asked": len(asked[0]), "n_compared": len(both)}
    report |= {"left_out": sorted({one.reason for side in asked for one in side if one.reason}), "looks": looks}
    return report


def verdict(recipe: Recipe, now: Look, n: int) -> str:
    """The decision in a sentence."""
    a, b = Path(str(recipe.task.template)).stem, Path(recipe.against).stem
    n_telling = now.n_only_a + now.n_only_b
    counts = f"of {n:,} questions only {a} is right on {now.n_only_a}, only {b} on {now.n_only_b}"
    if now.decision == "undecided":
        return f"undecided between {a} and {b}: {counts}; no question is left (Bayes factor {now.bayes_factor:.3g})"
    is_a = now.decision == "a"
    better, worse = (a, b) if is_a else (b, a)
    low, high = (now.share.low, now.share.high) if is_a else (1 - now.share.high, 1 - now.share.low)
    wins = f"{max(now.n_only_a, now.n_only_b) / n_telling:.0%} [{low:.0%}, {high:.0%}]"
    return (
        f"{better} is better than {worse}: {counts}; it wins {wins} of those {n_telling} "
        f"(if there were no difference, at most {recipe.alpha:.0%} of tests would find one)"
    )


if __name__ == "__main__":
    exit_on_user_error(main)
