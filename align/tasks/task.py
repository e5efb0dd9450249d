"""A task of a recipe: what is asked, how, and how the answers are measured.

tasks:
  gsm8k: {kind: generate, path: data/gsm8k.jsonl.gz, template: data/prompts/gsm8k.yaml, shots: [0, 4], limit: 200}
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from align.config import Section
from align.errors import UserError
from align.tasks.questions import Question, read_questions, read_texts
from align.tasks.results import Outcome, Result, Round, summary
from align.tasks.template import LETTERS, Template, load_template
from align.text.records import Document

Metric = Literal["per_token", "raw", "per_byte", "exact", "f1", "rouge_l"]

METRICS: dict[str, tuple[Metric, ...]] = {
    "choice": ("per_token", "raw", "per_byte"),
    "generate": ("exact", "f1", "rouge_l"),
    "perplexity": (),
}
BY_DEFAULT: dict[str, tuple[Metric, ...]] = METRICS | {"generate": ("exact", "f1")}

# Keys that not every kind reads.
ASKED = ("choice", "generate")
READ_BY: dict[str, tuple[str, ...]] = dict.fromkeys(("template", "examples", "shots", "metrics"), ASKED)
READ_BY |= dict.fromkeys(("max_tokens", "votes", "temperature"), ("generate",)) | {"stride": ("perplexity",)}


class Task(Section):
    """Questions with known answers, or texts to predict."""

    kind: Literal["choice", "generate", "perplexity"]
    """choice: the likeliest of several choices; generate: an answer in words; perplexity: how texts are predicted."""
    path: str
    """A file, folder or hub name: rows {question, choices, answer}, {question, answer} or {text}."""
    split: str = "test"
    """The split of a hub data set, or of a folder of several."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Maps our column names to the file's: {question: ctx}."""
    limit: int | None = Field(None, gt=0)
    """Ask only so many, the first."""
    template: str | None = None
    """A file that says how questions are put, as data/prompts/gsm8k.yaml."""
    shots: list[int] = Field(default_factory=lambda: [0])
    """How many solved examples stand before a question; each number is a round of its own."""
    examples: str | None = None
    """Where examples come from; by default from the rows of path after the first `limit`."""
    metrics: list[Metric] | None = Field(None, min_length=1)
    """What is measured; models are compared by the first. choice: per_token (GPT-3's), raw, per_byte; generate: exact,
    f1, rouge_l."""
    max_tokens: int = Field(256, gt=0)
    """Longest answer."""
    votes: int = Field(1, gt=0, le=1000)
    """Samples of each question, of whose answers the most frequent counts (self-consistency)."""
    temperature: float | None = Field(None, ge=0)
    """Of the sampling; by default 0, the likeliest token, and with several votes 0.7 (2203.11171)."""
    stride: int | None = Field(None, gt=0)
    """Tokens by which a window over a long text moves on; by default half of the window."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        for key, kinds in READ_BY.items():
            if self.kind not in kinds and getattr(self, key) != type(self).model_fields[key].get_default(
                call_default_factory=True
            ):
                raise ValueError(f"{key} has no effect with kind: {self.kind}; leave it out")
        if self.kind != "perplexity" and self.template is None:
            raise ValueError("template is missing; name a file that says how questions are put, see data/prompts/")
        if wrong := [name for name in self.metrics or () if name not in METRICS[self.kind]]:
            raise ValueError(f"metrics: {wrong[0]} is none of {self.kind}; there are {', '.join(METRICS[self.kind])}")
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(f"votes: {self.votes} at temperature 0 would be the same answer each time; raise it")
        return self

    @model_validator(mode="after")
    def _shots(self) -> Self:
        if not self.shots or min(self.shots) < 0 or len(set(self.shots)) < len(self.shots):
            raise ValueError(f"shots = {self.shots}: give numbers from 0 on, each once")
        if max(self.shots) > 0 and self.examples is None and self.limit is None:
            raise ValueError(
                f"shots = {self.shots}: the examples need rows that are not asked; give examples, a file of their own, "
                "or limit, and they come from the rows after it"
            )
        return self

    @property
    def measured(self) -> tuple[Metric, ...]:
        """What is measured, the metric that models are compared by first."""
        return tuple(self.metrics or BY_DEFAULT[self.kind])


class Prepared(NamedTuple):
    """A task's rows as they will be asked, the same for every model."""

    questions: list[Question]
    examples: list[list[Question]]  # of each question, as many as the largest number of shots
    documents: list[Document]
    template: Template | None


