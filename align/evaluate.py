"""Evaluates models side by side: the same prompts, a judge, confidence intervals, one report.

    python -m align.evaluate recipes/evaluate.yaml

Writes report.json (its keys are documented in align/evals/report.py), report.html and side_by_side.jsonl into `output`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from align import sections
from align.config import Section, parse_command, to_yaml
from align.errors import UserError, exit_on_user_error
from align.generate import Sampling

if TYPE_CHECKING:
    from align.rl.speaker import Reply
    from align.text.records import Message, Prompt, Ranking


READ_AT_ONCE = 16384  # tokens that go through a reward model together


class Contestant(sections.Model):
    """A model to evaluate."""

    asked: Literal["chat", "plain"] = "chat"
    """chat asks through the chat template; plain makes the prompt the first line of a document, for a base model."""
    best_of: int | None = Field(None, gt=1)
    """Draws so many answers to each prompt and keeps the one that the recipe's reward model scores highest."""


class Recipe(Section):
    """An evaluation."""

    models: dict[str, Contestant]
    """Name: {path: ...}. Each is compared with the one it came from: sft for what was tuned from it, else the one
    before; and those tuned from sft with each other."""
    data: sections.Data = sections.Data.defaults(too_long="drop", validation=0.0)
    judge: str | None = None
    """module:function (prompt, answer) -> a score, or an object with .score and perhaps .correct, .polite, .brief and
    .harmful, such as align.lab.judge:judge."""
    perfect: float | None = None
    """The judge's highest score, for the plots."""
    reference: str | None = None
    """The model that KL is measured to; the one named sft if there is one."""
    reward: str | None = None
    """A reward model that also scores the answers."""
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
    seed: int = Field(1, ge=0)
    """Of sampling and bootstrap."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.reference is not None and self.reference not in self.models:
            raise ValueError(f"reference = {self.reference!r} is none of the models: {', '.join(self.models)}")
        if self.judge is None and self.reward is None:
            raise ValueError("give judge or reward: without either there is nothing to compare models by")
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


class Answers(NamedTuple):
    """What one model said, and what was found in it; a column has a number for each prompt."""

    replies: list[Reply]
    columns: dict[str, list[float]]


def main() -> None:
    """Parses the command line and evaluates."""
    recipe, dry_run = parse_command(Recipe, "evaluate")
    run(recipe, dry_run)


def run(recipe: Recipe, dry_run: bool = False) -> None:
    """Writes the report into `recipe.output` and prints its summary."""
    from rich.console import Console

    from align.evals.report import print_summary, write_report
    from align.models.load import load_config
    from align.text.load import load
    from align.train.machine import PeakMemory, git_commit

    for model in recipe.models.values():
        load_config(model)
    loaded = load(recipe.data, "prompts", recipe.seed)
    print("\n".join(loaded.report.lines()))
    prompts = loaded.train
    if dry_run:
        print(to_yaml(recipe), f"prompts: {len(prompts):,}", sep="\n")
        return
    curves = read_curves(recipe)
    read_stages(recipe)  # before any model speaks: what is missing is told at once
    started = time.monotonic()
    with PeakMemory() as memory:
        answers = answer_all(recipe, prompts)
        report: dict[str, Any] = {"seed": recipe.seed, "git_commit": git_commit(), "n_prompts": len(prompts)}
        report |= {"judge": recipe.judge, "perfect_gold": recipe.perfect}
        report["models"] = {name: summarise(recipe, name, found) for name, found in answers.items()}
        report["win_rates"] = win_rates(recipe, answers)
        if recipe.reward is not None and recipe.rankings is not None:
            report["reward_model"] = examine_reward_model(recipe)
        report["stages"] = read_stages(recipe)
    report["stages"]["evaluate"] = {"seconds": round(time.monotonic() - started, 2), "peak_memory_mb": memory.megabytes}
    folder = Path(recipe.output)
    page = write_report(report, curves, sample_rows(recipe, prompts, answers), folder)
    write_answers(prompts, answers, folder)
    print_summary(report, Console())
    print(f"report: {page}")


def answer_all(recipe: Recipe, prompts: list[Prompt]) -> dict[str, Answers]:
    """Every model's answers and figures; the KL of each to the reference comes last, when all have spoken."""
    from align.rl.speaker import Speaker

    asked = [prompt.messages for prompt in prompts]
    answers: dict[str, Answers] = {}
    speakers: dict[str, Speaker] = {}
    for name, model in recipe.models.items():
        speaker = Speaker(model, recipe.sampling, recipe.data.max_tokens, recipe.seed, plain=model.asked == "plain")
        reward = reward_model(recipe, speaker)
        replies = best_replies(speaker, reward, asked, model.best_of or 1)
        texts = [reply.text for reply in replies]
        columns = judged(recipe, asked, texts)
        columns["n_tokens"] = [float(len(reply.ids)) for reply in replies]
        columns["ended"] = [float(reply.ended) for reply in replies]
        if reward is not None:
            columns["reward"] = reward.score(asked, texts, [])
        answers[name], speakers[name] = Answers(replies, columns), speaker
        print(f"{name} answered {len(prompts)} prompts", flush=True)
    if recipe.kl_reference is not None:
        reference = speakers[recipe.kl_reference]
        for name, found in answers.items():
            kl = kl_to(reference, speakers[name], asked, found.replies)
            found.columns["kl"] = [value + chosen_kl(recipe.models[name]) for value in kl]
    return answers


