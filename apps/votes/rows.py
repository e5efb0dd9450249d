"""Reading a project's labels from the database, for statistics.

Labels have no texts and are read in portions, so that 100,000 tasks take little memory and time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from apps.store.feedback import by_place, ranks_of
from apps.store.tables import Annotation, Output, Person, Presentation, Revision, Task, TaskOutput
from apps.votes.labels import Label

N_AT_ONCE = 500  # tasks
ALIKE = ("models", "places", "ranks", "ratings", "flags")
STATUSES = ("submitted", "skipped", "flagged")  # undone annotations are left out

Models = tuple[tuple[str, ...], ...]


class _Task(NamedTuple):
    id: int
    prompt: int
    kind: str
    expected: tuple[int, ...] | None
    models: Models
    closed: bool


def labels(session: Session, project_id: int) -> Iterator[Label]:
    """All annotations that are not undone, by task and person."""
    last = 0
    same: dict[Any, Any] = {}  # most of these tuples recur: equal ones share one object
    while True:
        tasks = _tasks(session, project_id, last)
        if not tasks:
            return
        last = max(tasks)
        for label in _labels(session, tasks):
            yield label._replace(**{name: same.setdefault(value := getattr(label, name), value) for name in ALIKE})


def _tasks(session: Session, project_id: int, last: int) -> dict[int, _Task]:
    """The next tasks that somebody has seen, by id."""
    query = select(Task.id, Task.prompt_id, Task.kind, Task.expected, Task.status)
    query = query.where(Task.project_id == project_id, Task.shown, Task.id > last).order_by(Task.id).limit(N_AT_ONCE)
    rows = session.execute(query).all()
    models = _models(session, [row.id for row in rows])
    return {
        row.id: _Task(
            row.id,
            row.prompt_id,
            row.kind,
            tuple(row.expected["ranks"]) if row.expected else None,
            models[row.id],
            row.status == "closed",
        )
        for row in rows
    }


def _models(session: Session, ids: list[int]) -> dict[int, Models]:
    """The names of the models that gave each answer, without repeats."""
    query = select(TaskOutput.task_id, Output.makers).join(Output, Output.id == TaskOutput.output_id)
    query = query.where(TaskOutput.task_id.in_(ids)).order_by(TaskOutput.task_id, TaskOutput.place)
    found: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    for task_id, makers in session.execute(query):
        names = (str(maker.get("model") or "") for maker in makers)
        found[task_id].append(tuple(dict.fromkeys(name for name in names if name)))
    return {task_id: tuple(answers) for task_id, answers in found.items()}


def _labels(session: Session, tasks: dict[int, _Task]) -> Iterator[Label]:
    latest = (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions)
    seen = (Presentation.task_id == Annotation.task_id) & (Presentation.person_id == Annotation.person_id)
    query = (
        select(Annotation.id, Annotation.task_id, Annotation.final, Annotation.status, Person.name, Presentation.places,
               Revision.payload, Revision.seconds, Revision.created_at)
        .join(Revision, latest)
        .join(Presentation, seen)
        .join(Person, Person.id == Annotation.person_id)
        .where(Annotation.task_id.in_(tasks), Annotation.status.in_(STATUSES))
        .order_by(Annotation.task_id, Annotation.person_id)
    )  # fmt: skip
    longest = _longest(session, tasks)
    for annotation, task_id, final, status, person, places, payload, seconds, at in session.execute(query):
        spent = max(seconds, longest.get(annotation, 0.0))
        yield _label(tasks[task_id], status, person, places, payload, spent, at)._replace(final=final)


def _longest(session: Session, tasks: dict[int, _Task]) -> dict[str, float]:
    """The longest time of annotations with several revisions: a correction made in seconds is no fast ranking."""
    query = select(Revision.annotation_id, func.max(Revision.seconds))
    query = query.join(Annotation, Annotation.id == Revision.annotation_id).group_by(Revision.annotation_id)
    return dict(session.execute(query.where(Annotation.task_id.in_(tasks), Annotation.n_revisions > 1)).tuples().all())


def _label(
    task: _Task, status: str, person: str, places: list[int], payload: dict[str, Any], seconds: float, at: float
) -> Label:
    ranks, answers = None, []
    if status == "submitted":
        ranks, answers = ranks_of(payload, places), by_place(payload["answers"], places)
    slots = [0] * len(places)
    for slot, place in enumerate(places):
        slots[place] = slot
    return Label(
        task=task.id,
        prompt=task.prompt,
        kind=task.kind,
        person=person,
        status=status,
        models=task.models,
        places=tuple(slots),
        ranks=None if ranks is None else tuple(ranks),
        ratings=tuple(answer["rating"] for answer in answers),
        flags=tuple(tuple(answer["flags"]) for answer in answers),
        all_bad=status == "submitted" and payload["all_bad"],
        seconds=seconds,
        at=at,
        expected=task.expected,
        closed=task.closed,
    )
