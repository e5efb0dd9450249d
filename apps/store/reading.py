"""Everything that was said about tasks, read back in one go: for exports, dashboards and statistics.

With `until` the project is read as it stood then: later revisions are not seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.store.judgments import by_place, ranks_of
from apps.store.tables import Annotation, Output, Person, Presentation, Prompt, Revision, Task, TaskOutput

N_AT_ONCE = 200  # tasks that are in memory at once
N_BEGINNING = 200  # characters


def beginning(messages: list[dict[str, Any]]) -> str:
    """The beginning of what the user asked last; a tool's result may follow it."""
    asked = [message for message in messages if message["role"] == "user"]
    return str((asked or messages)[-1]["content"])[:N_BEGINNING]


@dataclass(frozen=True)
class Answer:
    """An answer of a task."""

    text: str
    makers: list[dict[str, Any]]  # {model, temperature, seed} of all that gave this text
    scores: list[float] | None  # the reward model's, one of each member

    @property
    def model(self) -> str:
        """The first model that gave it, or ""."""
        return str(self.makers[0].get("model", "")) if self.makers else ""


@dataclass(frozen=True)
class Version:
    """A revision of what a person said."""

    n: int
    status: str
    extra: bool
    payload: dict[str, Any]  # by slot
    seconds: float
    guidelines_version: int
    at: float


@dataclass(frozen=True)
class Judgment:
    """What a person said about a task; lists are in the order of the task's answers."""

    id: str
    person_id: int
    person: str
    places: list[int]  # places[slot]: the order in which the person saw the answers
    shown_at: float
    versions: tuple[Version, ...]

    @property
    def last(self) -> Version:
        return self.versions[-1]

    @property
    def counts(self) -> bool:
        """Whether it takes one of the task's places."""
        return self.last.status == "submitted" and not self.last.extra

    @cached_property
    def ranks(self) -> list[int] | None:
        """From 1 on, without gaps; None if nothing is submitted, or all answers are bad and unranked."""
        return ranks_of(self.last.payload, self.places) if self.last.status == "submitted" else None

    @cached_property
    def answers(self) -> list[dict[str, Any]]:
        """{rating, flags, comment} of each answer; empty if nothing is submitted."""
        return by_place(self.last.payload["answers"], self.places) if self.last.status == "submitted" else []


@dataclass(frozen=True)
class Judged:
    """A task and all that people said about it, by person."""

    id: int
    hash: str
    kind: str
    messages: list[dict[str, Any]]
    source: str
    answers: tuple[Answer, ...]
    expected: list[int] | None  # of gold and practice tasks
    priority: float
    place: int
    propensity: float
    pool: int
    required: int
    closed: bool
    judgments: tuple[Judgment, ...]

    @property
    def status(self) -> str:
        """open, done or closed, as of `until`."""
        n_done = sum(judgment.counts for judgment in self.judgments)
        return "closed" if self.closed else "done" if n_done >= self.required else "open"


def judged(
    session: Session,
    project_id: int,
    kinds: Sequence[str] = ("rank",),
    until: float | None = None,
    unsaid: bool = False,
) -> Iterator[Judged]:
    """The project's tasks that somebody said something about, by id; with `unsaid` the others too."""
    last = 0
    while True:
        query = select(Task, Prompt.messages, Prompt.source).join(Prompt, Prompt.id == Task.prompt_id)
        query = query.where(Task.project_id == project_id, Task.kind.in_(kinds), Task.id > last)
        if not unsaid:
            query = query.where(Task.shown)
        rows = session.execute(query.order_by(Task.id).limit(N_AT_ONCE)).tuples().all()
        if not rows:
            return
        ids = [task.id for task, _, _ in rows]
        last = ids[-1]
        answers, said = _answers(session, ids), _judgments(session, ids, until)
        for task, messages, source in rows:
            if unsaid or said[task.id]:
                yield _judged(task, messages, source, answers[task.id], said[task.id])
            session.expunge(task)


def judged_task(session: Session, project_id: int, task_id: int) -> Judged | None:
    """One task of the project, as `judged` gives it; None if there is no such task."""
    query = select(Task, Prompt.messages, Prompt.source).join(Prompt, Prompt.id == Task.prompt_id)
    row = session.execute(query.where(Task.project_id == project_id, Task.id == task_id)).tuples().first()
    if row is None:
        return None
    task, messages, source = row
    answers, said = _answers(session, [task_id]), _judgments(session, [task_id], None)
    return _judged(task, messages, source, answers[task_id], said[task_id])


def _judged(
    task: Task, messages: list[dict[str, Any]], source: str, answers: list[Answer], said: list[Judgment]
) -> Judged:
    return Judged(
        id=task.id,
        hash=task.hash,
        kind=task.kind,
        messages=messages,
        source=source,
        answers=tuple(answers),
        expected=task.expected["ranks"] if task.expected else None,
        priority=task.priority,
        place=task.place,
        propensity=task.propensity,
        pool=task.pool,
        required=task.required,
        closed=task.status == "closed",
        judgments=tuple(said),
    )


def _answers(session: Session, ids: list[int]) -> dict[int, list[Answer]]:
    query = select(TaskOutput.task_id, Output.text, Output.makers, Output.scores)
    query = query.join(Output, Output.id == TaskOutput.output_id).where(TaskOutput.task_id.in_(ids))
    found: dict[int, list[Answer]] = defaultdict(list)
    for task_id, text, makers, scores in session.execute(query.order_by(TaskOutput.task_id, TaskOutput.place)):
        found[task_id].append(Answer(text, makers, scores))
    return found


def _judgments(session: Session, ids: list[int], until: float | None) -> dict[int, list[Judgment]]:
    versions: dict[str, list[Version]] = defaultdict(list)
    query = select(Revision).join(Annotation, Annotation.id == Revision.annotation_id)
    query = query.where(Annotation.task_id.in_(ids)).order_by(Revision.annotation_id, Revision.n)
    for r in session.scalars(query if until is None else query.where(Revision.created_at <= until)):
        own = Version(r.n, r.status, r.extra, r.payload, r.seconds, r.guidelines_version, r.created_at)
        versions[r.annotation_id].append(own)
        session.expunge(r)
    seen = (Presentation.task_id == Annotation.task_id) & (Presentation.person_id == Annotation.person_id)
    people = (
        select(Annotation.id, Annotation.task_id, Person.id, Person.name, Presentation.places, Presentation.shown_at)
        .join(Person, Person.id == Annotation.person_id)
        .join(Presentation, seen)
        .where(Annotation.task_id.in_(ids))
        .order_by(Annotation.task_id, Annotation.person_id)
    )
    found: dict[int, list[Judgment]] = defaultdict(list)
    for annotation, task_id, person, name, places, shown_at in session.execute(people):
        if versions[annotation]:
            said = Judgment(annotation, person, name, places, shown_at, tuple(versions[annotation]))
            found[task_id].append(said)
    return found