def prepare(task: Task, seed: int) -> Prepared:
    """Reads a task's files. Raises `UserError` for whatever is wrong in them, so before any model is loaded."""
    if task.kind == "perplexity":
        return Prepared([], [], read_texts(task.path, task.split, task.columns)[: task.limit], None)
    template = load_template(str(task.template))
    with_choices = task.kind == "choice"
    rows = read_questions(task.path, task.split, task.columns, with_choices)
    questions, others = rows[: task.limit], rows[task.limit or len(rows) :]
    if template.answers == "letter":
        _has_letters(rows, task)
    if task.examples is not None:
        others = read_questions(task.examples, "train", task.columns, with_choices)
    source = task.examples or f"{task.path} after the first {task.limit} rows"
    pool = list({other.text: other for other in others}.values())
    examples = [draw_examples(one, pool, max(task.shots), seed, source) for one in questions]
    return Prepared(questions, examples, [], template)


def _has_letters(rows: Sequence[Question], task: Task) -> None:
    if task.kind != "choice":
        raise UserError(f"{task.template}: answers = letter needs choices, and kind = {task.kind} has none")
    for one in rows:
        if len(one.choices) > len(LETTERS):
            raise UserError(f"{one.place}: {len(one.choices)} choices, but {len(LETTERS)} letters; use answers: text")


def draw_examples(question: Question, pool: Sequence[Question], n: int, seed: int, source: str) -> list[Question]:
    """n of the pool for this question, never itself: GPT-3 draws them anew for each question.

    They follow from the seed and the question, and fewer are the first of more: what is added from one number of shots
    to the next is examples, not other ones. No two of the pool have the same text.
    """
    if len(pool) <= n > 0:  # one of them may be the question itself
        raise UserError(
            f"{source}: {len(pool)} different examples, but {n} shots want at least {n + 1}; give more rows"
        )
    chance, drawn = random.Random(f"{seed} {question.text}"), dict[str, Question]()
    while len(drawn) < n:
        other = pool[chance.randrange(len(pool))]
        if other.text != question.text:
            drawn[other.text] = other
    return list(drawn.values())


def run_task(task: Task, speaker: Any, seed: int, prepared: Prepared | None = None) -> Result:
    """Asks one model. `speaker` is a `Speaker`, or answers as one does."""
    rows = prepared or prepare(task, seed)
    if task.kind == "perplexity":
        return Result(task.kind, "bits_per_byte", [_read(task, speaker, rows.documents)])
    return Result(task.kind, task.measured[0], [_ask(task, speaker, rows, n, seed) for n in task.shots])


def _read(task: Task, speaker: Any, documents: Sequence[Document]) -> Round:
    from align.tasks.perplexity import perplexities, read_documents, stride_of

    outcomes = read_documents(documents, speaker, task.stride)
    how = {"window": speaker.max_tokens, "stride": stride_of(speaker, task.stride)}
    return Round(0, outcomes, {"shots": 0} | perplexities(outcomes) | how)


def _ask(task: Task, speaker: Any, rows: Prepared, shots: int, seed: int) -> Round:
    from align.tasks.choice import ask_choices, chance
    from align.tasks.generate import ask_questions

    assert rows.template is not None
    examples = [shown[:shots] for shown in rows.examples]
    if task.kind == "choice":
        outcomes = ask_choices(rows.questions, examples, rows.template, speaker, task.measured[0])
        return Round(shots, outcomes, _block(shots, outcomes, task.measured) | {"chance": chance(rows.questions)})
    outcomes = ask_questions(
        rows.questions, examples, rows.template, speaker, _how(task), task.votes, task.measured, seed
    )
    names = [*task.measured, *(["exact_single"] if task.votes > 1 else [])]
    n_without = sum(bool(outcome.scores) and outcome.found is None for outcome in outcomes)
    return Round(shots, outcomes, _block(shots, outcomes, names) | {"n_without_answer": n_without})


def _block(shots: int, outcomes: Sequence[Outcome], names: Sequence[str]) -> dict[str, Any]:
    return {"shots": shots} | summary(outcomes, names)


def _how(task: Task) -> Any:
    from align.rl.sampling import Sampling

    by_default = 0.7 if task.votes > 1 else 0.0
    return Sampling(task.max_tokens, by_default if task.temperature is None else task.temperature)