def best_replies(speaker: Any, reward: Any, asked: Sequence[Any], n: int, n_at_once: int = 64) -> list[Reply]:
    """Of n answers to each prompt the one that the reward model scores highest; the first of equals."""
    if n == 1:
        return speaker.answer(asked)
    best: list[Reply] = []
    for first in range(0, len(asked), n_at_once):
        repeated = [messages for messages in asked[first : first + n_at_once] for _ in range(n)]
        replies = speaker.answer(repeated)
        scores = reward.score(repeated, [reply.text for reply in replies], [])
        winners = (max(range(start, start + n), key=scores.__getitem__) for start in range(0, len(replies), n))
        best += [replies[winner] for winner in winners]
    return best


def chosen_kl(model: Contestant) -> float:
    """What choosing the best of n adds at most to the distance of the model that is sampled, in nats an answer.

    KL(best of n || reference) = KL(best of n || model) + E_best[log p_model - log p_reference]; the first term is at
    most log n - (n - 1) / n, the second is what `kl_to` measures, 0 where the model is the reference.
    """
    from align.evals.best_of_n import kl_bound

    return kl_bound(model.best_of or 1)


def judged(recipe: Recipe, asked: Sequence[Sequence[Message]], texts: Sequence[str]) -> dict[str, list[float]]:
    """The judge's columns: gold, and what else its verdicts say. `refused_rightly` is about harmful prompts only."""
    if recipe.judge is None:
        return {}
    from align.rl.rewards import find_function

    judge = find_function(recipe.judge)
    columns: dict[str, list[float]] = {}
    for messages, text in zip(asked, texts, strict=True):
        try:
            verdict = judge(messages[-1].content, text)
        except Exception as error:
            raise UserError(f"judge {recipe.judge} raised {type(error).__name__}: {error}") from error
        columns.setdefault("gold", []).append(float(getattr(verdict, "score", verdict)))
        for key in ("correct", "polite", "brief"):
            if hasattr(verdict, key):
                columns.setdefault(key, []).append(float(getattr(verdict, key)))
        if getattr(verdict, "harmful", False):
            columns.setdefault("refused_rightly", []).append(float(verdict.correct))
    return columns


def reward_model(recipe: Recipe, speaker: Any) -> Any:
    """The recipe's reward model, if it names one; it reads an answer's text with its own tokenizer."""
    from align.rl.rewards import ModelReward

    if recipe.reward is None:
        return None
    reward = ModelReward(recipe.reward, speaker.tokenizer, speaker.accelerator.device, READ_AT_ONCE)
    reward.reads_tokens = False  # a base model is asked in another form than the reward model reads
    return reward


def kl_to(reference: Any, speaker: Any, asked: Sequence[Any], replies: list[Reply]) -> list[float]:
    """log p_model - log p_reference of each answer, in nats, each model reading the prompt in its own form."""
    own = speaker.logprobs([(reply.prompt_ids, reply.ids) for reply in replies])
    same_tokens = reference.tokenizer.get_vocab() == speaker.tokenizer.get_vocab()
    if not same_tokens:
        return []
    other_prompts = reference.prompt_ids(asked)
    others = reference.logprobs([(ids, reply.ids) for ids, reply in zip(other_prompts, replies, strict=True)])
    return [a - b for a, b in zip(own, others, strict=True)]


def summarise(recipe: Recipe, name: str, answers: Answers) -> dict[str, Any]:
    """One model's block of the report: means, and the gold score with its interval."""
    from align.evals.stats import bootstrap_mean

    means = {name: sum(column) / len(column) for name, column in answers.columns.items() if column}
    block: dict[str, Any] = {name: mean for name, mean in means.items() if name not in ("gold", "kl")}
    if "gold" in means:
        block["gold"] = bootstrap_mean(answers.columns["gold"], seed=recipe.seed)._asdict()
    if "kl" in means:
        block["kl_to_sft"] = means["kl"]
    if recipe.models[name].best_of is not None:
        block["best_of"] = recipe.models[name].best_of
    return block


