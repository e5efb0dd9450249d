"""How far a project is, and what is left: for the annotators' page, the lead's and the terminal."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import bindparam, case, func, select
from sqlalchemy.orm import Session

from apps.store.engine import Store
from apps.store.judgments import known_agreement
from apps.store.projects import settings_of
from apps.store.tables import Annotation, Desk, Event, Lease, Person, Revision, Task

DAY_S = 86400.0
N_TIMED = 1000  # the latest rankings, whose seconds are looked at
QUICK_S, RESTS = 0.005, 20  # what takes longer to count is counted again only after so many times as long
_KEPT: WeakKeyDictionary[Store, dict[int, tuple[float, tuple[int, int]]]] = WeakKeyDictionary()  # until when, and what

# Asked after each ranking, so they are put together once.
LATEST = (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions)
MINE = (
    select(Annotation.status, func.count().label("n"), func.sum(Revision.seconds).label("seconds"))
    .join(Revision, LATEST)
    .where(Annotation.project_id == bindparam("project"), Annotation.person_id == bindparam("person"))
    .group_by(Annotation.status)
)
TOTALS = select(func.count(), func.coalesce(func.sum(case((Task.status == "done", 1), else_=0)), 0)).where(
    Task.project_id == bindparam("project"), Task.kind == "rank", Task.status != "closed"
)


class PersonProgress(NamedTuple):
    """What one person has done."""

    id: int
    name: str
    role: str
    active: bool
    n_submitted: int
    n_skipped: int
    n_flagged: int
    n_extra: int
    median_seconds: float | None
    last_at: float | None
    gold_agreement: float | None  # the mean over gold tasks
    practice_agreement: float | None
    n_gold: int


class Progress(NamedTuple):
    """What a project has done and what is left."""

    n_tasks: int  # ranking tasks that are not closed
    n_done: int  # of them, ranked by as many people as asked for
    n_rankings: int  # that count, of the ranking tasks
    n_wanted: int  # n_tasks times overlap
    n_skipped: int
    n_flagged: int
    n_extra: int
    n_held: int  # tasks that are open at somebody's
    median_seconds: float | None  # of the latest 1000
    n_last_day: int
    person_seconds_left: float | None  # what is wanted and not there, at the median
    seconds_left: float | None  # the same at the pace of the last day
    people: tuple[PersonProgress, ...]


class Mine(NamedTuple):
    """A person's own progress."""

    n_submitted: int
    n_skipped: int
    n_flagged: int
    seconds: float  # spent on what was submitted
    n_tasks: int
    n_done: int  # in large steps: one by one it would tell gold tasks, which do not count


def progress(store: Store, project_id: int) -> Progress:
    """The whole project's."""
    now = store.clock()
    with store.read() as session:
        settings_of(session, project_id)  # that it is there
        tasks = (Task.project_id == project_id) & (Task.kind == "rank") & (Task.status != "closed")
        counted = select(func.count(), func.coalesce(func.sum(Task.required), 0)).select_from(Task).where(tasks)
        n_tasks, n_wanted = session.execute(counted).one()
        n_done = session.scalar(select(func.count()).select_from(Task).where(tasks, Task.status == "done")) or 0
        n_rankings = session.scalar(select(func.coalesce(func.sum(Task.n_done), 0)).where(tasks)) or 0
        people = _people(session, project_id)
        seconds = _seconds(session, project_id)
        n_last_day = _n_since(session, project_id, now - DAY_S)
        held = select(func.count()).select_from(Lease).join(Task, Task.id == Lease.task_id)
        n_held = session.scalar(held.where(Task.project_id == project_id, Lease.expires_at > now)) or 0
    n_left = max(0, n_wanted - n_rankings)
    return Progress(
        n_tasks=n_tasks,
        n_done=n_done,
        n_rankings=n_rankings,
        n_wanted=n_wanted,
        n_skipped=sum(person.n_skipped for person in people),
        n_flagged=sum(person.n_flagged for person in people),
        n_extra=sum(person.n_extra for person in people),
        n_held=n_held,
        median_seconds=seconds,
        n_last_day=n_last_day,
        person_seconds_left=None if seconds is None else n_left * seconds,
        seconds_left=n_left * DAY_S / n_last_day if n_last_day else None,
        people=tuple(people),
    )


