"""Reward-model scores of answers, and task priorities from the model's uncertainty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import bindparam, select, update

from apps.store.adding import prompt_hash, text_hash
from apps.store.engine import Store
from apps.store.tables import Output, Prompt, Task, TaskOutput

N_AT_ONCE = 500  # tasks in one transaction


class ScoredPrompt(NamedTuple):
    """Scores of some answers to a prompt, (n_answers, n_members)."""

    messages: list[dict[str, Any]]
    responses: Sequence[str]
    scores: Sequence[Sequence[float]]


class Prioritised(NamedTuple):
    """The numbers of tasks that got a priority, and of tasks with unscored answers."""

    n_tasks: int
    n_without: int


def keep_scores(store: Store, project_id: int, rows: Sequence[ScoredPrompt]) -> int:
    """Stores scores of the project's answers. Returns how many."""
    wanted = {
        (prompt_hash(row.messages), text_hash(text)): list(scores)
        for row in rows
        for text, scores in zip(row.responses, row.scores, strict=True)
    }
    with store.write() as session:
        query = select(Output.id, Prompt.hash, Output.hash).join(Prompt, Prompt.id == Output.prompt_id)
        query = query.where(Prompt.project_id == project_id, Prompt.hash.in_({prompt for prompt, _ in wanted}))
        found = session.execute(query).tuples().all()
        values = [
            {"output": output, "given": wanted[prompt, text]}
            for output, prompt, text in found
            if (prompt, text) in wanted
        ]
        if values:
            scored = update(Output).where(Output.id == bindparam("output")).values(scores=bindparam("given"))
            session.connection().execute(scored, values)
        return len(values)


def prioritise(store: Store, project_id: int) -> Prioritised:
    """Sets every unseen task's priority to its uncertainty; tasks without scores get 0 and come last.

    `queue.draw` then applies the order.
    """
    n_tasks = n_without = last = 0
    while ids := _unseen(store, project_id, last):
        last = ids[-1]
        with store.write() as session:
            scores: dict[int, list[list[float] | None]] = {task: [] for task in ids}
            query = select(TaskOutput.task_id, Output.scores).join(Output, Output.id == TaskOutput.output_id)
            for task, given in session.execute(query.where(TaskOutput.task_id.in_(ids))):
                scores[task].append(given)
            values = []
            for task, answers in scores.items():
                known = [answer for answer in answers if answer is not None]
                is_whole = len(known) == len(answers) and len(set(map(len, known))) == 1
                values.append({"task": task, "value": uncertainty(known) if is_whole else 0.0})
                n_without += not is_whole
            moved = update(Task).where(Task.id == bindparam("task"), ~Task.shown).values(priority=bindparam("value"))
            session.connection().execute(moved, values)
        n_tasks += len(ids)
    return Prioritised(n_tasks - n_without, n_without)


def uncertainty(scores: Iterable[Sequence[float]]) -> float:
    """A reward model's uncertainty about the order of a task's answers; scores are (n_answers, n_members).

    For an ensemble: the standard deviation over members of the difference of two answers' scores. For a single model:
    the entropy of the Bradley-Terry preference probability, in nats. Both are means over all pairs of answers.
    """
    table = np.asarray(list(scores), dtype=np.float64)  # (n_answers, n_members)
    first, second = np.triu_indices(len(table), 1)
    gaps = table[first] - table[second]  # (pairs, n_members)
    if gaps.shape[1] > 1:
        return float(gaps.std(axis=1).mean())
    z = np.abs(gaps[:, 0])
    p = 1 / (1 + np.exp(-z))  # of the better one: in [0.5, 1]
    return float((z * (1 - p) - np.log(p)).mean())


def _unseen(store: Store, project_id: int, last: int) -> list[int]:
    with store.read() as session:
        query = select(Task.id).where(Task.project_id == project_id, Task.kind == "rank", ~Task.shown)
        query = query.where(Task.status == "open", Task.id > last).order_by(Task.id).limit(N_AT_ONCE)
        return list(session.scalars(query))
