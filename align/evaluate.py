"""Evaluation: compares models on the same prompts and writes a report with confidence intervals.

    align evaluate recipes/evaluate.yaml

Writes report.json (its keys are documented in align/report/write.py), report.html and side_by_side.jsonl into `output`.
Answers and scores are cached in `output`/cache: a killed evaluation continues, and a repeated one is quick.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from align.config import Section, parse_command, to_yaml
from align.errors import UserError, check_place, exit_on_user_error
from align.evals.settings import ComparedModel, Prompts
from align.generate import Sampling
from align.judges.settings import Judge
from align.tasks.settings import Task
from align.text.records import last_question

if TYPE_CHECKING:
    from align.evals.answers import Answers
    from align.evals.cache import Cache
    from align.evals.collect import Collector
    from align.evals.problems import Problem
    from align.judges.panel import Panel
    from align.judges.scores import CachedScorer
    from align.tasks.task import Prepared
    from align.text.records import Prompt

POSITIONS = 4096  # most tokens of a task's question, or of a perplexity window


class Recipe(Section):
    """An evaluation."""

    models: dict[str, ComparedModel]
    """The models, as NAME: {path: ...}. Each is compared with its starting point (sft for models tuned from it, else
    the model before it), and models tuned from sft are compared with each other."""
    data: Prompts | None = None
    """The prompts that all models answer. Without them, models only do tasks."""
    judge: str | None = None
    """module:function (prompt, answer) -> a score, or an object with .score and optionally .correct, .polite, .brief
    and .harmful, such as align.lab.judge:judge."""
    perfect: float | None = None
    """The judge's highest possible score, for the plots."""
    reference: str | None = None
    """The model that KL is measured to. By default the one named sft."""
    reward: str | None = None
    """A reward model that also scores the answers."""
    judges: dict[str, Judge] = Field(default_factory=dict)
    """More judges by name, such as {people: {votes: runs/labels}}."""
    tasks: dict[str, Task] = Field(default_factory=dict)
    """Tasks with known answers, and texts for perplexity, by name: {wikitext: {kind: perplexity, path: ...}}."""
    rankings: str | None = None
    """Held-out rankings that measure the reward model."""
    sampling: Sampling = Sampling(temperature=1.0)
    curves: dict[str, str] = Field(default_factory=dict)
    """Runs whose metrics are plotted, as STAGE: run folder."""
    stages: str | None = None
    """A pipeline.json, for seconds and memory of the stages."""
    samples: int = Field(10, ge=0)
    """Prompts that the report shows with all answers."""
    output: str
    """The folder for the report."""
    cache: str | None = None
    """The folder that caches answers and scores. By default `output`/cache."""
    seed: int = Field(1, ge=0)
    """Seed of sampling and bootstrap."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.reference is not None and self.reference not in self.models:
            raise ValueError(f"reference = {self.reference!r} is not one of the models: {', '.join(self.models)}")
        if self.data is None and not self.tasks:
            raise ValueError("nothing to evaluate; give data (prompts to answer) or tasks")
        if self.data is not None and self.judge is None and self.reward is None and not self.judges:
            raise ValueError("nothing compares the models; give judge, reward or judges")
        choosing = [name for name, model in self.models.items() if model.best_of is not None]
        if choosing and self.reward is None:
            raise ValueError(f"models.{choosing[0]}.best_of: give reward, the reward model that chooses the best")
        if self.kl_reference in choosing:
            raise ValueError(f"models.{self.kl_reference}.best_of: KL is measured to this model; remove best_of")
        return self

    @property
    def kl_reference(self) -> str | None:
        """The model that KL is measured to, if there is one."""
        return self.reference or ("sft" if "sft" in self.models else None)


class Markers(NamedTuple):
    """The scorers of the table of models."""

    gold: CachedScorer | None
    reward: CachedScorer | None

    def given(self) -> list[CachedScorer]:
        """The scorers that the recipe gives."""
        return [marker for marker in self if marker is not None]


def main() -> None:
    """Parses the command line and evaluates."""
    recipe, dry_run = parse_command(Recipe, "evaluate")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Writes the report into `recipe.output` and prints its summary."""
    from rich.console import Console

    from align.evals.cache import Cache
    from align.evals.models import check_template
    from align.judges.panel import Panel
    from align.models.load import load_config
    from align.report import examples
    from align.report.write import print_summary, write_report
    from align.tasks.task import prepare
    from align.text.files import write_lines
    from align.train.machine import PeakMemory
    from align.train.state import write_whole

    check_place(recipe.output)
    check_place(recipe.cache or recipe.output, key="cache")
    # Everything that can be wrong is checked before any model generates.
    for name, model in recipe.models.items():
        load_config(model, f"models.{name}.path", to="generate")
        check_template(model, f"models.{name}")
    prompts = read_prompts(recipe)
    tasks = {name: prepare(task, recipe.seed) for name, task in recipe.tasks.items()}
    cache = Cache(recipe.cache or Path(recipe.output) / "cache")
    panel = Panel(recipe.judges, cache, recipe.seed)
    curves = read_curves(recipe)
    read_stages(recipe)
    if dry_run:
        counts = [f"prompts: {len(prompts):,}", *(f"{name}: {rows.n:,} rows" for name, rows in tasks.items())]
        print(to_yaml(recipe), *counts, sep="\n")
        return
    started = time.monotonic()
    folder = Path(recipe.output)
    with PeakMemory() as memory:
        markers, collector = begin(recipe, prompts, cache)
        answers = collector.collected() if prompts else {}
        report = answers_report(recipe, collector, markers, answers)
        report |= judges_report(recipe, collector, panel, answers)
        report["tasks"] = tasks_report(recipe, collector, tasks)
        report["problems"] = problems_report(collector.problems, markers)
    report["stages"]["evaluate"] = {"seconds": round(time.monotonic() - started, 2), "peak_memory_mb": memory.megabytes}
    texts = [last_question(prompt.messages) for prompt in prompts]
    shown = [
        (group.heading, group.note, examples.rows(answers, texts, group.indices))
        for group in examples.groups(answers, report["compared_by"], len(texts), recipe.samples)
    ]
    page = write_report(report, curves, shown, folder)
    write_whole(folder / "evaluate.yaml", to_yaml(recipe))
    write_lines(folder / "side_by_side.jsonl", examples.every_row(answers, texts))
    print_summary(report, Console())
    print(f"report: {page}")