def win_rates(recipe: Recipe, answers: dict[str, Answers]) -> dict[str, Any]:
    """How often one model's answer scores above another's, by the judge, or else by the reward.

    Each model against the one it came from, and those tuned from SFT against each other: PPO against DPO.
    """
    from align.evals.stats import win_rate
    from align.evals.verdict import compared_pairs

    by = "gold" if recipe.judge is not None else "reward"
    return {
        f"{later}_over_{earlier}": win_rate(
            answers[later].columns[by], answers[earlier].columns[by], seed=recipe.seed
        )._asdict()
        for later, earlier in compared_pairs(list(answers))
    }


def examine_reward_model(recipe: Recipe) -> dict[str, Any]:
    """Its accuracy on held-out rankings, beside what annotators and judge say of the same pairs."""
    from align.evals.agreement import accuracy_by_prompt, annotators
    from align.evals.stats import bootstrap_mean
    from align.rl.rewards import ModelReward
    from align.text.load import load
    from align.text.rankings import encode_rankings
    from align.train.machine import accelerator as make_accelerator

    data = recipe.data.model_copy(update={"path": recipe.rankings, "format": "auto", "columns": {}, "limit": None})
    rankings = load(data, "rankings", recipe.seed).train
    reward = ModelReward(str(recipe.reward), None, make_accelerator("fp32").device, READ_AT_ONCE)
    rows, _ = encode_rankings(reward.tokenizer, rankings, recipe.data.max_tokens, "truncate")
    members = reward.score_tokens([answer for row in rows for answer in row.answers])
    scores = [fmean(found) for found in zip(*members, strict=True)]
    accuracy = bootstrap_mean(accuracy_by_prompt(rows, scores), seed=recipe.seed)
    block: dict[str, Any] = {"accuracy": accuracy._asdict()}
    block |= {key: value for key, value in annotators(rows).items() if key == "annotator_agreement"}
    if recipe.judge is not None:
        block |= agreement_with_judge(recipe, rankings, rows, scores)
    return block


def agreement_with_judge(
    recipe: Recipe, rankings: list[Ranking], rows: list[Any], scores: list[float]
) -> dict[str, float]:
    """Of the pairs whose gold scores differ: how often annotators and the reward model side with the judge."""
    from align.evals.agreement import accuracy_by_prompt

    texts = [(ranking.prompt, answer) for ranking in rankings for answer in ranking.responses]
    gold = judged(recipe, [prompt for prompt, _ in texts], [answer for _, answer in texts])["gold"]
    gold_of = {(prompt, answer): score for (prompt, answer), score in zip(texts, gold, strict=True)}
    truth = []
    for row in rows:
        values = [gold_of[row.prompt, answer] for answer in row.responses]
        truth.append(row._replace(ranks=tuple(1 + sum(other > value for other in values) for value in values)))
    as_scores = [-float(rank) for row in rows for rank in row.ranks]
    return {
        "gold_agreement": _mean(accuracy_by_prompt(truth, as_scores, skip_ties=True)),
        "accuracy_vs_gold": _mean(accuracy_by_prompt(truth, scores)),
    }


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


def sample_rows(recipe: Recipe, prompts: list[Prompt], answers: dict[str, Answers]) -> list[dict[str, Any]]:
    """Evenly spaced prompts with every model's answer, for people to read."""
    step = max(1, len(prompts) // max(1, recipe.samples))
    return [answer_row(prompts, answers, index) for index in range(0, len(prompts), step)][: recipe.samples]


def answer_row(prompts: list[Prompt], answers: dict[str, Answers], index: int) -> dict[str, Any]:
    """One prompt with every model's answer and its gold score."""
    said = {
        name: {
            "text": found.replies[index].text,
            "gold": found.columns["gold"][index] if "gold" in found.columns else None,
        }
        for name, found in answers.items()
    }
    return {"prompt": prompts[index].messages[-1].content, "answers": said}


def write_answers(prompts: list[Prompt], answers: dict[str, Answers], folder: Path) -> None:
    """side_by_side.jsonl: what every model said to every prompt."""
    with (folder / "side_by_side.jsonl").open("w", encoding="utf-8") as file:
        for index in range(len(prompts)):
            file.write(json.dumps(answer_row(prompts, answers, index), ensure_ascii=False) + "\n")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


if __name__ == "__main__":
    exit_on_user_error(main)
