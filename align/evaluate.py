"""Evaluates models side by side: the same prompts, a judge, confidence intervals, one report.

    python -m align.evaluate recipes/evaluate.yaml

Writes report.json (its keys are documented in align/report/write.py), report.html and side_by_side.jsonl into `output`.
What was asked once is kept in `output`/cache: an evaluation that was killed goes on, and a second one costs nothing.
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

POSITIONS = 4096  # most tokens of a question of a task, or of a window over a text


class Recipe(Section):
    """An evaluation."""

    models: dict[str, ComparedModel]
    """Name: {path: ...}. Each is compared with the one it came from: sft for what was tuned from it, else the one
    before; and those tuned from sft with each other."""
    data: Prompts | None = None
    """The prompts that all models answer; without them the models only do tasks."""
    judge: str | None = None
    """module:function (prompt, answer) -> a score, or an object with .score and perhaps .correct, .polite, .brief and
    .harmful, such as align.lab.judge:judge."""
    perfect: float | None = None
    """The judge's highest score, for the plots."""
    reference: str | None = None
    """The model that KL is measured to; the one named sft if there is one."""
    reward: str | None = None
    """A reward model that also scores the answers."""
    judges: dict[str, Judge] = Field(default_factory=dict)
    """More judges of the answers by name, beside judge and reward: {people: {votes: runs/labels}}."""
    tasks: dict[str, Task] = Field(default_factory=dict)
    """Questions with known answers by name, and texts to predict: {wikitext: {kind: perplexity, path: ...}}."""
    rankings: str | None = None
    """Held-out rankings, to measure the reward model on."""
    sampling: Sampling = Sampling(temperature=1.0)
    curves: dict[str, str] = Field(default_factory=dict)
    """Stage: run folder, whose metrics are plotted."""
    stages: str | None = None
    """A pipeline.json, for seconds and memory of the stages."""
    samples: int = Field(10, ge=0)
    """Prompts whose answers the report shows."""
    output: str
    """The folder for the report."""
    cache: str | None = None
    """The folder in which answers and scores are kept by their content; by default `output`/cache."""
    seed: int = Field(1, ge=0)
    """Of sampling and bootstrap."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.reference is not None and self.reference not in self.models:
            raise ValueError(f"reference = {self.reference!r} is none of the models: {', '.join(self.models)}")
        if self.data is None and not self.tasks:
            raise ValueError("give data, prompts to answer, or tasks: without either there is nothing to do")
        if self.data is not None and self.judge is None and self.reward is None and not self.judges:
            raise ValueError("give judge, reward or judges: without any there is nothing to compare models by")
        choosing = [name for name, model in self.models.items() if model.best_of is not None]
        if choosing and self.reward is None:
            raise ValueError(f"models.{choosing[0]}.best_of: give reward, the reward model that chooses the best")
        if self.kl_reference in choosing:
            raise ValueError(f"models.{self.kl_reference}.best_of: the others' KL is measured to it; leave best_of out")
        return self

    @property
    def kl_reference(self) -> str | None:
        """The model that KL is measured to, if there is one."""
        return self.reference or ("sft" if "sft" in self.models else None)


class Markers(NamedTuple):
    """Who gives each answer a score for the table of models."""

    gold: CachedScorer | None
    reward: CachedScorer | None

    def given(self) -> list[CachedScorer]:
        """Those that the recipe names."""
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
    # What is missing or wrong is told before any model speaks.
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
        asked = [f"prompts: {len(prompts):,}", *(f"{name}: {rows.n:,} rows" for name, rows in tasks.items())]
        print(to_yaml(recipe), *asked, sep="\n")
        return
    started = time.monotonic()
    folder = Path(recipe.output)
    with PeakMemory() as memory:
        markers, contest = begin(recipe, prompts, cache)
        answers = contest.collected() if prompts else {}
        report = examined(recipe, contest, markers, answers)
        report |= judged(recipe, contest, panel, answers)
        report["tasks"] = tasks_done(recipe, contest, tasks)
        report["problems"] = told(contest.problems, markers)
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
    """What all models are asked; what was left out is printed."""
    from align.text.load import load

    if recipe.data is None:
        return []
    loaded = load(recipe.data, "prompts", recipe.seed)
    print("\n".join(loaded.report.lines()))
    prompts = loaded.validation if recipe.data.part == "validation" else loaded.train
    if not prompts:
        raise UserError(
            f"data: no prompt in the part {recipe.data.part!r} of {recipe.data.path}; raise data.validation"
        )
    return prompts


def begin(recipe: Recipe, prompts: Sequence[Prompt], cache: Cache) -> tuple[Markers, Collector]:
    """The judges, and the models with what they are asked. No model is loaded yet."""
    from align.evals.collect import Collector
    from align.evals.models import EvalModels
    from align.judges.scores import CachedScorer
    from align.judges.scoring import FunctionJudge, RewardModelJudge

    gold = reward = None
    if recipe.judge is not None:  # what a function depends on cannot be known, so its marks are not kept
        gold = CachedScorer("gold", f"judge = {recipe.judge}", FunctionJudge(recipe.judge))
    if recipe.reward is not None:
        reward = CachedScorer("reward", f"reward = {recipe.reward}", RewardModelJudge(recipe.reward), cache)
    markers = Markers(gold, reward)
    max_tokens = POSITIONS if recipe.data is None else recipe.data.max_tokens
    contest = Collector(
        recipe.models,
        [prompt.messages for prompt in prompts],
        EvalModels(recipe.models, plain(recipe), max_tokens, cache),
        recipe.sampling.how(),
        recipe.seed,
        markers.given(),
        reward.scores if reward else None,
        recipe.kl_reference,
    )
    return markers, contest


def plain(recipe: Recipe) -> dict[str, bool]:
    """Which models are asked as base models."""
    return {name: model.asked == "plain" for name, model in recipe.models.items()}


# -- the report -------------------------------------------------------------------------------------------------------


def examined(recipe: Recipe, contest: Collector, markers: Markers, answers: dict[str, Answers]) -> dict[str, Any]:
    """The blocks about the answers of each model, and about the reward model."""
    from align.judges.reward_accuracy import measure_accuracy
    from align.train.machine import git_commit

    report: dict[str, Any] = {"seed": recipe.seed, "git_commit": git_commit(), "n_prompts": len(contest.prompts)}
    report |= {"judge": recipe.judge, "perfect_gold": recipe.perfect}
    report["models"] = {name: summarise(recipe, name, said) for name, said in answers.items()}
    report |= compared(recipe, answers)
    if recipe.data is not None and recipe.reward is not None and recipe.rankings is not None:
        data = recipe.data.of_other_rows(recipe.rankings)
        report["reward_model"] = measure_accuracy(
            recipe.reward, data, markers.gold, recipe.seed, contest.eval_models.cache
        )
    report["texts"] = {name: described(said, recipe.seed) for name, said in answers.items()}
    report["stages"] = read_stages(recipe)
    report["recipe"] = to_yaml(recipe)
    whole = [f"python -m align.pipeline {Path(recipe.stages).parent / 'recipe.yaml'}"] if recipe.stages else []
    report["commands"] = [*whole, f"python -m align.evaluate {Path(recipe.output) / 'evaluate.yaml'}"]
    return report


def summarise(recipe: Recipe, name: str, said: Answers) -> dict[str, Any]:
    """One model's block of the report: means, and the gold score with its interval."""
    from align.stats.bootstrap import bootstrap_mean

    block: dict[str, Any] = {column: said.mean(column) for column in said.columns if column != "logprob"}
    block |= {"kl_to_sft": block.pop("kl")} if "kl" in block else {}
    if (gold := said.known("gold")) is not None:
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

    by = "gold" if any(said.known("gold") is not None for said in answers.values()) else "reward"
    differences, win_rates = {}, {}
    for later, earlier in compared_pairs(list(answers)):
        a, b = both(answers[later], answers[earlier], by)
        if len(a):
            found = paired_permutation(a, b, seed=recipe.seed)
            differences[f"{later}_over_{earlier}"] = found.difference._asdict() | {"p": found.p}
            win_rates[f"{later}_over_{earlier}"] = win_rate(a, b, seed=recipe.seed)._asdict()
    return {"compared_by": by, "differences": differences, "win_rates": win_rates}