def read_prompts(recipe: Recipe) -> list[Prompt]:
    """The prompts for all models. Prints what was left out."""
    from align.text.load import load

    if recipe.data is None:
        return []
    loaded = load(recipe.data, "prompts", recipe.seed)
    print("\n".join(loaded.report.lines()))
    prompts = loaded.validation if recipe.data.part == "validation" else loaded.train
    if not prompts:
        raise UserError(
            f"data: the part {recipe.data.part!r} of {recipe.data.path} has no prompts; raise data.validation"
        )
    return prompts


def begin(recipe: Recipe, prompts: Sequence[Prompt], cache: Cache) -> tuple[Markers, Collector]:
    """The scorers and the answer collector. No model is loaded yet."""
    from align.evals.collect import Collector
    from align.evals.models import EvalModels
    from align.judges.scores import CachedScorer
    from align.judges.scoring import FunctionJudge, RewardModelJudge

    gold = reward = None
    if recipe.judge is not None:  # its scores are not cached, because a function may depend on anything
        gold = CachedScorer("gold", f"judge = {recipe.judge}", FunctionJudge(recipe.judge))
    if recipe.reward is not None:
        reward = CachedScorer("reward", f"reward = {recipe.reward}", RewardModelJudge(recipe.reward), cache)
    markers = Markers(gold, reward)
    max_tokens = POSITIONS if recipe.data is None else recipe.data.max_tokens
    collector = Collector(
        recipe.models,
        [prompt.messages for prompt in prompts],
        EvalModels(recipe.models, plain(recipe), max_tokens, cache),
        recipe.sampling.how(),
        recipe.seed,
        markers.given(),
        reward.scores if reward else None,
        recipe.kl_reference,
    )
    return markers, collector


def plain(recipe: Recipe) -> dict[str, bool]:
    """Which models get plain prompts, as base models."""
    return {name: model.asked == "plain" for name, model in recipe.models.items()}


# -- the report -------------------------------------------------------------------------------------------------------


def answers_report(
    recipe: Recipe, collector: Collector, markers: Markers, answers: dict[str, Answers]
) -> dict[str, Any]:
    """The report's blocks about the answers of each model and about the reward model."""
    from align.judges.reward_accuracy import measure_accuracy
    from align.train.machine import git_commit

    report: dict[str, Any] = {"seed": recipe.seed, "git_commit": git_commit(), "n_prompts": len(collector.prompts)}
    report |= {"judge": recipe.judge, "perfect_gold": recipe.perfect}
    report["models"] = {name: summarise(recipe, name, own) for name, own in answers.items()}
    report |= compared(recipe, answers)
    if recipe.data is not None and recipe.reward is not None and recipe.rankings is not None:
        data = recipe.data.of_other_rows(recipe.rankings)
        report["reward_model"] = measure_accuracy(
            recipe.reward, data, markers.gold, recipe.seed, collector.eval_models.cache
        )
    report["texts"] = {name: described(own, recipe.seed) for name, own in answers.items()}
    report["stages"] = read_stages(recipe)
    report["recipe"] = to_yaml(recipe)
    whole = [f"align pipeline {Path(recipe.stages).parent / 'recipe.yaml'}"] if recipe.stages else []
    report["commands"] = [*whole, f"align evaluate {Path(recipe.output) / 'evaluate.yaml'}"]
    return report


