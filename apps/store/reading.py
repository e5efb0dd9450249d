"""Reading tasks with all their annotations: for exports, dashboards and statistics.

With `until`, the project is read as it was then: later revisions are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.store.feedback import by_place, ranks_of
from apps.store.revisions import FINAL
from apps.store.tables import Annotation, Event, Output, Person, Presentation, Prompt, Revision, Task, TaskOutput

N_AT_ONCE = 200  # tasks in memory at once
N_BEGINNING = 200  # characters


def beginning(messages: list[dict[str, Any]]) -> str:
    """The beginning of the last user message; a tool's result may follow it."""
    questions = [message for message in messages if message["role"] == "user"]
    return str((questions or messages)[-1]["content"])[:N_BEGINNING]


@dataclass(frozen=True)
class Answer:
    """An answer of a task."""

    text: str
    makers: list[dict[str, Any]]  # {model, temperature, seed} of all that gave this text
    scores: list[float] | None  # the reward model's, one per ensemble member

    @property
    def model(self) -> str:
        """The first model that gave it, or ""."""
        return str(self.makers[0].get("model", "")) if self.makers else ""


@dataclass(frozen=True)
class Version:
    """A revision of an annotation."""

    n: int
    status: str
    extra: bool
    payload: dict[str, Any]  # by slot
    seconds: float
    guidelines_version: int
    at: float


@dataclass(frozen=True)
class TaskAnnotation:
    """A person's annotation of a task; lists are in the order of the task's answers."""

    id: str
    person_id: int
    person: str
    places: list[int]  # places[slot]: the order in which the person saw the answers
    shown_at: float
    versions: tuple[Version, ...]
    final: bool = False  # a reviewer's ranking that decides the task: it counts instead of all others

    @property
    def last(self) -> Version:
        return self.versions[-1]

    @property
    def counts(self) -> bool:
        """Whether it takes one of the task's places."""
        return self.last.status == "submitted" and not self.last.extra

    @cached_property
    def ranks(self) -> list[int] | None:
        """Dense ranks from 1; None if nothing is submitted, or all answers are bad and unranked."""
        return ranks_of(self.last.payload, self.places) if self.last.status == "submitted" else None

    @cached_property
    def answers(self) -> list[dict[str, Any]]:
        """{rating, flags, comment} of each answer; empty if nothing is submitted."""
        return by_place(self.last.payload["answers"], self.places) if self.last.status == "submitted" else []


@dataclass(frozen=True)
class AnnotatedTask:
    """A task and all its annotations, by person."""

    id: int
    public_id: int
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
    annotations: tuple[TaskAnnotation, ...]

    @property
    def status(self) -> str:
        """open, done or closed, as of `until`."""
        n_done = sum(annotation.counts for annotation in self.annotations)
        return "closed" if self.closed else "done" if n_done >= self.required else "open"

    @property
    def is_decided(self) -> bool:
        """Whether a reviewer's ranking counts instead of all others."""
        return any(annotation.final for annotation in self.annotations)


def annotated_tasks(
    session: Session,
    project_id: int,
    kinds: Sequence[str] = ("rank",),
    until: float | None = None,
    with_unannotated: bool = False,
) -> Iterator[AnnotatedTask]:
    """The project's tasks that have annotations, by id; with `with_unannotated` the others too."""
    last, then = 0, None if until is None else _at(session, until)
    while True:
        query = select(Task, Prompt.messages, Prompt.source).join(Prompt, Prompt.id == Task.prompt_id)
        query = query.where(Task.project_id == project_id, Task.kind.in_(kinds), Task.id > last)
        if not with_unannotated:
            query = query.where(Task.shown)
        rows = session.execute(query.order_by(Task.id).limit(N_AT_ONCE)).tuples().all()
        if not rows:
            return
        ids = [task.id for task, _, _ in rows]
        last = ids[-1]
        answers, annotations = _answers(session, ids), _annotations(session, ids, until, then)
        for task, messages, source in rows:
            if with_unannotated or annotations[task.id]:
                is_closed = task.status == "closed" if then is None else task.id in then.closed
                yield _annotated_task(task, messages, source, answers[task.id], annotations[task.id], is_closed)
            session.expunge(task)


