"""Export rows: filtering annotations, and turning them into rankings and preference pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from align.text.records import Message, plain
from apps.store.names import name_key
from apps.store.reading import AnnotatedTask, TaskAnnotation


class Filters(NamedTuple):
    """Export filters. Times are seconds since 1970; None is no limit."""

    since: float | None = None  # of a ranking's latest revision
    until: float | None = None
    annotators: tuple[str, ...] = ()  # names; empty means all
    status: str | None = None  # of the task: open, done, closed
    min_agreement: float | None = None  # of a task: the share of decided pairs on which its annotators agree


class Exported(NamedTuple):
    """A written file."""

    path: Path
    n_rows: int
    sha256: str


def select_annotations(task: AnnotatedTask, filters: Filters) -> list[TaskAnnotation]:
    """The task's annotations that pass the filters."""
    if filters.status is not None and task.status != filters.status:
        return []
    if filters.min_agreement is not None:
        agreed = agreement(task)
        if agreed is None or agreed < filters.min_agreement:
            return []
    keys = {name_key(name) for name in filters.annotators}
    return [
        annotation
        for annotation in task.annotations
        if (not keys or name_key(annotation.person) in keys)
        and (filters.since is None or annotation.last.at >= filters.since)
    ]


def decisive(task: AnnotatedTask, chosen: list[TaskAnnotation], filters: Filters) -> list[TaskAnnotation]:
    """The annotations for rankings and preferences: only the final one of a task that a reviewer decided, and none of a
    closed task unless closed tasks are requested.
    """
    if task.closed and filters.status != "closed":
        return []
    return [annotation for annotation in chosen if annotation.final == task.is_decided]


def agreement(task: AnnotatedTask) -> float | None:
    """The share of pairs on which two annotators agree, of all pairs that both decide; None without such pairs.

    The measure of `align.stats.agreement` for one task. A reviewer's final ranking does not count.
    """
    views = [
        annotation.ranks for annotation in task.annotations if annotation.ranks is not None and not annotation.final
    ]
    alike = [
        (a[i] < a[j]) == (b[i] < b[j])
        for a, b in combinations(views, 2)
        for i, j in combinations(range(len(a)), 2)
        if a[i] != a[j] and b[i] != b[j]
    ]
    return sum(alike) / len(alike) if alike else None


def ranking_rows(task: AnnotatedTask, annotation: TaskAnnotation) -> Iterator[dict[str, Any]]:
    """A ranking in the format of `align rm`; nothing if nothing is ranked."""
    if annotation.ranks is None:
        return
    payload = annotation.last.payload
    yield {
        "prompt": plain(tuple(map(Message.of, task.messages))),
        "responses": [answer.text for answer in task.answers],
        "ranks": annotation.ranks,
        "annotator": annotation.person,
        "source": task.source,
        "models": [answer.model for answer in task.answers],
        "ratings": [answer["rating"] for answer in annotation.answers],
        "flags": [answer["flags"] for answer in annotation.answers],
        "all_bad": payload["all_bad"],
        "extra": annotation.last.extra and not annotation.final,
        "final": annotation.final,
        "seconds": annotation.last.seconds,
        "at": iso(annotation.last.at),
        "task": task.hash,
        "annotation": annotation.id,
        "propensity": task.propensity,
        "pool": task.pool,
    }


def preference_rows(task: AnnotatedTask, annotation: TaskAnnotation) -> Iterator[dict[str, Any]]:
    """The pairs that a ranking decides, in the order of the task's answers; ties give none."""
    ranks = annotation.ranks
    if ranks is None:
        return
    for i, j in combinations(range(len(ranks)), 2):
        if ranks[i] == ranks[j]:
            continue
        better, worse = (i, j) if ranks[i] < ranks[j] else (j, i)
        yield {
            "prompt": [Message.of(turn).as_dict() for turn in task.messages if turn["role"] != "tools"],
            "chosen": [{"role": "assistant", "content": task.answers[better].text}],
            "rejected": [{"role": "assistant", "content": task.answers[worse].text}],
            "annotator": annotation.person,
            "source": task.source,
            "task": task.hash,
            **_tools(task),
        }


def _tools(task: AnnotatedTask) -> dict[str, Any]:
    """A prompt's tools as their own column, as in TRL; nothing if there are none."""
    first = task.messages[0]
    return {"tools": json.loads(first["content"])} if first["role"] == "tools" else {}


def iso(at: float) -> str:
    """A time in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


ROWS = {"rankings": ranking_rows, "preferences": preference_rows}