def mine(store: Store, project_id: int, person_id: int) -> Mine:
    """A person's own."""
    with store.look() as connection:
        said = connection.execute(MINE, {"project": project_id, "person": person_id})
        rows = {row.status: row for row in said}
    counts = {status: row.n for status, row in rows.items()}
    n_tasks, n_done = _totals(store, project_id)
    return Mine(
        n_submitted=counts.get("submitted", 0),
        n_skipped=counts.get("skipped", 0),
        n_flagged=counts.get("flagged", 0),
        seconds=sum(row.seconds for row in rows.values()),
        n_tasks=n_tasks,
        n_done=n_done,
    )


def _totals(store: Store, project_id: int) -> tuple[int, int]:
    """How many tasks there are, and are done. Where it takes long to count them, they are not counted at each call."""
    kept = _KEPT.setdefault(store, {})
    began = time.monotonic()
    if project_id in kept and began < kept[project_id][0]:
        return kept[project_id][1]
    with store.look() as connection:
        n_tasks, n_done = connection.execute(TOTALS, {"project": project_id}).one()
    n_done -= n_done % max(5, n_tasks // 20) if n_done < n_tasks else 0
    took = time.monotonic() - began
    kept[project_id] = began + (RESTS * took if took > QUICK_S else 0.0), (n_tasks, n_done)
    return n_tasks, n_done


def _counts(session: Session, project_id: int, person_id: int) -> dict[str, int]:
    query = select(Annotation.status, func.count()).group_by(Annotation.status)
    rows = session.execute(query.where(Annotation.project_id == project_id, Annotation.person_id == person_id))
    return dict(rows.tuples().all())


def _people(session: Session, project_id: int) -> list[PersonProgress]:
    """Everybody who has a desk in this project, by name."""
    query = (
        select(Person).join(Desk, Desk.person_id == Person.id).where(Desk.project_id == project_id).order_by(Person.key)
    )
    return [_person(session, project_id, person) for person in session.scalars(query)]


def _person(session: Session, project_id: int, person: Person) -> PersonProgress:
    counts = _counts(session, project_id, person.id)
    here = (Annotation.project_id == project_id) & (Annotation.person_id == person.id)
    n_extra = session.scalar(select(func.count()).select_from(Annotation).where(here, Annotation.extra)) or 0
    latest = (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions)
    last = select(Revision.created_at).join(Annotation, latest).where(here).order_by(Annotation.turn.desc()).limit(1)
    gold, practice = (known_agreement(session, project_id, person.id, kind) for kind in ("gold", "practice"))
    return PersonProgress(
        id=person.id,
        name=person.name,
        role=person.role,
        active=person.active,
        n_submitted=counts.get("submitted", 0),
        n_skipped=counts.get("skipped", 0),
        n_flagged=counts.get("flagged", 0),
        n_extra=n_extra,
        median_seconds=_seconds(session, project_id, person.id),
        last_at=session.scalar(last),
        gold_agreement=sum(gold) / len(gold) if gold else None,
        practice_agreement=sum(practice) / len(practice) if practice else None,
        n_gold=len(gold),
    )


def _seconds(session: Session, project_id: int, person_id: int | None = None) -> float | None:
    """The median of the latest rankings."""
    latest = (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions)
    query = select(Revision.seconds).join(Annotation, latest).where(Annotation.project_id == project_id)
    query = query.where(Annotation.status == "submitted", Revision.seconds > 0)
    if person_id is not None:
        query = query.where(Annotation.person_id == person_id)
    found = session.scalars(query.order_by(Annotation.turn.desc()).limit(N_TIMED)).all()
    return float(median(found)) if found else None


def _n_since(session: Session, project_id: int, since: float) -> int:
    """How many rankings were said or revised since then."""
    first = session.scalar(select(func.min(Event.seq)).where(Event.at > since))
    if first is None:
        return 0
    query = select(func.count()).select_from(Annotation).where(Annotation.project_id == project_id)
    query = query.where(Annotation.turn >= first, Annotation.status == "submitted", ~Annotation.extra)
    return session.scalar(query) or 0