def described(said: Answers, seed: int) -> dict[str, Any]:
    """What one model's answers are like: align/stats/texts.py."""
    from align.stats.texts import Texts

    texts = Texts(seed)
    for portion in said.portions():
        known = [reply for reply in portion if reply is not None]
        texts.add([reply.text for reply in known], [len(reply.ids) for reply in known])
    return texts.figures()


def judged(recipe: Recipe, contest: Collector, panel: Panel, answers: dict[str, Answers]) -> dict[str, Any]:
    """The blocks of all judges, those of the table of models among them, and whether they agree."""
    from align.judges.panel import KnownScores, texts_of
    from align.report.verdict import all_pairs

    kinds = {"gold": "function", "reward": "reward_model"}
    known = {
        name: KnownScores(kind, {model: said.columns[name].tolist() for model, said in answers.items()})
        for name, kind in kinds.items()
        if answers and all(name in said.columns for said in answers.values())
    }
    names = {name: (name, recipe.models[name].path) for name in answers}
    texts = {name: texts_of(said) for name, said in answers.items()}
    heard = panel.judge(contest.prompts, texts, names, all_pairs(answers), known)
    contest.problems += heard.problems
    return heard.block


def tasks_done(recipe: Recipe, contest: Collector, prepared: dict[str, Prepared]) -> dict[str, Any]:
    """The blocks of all tasks, which models do with all the positions they have."""
    from align.evals.models import EvalModels
    from align.report.verdict import came_from
    from align.tasks.suite import task_block

    text_models = EvalModels(recipe.models, plain(recipe), POSITIONS, contest.eval_models.cache)
    names = [name for name, model in recipe.models.items() if model.best_of is None]
    blocks = {}
    for name, task in recipe.tasks.items():
        asked = {model: text_models[model] for model in names}
        blocks[name] = task_block(
            name, task, prepared[name], asked, came_from(recipe.models), recipe.seed, contest.problems
        )
    return blocks


def told(problems: list[Problem], markers: Markers) -> list[dict[str, Any]]:
    """All that could not be measured."""
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
    """The metrics of the run folders that the recipe names."""
    curves = {}
    for stage, folder in recipe.curves.items():
        path = Path(folder) / "metrics.jsonl"
        if not path.is_file():
            raise UserError(f"curves.{stage}: there is no {path}")
        curves[stage] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return curves


if __name__ == "__main__":
    exit_on_user_error(main)
