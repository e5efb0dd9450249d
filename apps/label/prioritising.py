"""Ordering the queue by the reward model's uncertainty: `align label prioritise project.yaml scores.jsonl`.

Reads the output of `align score`: {prompt, responses, scores, member_scores}. The uncertainty is the disagreement of
the ensemble's members, or for one model the closeness of its scores (`apps.store.scores.uncertainty`).
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
from apps.label.importing import stored_message
from apps.store import queue
from apps.store.project import Project
from apps.store.scores import Prioritised, ScoredPrompt, keep_scores, prioritise

BATCH = 200  # rows in one transaction


class Result(NamedTuple):
    """The counts of a run."""

    n_scored: int  # answers of the project
    n_given: int  # answers in the file
    tasks: Prioritised


def prioritise_by(project: Project, file: str) -> Result:
    """Stores the scores in a file and reorders the queue. Raises `UserError` with file and line of a broken row, if no
    answer of the project has a score, and if the project's queue is not ordered by uncertainty.
    """
    if project.recipe.queue.order != "uncertainty":
        raise UserError("queue.order = priority: this queue ignores scores; set queue.order: uncertainty")
    for _ in scored(file):  # all rows are checked before anything is written
        pass
    n_scored = n_given = 0
    for rows in _batches(scored(file)):
        n_given += sum(len(row.responses) for row in rows)
        n_scored += keep_scores(project.store, project.id, rows)
    if not n_scored:
        raise UserError(f"{file}: none of its {n_given} answers is in this project; score the file that you imported")
    tasks = prioritise(project.store, project.id)
    queue.draw(project.store, project.id)
    return Result(n_scored, n_given, tasks)


def lines(result: Result) -> list[str]:
    """The lines to print."""
    report = [f"{result.n_scored:,} of {result.n_given:,} scored answers are in this project"]
    report.append(f"{result.tasks.n_tasks:,} unseen tasks are now ordered by uncertainty")
    if result.tasks.n_without:
        report.append(f"{result.tasks.n_without:,} tasks come last: some answers have no scores or other members")
    return report


def scored(file: str) -> Iterator[ScoredPrompt]:
    """The rows of a score file."""
    for row in iter_rows(file, broken=_StopAtFirst()):
        try:
            yield _scored(row)
        except BadRow as error:
            raise UserError(f"{row.source}: {error}; nothing was changed") from None


class _StopAtFirst(BrokenRows):
    def add(self, broken: Broken) -> None:
        raise UserError(f"{broken.source}: {broken.reason}; nothing was changed")


def _scored(row: Row) -> ScoredPrompt:
    if "scores" not in row.values or "responses" not in row.values:
        raise BadRow("expected prompt, responses and scores, as `align score` writes them")
    record, _ = make(row.values, "ranking", "answers", row.source)
    assert isinstance(record, Answers)
    scores: Any = row.values.get("member_scores") or [[score] for score in row.values["scores"]]
    is_table = isinstance(scores, list) and all(isinstance(row, list) and row for row in scores)
    if not is_table or len(scores) != len(record.responses) or len(set(map(len, scores))) != 1:
        raise BadRow(f"{len(record.responses)} responses need one score per member each, found {shown(scores)}")
    if not all(isinstance(x, int | float) and abs(x) <= sys.float_info.max for row in scores for x in row):
        raise BadRow(f"scores must be numbers, found {shown(scores)}")
    messages = list(map(stored_message, record.prompt))
    return ScoredPrompt(messages, record.responses, [[float(x) for x in row] for row in scores])


def _batches(rows: Iterator[ScoredPrompt]) -> Iterator[list[ScoredPrompt]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