def annotated_task(session: Session, project_id: int, task_id: int) -> AnnotatedTask | None:
    """One task of the project, as `annotated_tasks` gives it; None if there is no such task."""
    query = select(Task, Prompt.messages, Prompt.source).join(Prompt, Prompt.id == Task.prompt_id)
    row = session.execute(query.where(Task.project_id == project_id, Task.id == task_id)).tuples().first()
    if row is None:
        return None
    task, messages, source = row
    answers, annotations = _answers(session, [task_id]), _annotations(session, [task_id])
    return _annotated_task(task, messages, source, answers[task_id], annotations[task_id], task.status == "closed")


def _annotated_task(
    task: Task,
    messages: list[dict[str, Any]],
    source: str,
    answers: list[Answer],
    annotations: list[TaskAnnotation],
    closed: bool,
) -> AnnotatedTask:
    return AnnotatedTask(
        id=task.id,
        public_id=task.public_id,
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
        closed=closed,
        annotations=tuple(annotations),
    )


def _answers(session: Session, ids: list[int]) -> dict[int, list[Answer]]:
    query = select(TaskOutput.task_id, Output.text, Output.makers, Output.scores)
    query = query.join(Output, Output.id == TaskOutput.output_id).where(TaskOutput.task_id.in_(ids))
    found: dict[int, list[Answer]] = defaultdict(list)
    for task_id, text, makers, scores in session.execute(query.order_by(TaskOutput.task_id, TaskOutput.place)):
        found[task_id].append(Answer(text, makers, scores))
    return found


class _Then(NamedTuple):
    """What tasks were at some time, of which their rows say only what they are now."""

    closed: set[int]
    final: set[str]  # annotations that decided their task then, unless they were undone


def _at(session: Session, until: float) -> _Then:
    """The state at a time, from the events until then."""
    verbs = ("close", "reopen", FINAL)
    query = select(Event.verb, Event.subject, Event.data).where(Event.verb.in_(verbs), Event.at <= until)
    closed, final = dict[int, bool](), dict[str, str]()
    for verb, subject, data in session.execute(query.order_by(Event.seq)):
        if verb == FINAL:
            final[subject] = data["annotation"]
        else:
            closed[int(subject)] = verb == "close"
    return _Then({task for task, is_closed in closed.items() if is_closed}, set(final.values()))


def _annotations(
    session: Session, ids: list[int], until: float | None = None, then: _Then | None = None
) -> dict[int, list[TaskAnnotation]]:
    versions: dict[str, list[Version]] = defaultdict(list)
    query = select(Revision).join(Annotation, Annotation.id == Revision.annotation_id)
    query = query.where(Annotation.task_id.in_(ids)).order_by(Revision.annotation_id, Revision.n)
    for r in session.scalars(query if until is None else query.where(Revision.created_at <= until)):
        own = Version(r.n, r.status, r.extra, r.payload, r.seconds, r.guidelines_version, r.created_at)
        versions[r.annotation_id].append(own)
        session.expunge(r)
    shown = (Presentation.task_id == Annotation.task_id) & (Presentation.person_id == Annotation.person_id)
    people = (
        select(Annotation, Person.name, Presentation)
        .join(Person, Person.id == Annotation.person_id)
        .join(Presentation, shown)
        .where(Annotation.task_id.in_(ids))
        .order_by(Annotation.task_id, Annotation.person_id)
    )
    found: dict[int, list[TaskAnnotation]] = defaultdict(list)
    for mine, name, seen in session.execute(people).tuples():
        if known := versions[mine.id]:
            final = mine.final if then is None else mine.id in then.final and known[-1].status == "submitted"
            annotation = TaskAnnotation(mine.id, mine.person_id, name, seen.places, seen.shown_at, tuple(known), final)
            found[mine.task_id].append(annotation)
        session.expunge(mine)
        session.expunge(seen)
    return found