def summarise(recipe: Recipe, name: str, model_answers: Answers) -> dict[str, Any]:
    """One model's block of the report: means, and the gold score with its interval."""
    from align.stats.bootstrap import bootstrap_mean

    block: dict[str, Any] = {c: model_answers.mean(c) for c in model_answers.columns if c != "logprob"}
    block |= {"kl_to_sft": block.pop("kl")} if "kl" in block else {}
    if (gold := model_answers.known("gold")) is not None:
        block["gold"] = bootstrap_mean(gold, seed=recipe.seed)._asdict()
    if recipe.models[name].best_of is not None:
        block["best_of"] = recipe.models[name].best_of
    return block


def compared(recipe: Recipe, answers: dict[str, Answers]) -> dict[str, Any]:
    """Differences and win rates, prompt by prompt, by the judge, or else by the reward.

    Each model against the one it came from, and those tuned from SFT against each other: PPO against DPO.
    """
    from align.evals.answers import both
    from align.report.verdict import compared_pairs
    from align.stats.bootstrap import win_rate
    from align.stats.significance import paired_permutation

    by = "gold" if any(own.known("gold") is not None for own in answers.values()) else "reward"
    differences, win_rates = {}, {}
    for later, earlier in compared_pairs(list(answers)):
        a, b = both(answers[later], answers[earlier], by)
        if len(a):
            found = paired_permutation(a, b, seed=recipe.seed)
            differences[f"{later}_over_{earlier}"] = found.difference._asdict() | {"p": found.p}
            win_rates[f"{later}_over_{earlier}"] = win_rate(a, b, seed=recipe.seed)._asdict()
    return {"compared_by": by, "differences": differences, "win_rates": win_rates}


def described(model_answers: Answers, seed: int) -> dict[str, Any]:
    """Text statistics of one model's answers: align/stats/texts.py."""
    from align.stats.texts import Texts

    texts = Texts(seed)
    for portion in model_answers.portions():
        known = [completion for completion in portion if completion is not None]
        texts.add([completion.text for completion in known], [len(completion.ids) for completion in known])
    return texts.figures()


def judges_report(recipe: Recipe, collector: Collector, panel: Panel, answers: dict[str, Answers]) -> dict[str, Any]:
    """The report's blocks about all judges, with those of the table of models, and their agreement."""
    from align.judges.panel import KnownScores, texts_of
    from align.report.verdict import all_pairs

    kinds = {"gold": "function", "reward": "reward_model"}
    known = {
        name: KnownScores(kind, {model: own.columns[name].tolist() for model, own in answers.items()})
        for name, kind in kinds.items()
        if answers and all(name in own.columns for own in answers.values())
    }
    names = {name: (name, recipe.models[name].path) for name in answers}
    texts = {name: texts_of(own) for name, own in answers.items()}
    heard = panel.judge(collector.prompts, texts, names, all_pairs(answers), known)
    collector.problems += heard.problems
    return heard.block


def tasks_report(recipe: Recipe, collector: Collector, prepared: dict[str, Prepared]) -> dict[str, Any]:
    """The report's blocks about all tasks. Models use all of their positions."""
    from align.evals.models import EvalModels
    from align.report.verdict import came_from
    from align.tasks.suite import task_block

    text_models = EvalModels(recipe.models, plain(recipe), POSITIONS, collector.eval_models.cache)
    names = [name for name, model in recipe.models.items() if model.best_of is None]
    blocks = {}
    for name, task in recipe.tasks.items():
        asked = {model: text_models[model] for model in names}
        blocks[name] = task_block(
            name, task, prepared[name], asked, came_from(recipe.models), recipe.seed, collector.problems
        )
    return blocks


def problems_report(problems: list[Problem], markers: Markers) -> list[dict[str, Any]]:
    """Everything that could not be measured."""
    from align.evals.problems import counted

    found = [*problems, *(problem for marker in markers.given() for problem in marker.problems)]
    return [problem._asdict() for problem in counted(found)]


def read_stages(recipe: Recipe) -> dict[str, Any]:
    """Seconds and peak memory of the stages that a pipeline has run so far."""
    if recipe.stages is None:
        return {}
    done = json.loads(Path(recipe.stages).read_text(encoding="utf-8"))["stages"]
    return {name: {key: stage[key] for key in ("seconds", "peak_memory_mb")} for name, stage in done.items()}


def read_curves(recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """The metrics of the run folders in `curves`."""
    curves = {}
    for stage, folder in recipe.curves.items():
        path = Path(folder) / "metrics.jsonl"
        if not path.is_file():
            raise UserError(f"curves.{stage}: there is no {path}")
        curves[stage] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return curves


if __name__ == "__main__":
    exit_on_user_error(main)
