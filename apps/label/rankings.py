"""Which of a project's rankings are exported, and the rows that they become: rankings and preference pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from align.text.records import Message, plain
from apps.store.names import name_key
from apps.store.reading import Judged, Judgment


class Filters(NamedTuple):
    """What to export. Times are seconds since 1970; None is no limit."""

    since: float | None = None  # of a ranking's latest revision
    until: float | None = None
    annotators: tuple[str, ...] = ()  # names; empty means all
    status: str | None = None  # of the task: open, done, closed
    min_agreement: float | None = None  # of a task: the share of decided pairs that its annotators decide alike


class Exported(NamedTuple):
    """A file that was written."""

    path: Path
    n_rows: int
    sha256: str


def select_judgments(task: Judged, filters: Filters) -> list[Judgment]:
    """What the filters leave of what was said about a task."""
    if filters.status is not None and task.status != filters.status:
        return []
    if filters.min_agreement is not None:
        agreed = agreement(task)
        if agreed is None or agreed < filters.min_agreement:
            return []
    keys = {name_key(name) for name in filters.annotators}
    return [
        judgment
        for judgment in task.judgments
        if (not keys or name_key(judgment.person) in keys)
        and (filters.since is None or judgment.last.at >= filters.since)
    ]


def decisive(task: Judged, chosen: list[Judgment], filters: Filters) -> list[Judgment]:
    """What rankings and preferences hold of it: of a task that a reviewer decided the reviewer's ranking alone; nothing
    of a closed one, unless closed ones are asked for.
    """
    if task.closed and filters.status != "closed":
        return []
    return [judgment for judgment in chosen if judgment.final == task.is_decided]


def agreement(task: Judged) -> float | None:
    """The share of pairs that two annotators decide alike, of all that both decide; None where there is no such pair.

    The measure of `align.stats.agreement`, for one task. A reviewer who decides it is no second opinion.
    """
    views = [judgment.ranks for judgment in task.judgments if judgment.ranks is not None and not judgment.final]
    alike = [
        (a[i] < a[j]) == (b[i] < b[j])
        for a, b in combinations(views, 2)
        for i, j in combinations(range(len(a)), 2)
        if a[i] != a[j] and b[i] != b[j]
    ]
    return sum(alike) / len(alike) if alike else None


def ranking_rows(task: Judged, judgment: Judgment) -> Iterator[dict[str, Any]]:
    """A ranking as `align.rm` reads it; none of a task that was skipped, or whose answers were all bad and unranked."""
    if judgment.ranks is None:
        return
    said = judgment.last.payload
    yield {
        "prompt": plain(tuple(map(Message.of, task.messages))),
        "responses": [answer.text for answer in task.answers],
        "ranks": judgment.ranks,
        "annotator": judgment.person,
        "source": task.source,
        "models": [answer.model for answer in task.answers],
        "ratings": [answer["rating"] for answer in judgment.answers],
        "flags": [answer["flags"] for answer in judgment.answers],
        "all_bad": said["all_bad"],
        "extra": judgment.last.extra and not judgment.final,
        "final": judgment.final,
        "seconds": judgment.last.seconds,
        "at": iso(judgment.last.at),
        "task": task.hash,
        "annotation": judgment.id,
        "propensity": task.propensity,
        "pool": task.pool,
    }


def preference_rows(task: Judged, judgment: Judgment) -> Iterator[dict[str, Any]]:
    """The pairs that a ranking decides, by the places of their answers; ties give none."""
    ranks = judgment.ranks
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
            "annotator": judgment.person,
            "source": task.source,
            "task": task.hash,
            **_tools(task),
        }


def _tools(task: Judged) -> dict[str, Any]:
    """The tools of a prompt as a column of their own, as TRL has them; nothing where there are none."""
    first = task.messages[0]
    return {"tools": json.loads(first["content"])} if first["role"] == "tools" else {}


def iso(at: float) -> str:
    """A time in UTC to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


ROWS = {"rankings": ranking_rows, "preferences": preference_rows}
