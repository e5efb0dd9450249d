"""The queue by the reward model's uncertainty: `python -m apps.label prioritise project.yaml scores.jsonl`.

Reads what `align.score` writes: {prompt, responses, scores, member_scores}. With several members the uncertainty is
their disagreement, with one it is how close its scores are (`apps.store.scores.uncertainty`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from align.errors import UserError
from align.text.formats import make
from align.text.readers import iter_rows
from align.text.records import Answers
from align.text.rows import Broken, BrokenRows, Row
from align.text.values import BadRow, shown
from apps.label.importing import kept_turn
from apps.store import queue
from apps.store.project import Project
from apps.store.scores import Prioritised, ScoredPrompt, keep_scores, prioritise

BATCH = 200  # rows in one transaction


class Result(NamedTuple):
    """What was done."""

    n_scored: int  # answers of the project
    n_given: int  # answers in the file
    tasks: Prioritised


def prioritise_by(project: Project, file: str) -> Result:
    """Keeps the scores in a file and draws the queue anew. Raises `UserError` with file and line of a broken row, where
    no answer of the project has a score, and where the project's queue does not go by uncertainty.
    """
    if project.recipe.queue.order != "uncertainty":
        raise UserError("queue.order = priority: scores have no effect on this queue; set it to uncertainty")
    for _ in scored(file):  # all rows are checked before anything is written
        pass
    n_scored = n_given = 0
    for rows in _batches(scored(file)):
        n_given += sum(len(row.responses) for row in rows)
        n_scored += keep_scores(project.store, project.id, rows)
    if not n_scored:
        raise UserError(f"{file}: none of its {n_given} answers is in this project; score the file that was imported")
    tasks = prioritise(project.store, project.id)
    queue.draw(project.store, project.id)
    return Result(n_scored, n_given, tasks)


def lines(result: Result) -> list[str]:
    """What to print."""
    told = [f"{result.n_scored:,} of {result.n_given:,} scored answers are in this project"]
    told.append(f"{result.tasks.n_tasks:,} tasks that nobody has seen go by uncertainty now")
    if result.tasks.n_without:
        told.append(f"{result.tasks.n_without:,} have answers without scores, or of different models, and come last")
    return told


def scored(file: str) -> Iterator[ScoredPrompt]:
    """The rows of a file of scores."""
    for row in iter_rows(file, broken=_Stop()):
        try:
            yield _scored(row)
        except BadRow as error:
            raise UserError(f"{row.source}: {error}; nothing was changed") from None


class _Stop(BrokenRows):
    def add(self, broken: Broken) -> None:
        raise UserError(f"{broken.source}: {broken.reason}; nothing was changed")


def _scored(row: Row) -> ScoredPrompt:
    if "scores" not in row.values or "responses" not in row.values:
        raise BadRow("prompt, responses and scores are wanted, as `align.score` writes them")
    record, _ = make(row.values, "ranking", "answers", row.source)
    assert isinstance(record, Answers)
    scores: Any = row.values.get("member_scores") or [[score] for score in row.values["scores"]]
    is_table = isinstance(scores, list) and all(isinstance(row, list) and row for row in scores)
    if not is_table or len(scores) != len(record.responses) or len(set(map(len, scores))) != 1:
        raise BadRow(f"{len(record.responses)} responses need a score of each member for each, found {shown(scores)}")
    if not all(isinstance(x, int | float) and abs(x) <= sys.float_info.max for row in scores for x in row):
        raise BadRow(f"scores must be numbers, found {shown(scores)}")
    messages = list(map(kept_turn, record.prompt))
    return ScoredPrompt(messages, record.responses, [[float(x) for x in row] for row in scores])


def _batches(rows: Iterator[ScoredPrompt]) -> Iterator[list[ScoredPrompt]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
