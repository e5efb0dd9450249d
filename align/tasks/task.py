"""Prepare a task (read files, draw examples) and run it on a model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from align.errors import UserError
from align.tasks.questions import Question, read_questions, read_texts
from align.tasks.results import Outcome, Result, Round, summary
from align.tasks.settings import Task
from align.tasks.template import LETTERS, Template, load_template
from align.text.records import Document


class Prepared(NamedTuple):
    """A task's rows, the same for every model."""

    questions: list[Question]
    examples: list[list[Question]]  # per question, as many as the largest number of shots
    documents: list[Document]
    template: Template | None

    @property
    def n(self) -> int:
        """Number of questions or documents."""
        return len(self.questions) + len(self.documents)


def prepare(task: Task, seed: int) -> Prepared:
    """Read a task's files. Raises `UserError` for errors in them, before any model is loaded."""
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
    """Draw n examples from the pool for this question, never the question itself; as GPT-3, anew for each question.

    They depend on the seed and the question, and fewer shots are the first of more. No two examples in the pool have
    the same text.
    """
    if len(pool) <= n > 0:  # one of them may be the question itself
        raise UserError(
            f"{source}: {len(pool)} different examples, but {n} shots need at least {n + 1}; give more rows"
        )
    chance, drawn = random.Random(f"{seed} {question.text}"), dict[str, Question]()
    while len(drawn) < n:
        other = pool[chance.randrange(len(pool))]
        if other.text != question.text:
            drawn[other.text] = other
    return list(drawn.values())


def run_task(task: Task, text_model: Any, seed: int, prepared: Prepared | None = None) -> Result:
    """Run a task on one model, a `TextModel` or an `EvalModel`."""
    rows = prepared or prepare(task, seed)
    if task.kind == "perplexity":
        return Result(task.kind, "bits_per_byte", [_read(task, text_model, rows.documents)])
    return Result(task.kind, task.measured[0], [_ask(task, text_model, rows, n, seed) for n in task.shots])


def _read(task: Task, text_model: Any, documents: Sequence[Document]) -> Round:
    from align.tasks.perplexity import perplexities, read_documents, stride_of

    outcomes = read_documents(documents, text_model, task.stride)
    how = {"window": text_model.max_tokens, "stride": stride_of(text_model, task.stride)}
    return Round(0, outcomes, {"shots": 0} | perplexities(outcomes) | how)


def _ask(task: Task, text_model: Any, rows: Prepared, shots: int, seed: int) -> Round:
    from align.tasks.choice import ask_choices, chance
    from align.tasks.generate import ask_questions

    assert rows.template is not None
    examples = [shown[:shots] for shown in rows.examples]
    if task.kind == "choice":
        outcomes = ask_choices(rows.questions, examples, rows.template, text_model, task.measured[0])
        return Round(shots, outcomes, _block(shots, outcomes, task.measured) | {"chance": chance(rows.questions)})
    outcomes = ask_questions(
        rows.questions, examples, rows.template, text_model, _how(task), task.votes, task.measured, seed
    )
    names = [*task.measured, *(["exact_single"] if task.votes > 1 else [])]
    n_without = sum(bool(outcome.scores) and outcome.found is None for outcome in outcomes)
    block = _block(shots, outcomes, names) | {"n_without_answer": n_without}
    if task.votes > 1:
        block["contradictions"] = _contradictions(outcomes)
    return Round(shots, outcomes, block)


def _contradictions(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    from align.stats.texts import Contradictions

    found = Contradictions()
    found.add(outcome.samples for outcome in outcomes if outcome.scores)
    return found.figures()


def _block(shots: int, outcomes: Sequence[Outcome], names: Sequence[str]) -> dict[str, Any]:
    return {"shots": shots} | summary(outcomes, names)


def _how(task: Task) -> Any:
    from align.generation.sampling import Sampling

    by_default = 0.7 if task.votes > 1 else 0.0
    return Sampling(task.max_tokens, by_default if task.temperature is None else task.temperature)
