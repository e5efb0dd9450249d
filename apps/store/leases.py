"""Leases: a task is reserved for a person while they work on it. Also counts the places that are free for others."""

from __future__ import annotations

import math
import random
import secrets
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Text, bindparam, exists, func, select, type_coerce, update
from sqlalchemy.orm import Session, aliased

from apps.store.engine import Store, is_shared
from apps.store.errors import NotYours
from apps.store.projects import settings_in, take_places
from apps.store.settings import Settings
from apps.store.tables import Annotation, Assignment, Draft, Lease, Person, Presentation, Project, Task, TaskOutput


class PublicId(int):
    """The task number that browsers see. Functions that take a task's id accept this one too."""


class PersonTask(NamedTuple):
    """A task that a person was given, with all their rows about it."""

    task: Task
    presentation: Presentation
    lease: Lease
    draft: Draft | None
    mine: Annotation | None
    settings: Settings


class LeaseState(NamedTuple):
    """The columns that a heartbeat or a draft needs."""

    task_id: int
    token: str
    expires_at: float
    began_at: float
    final: bool
    rev: int | None  # of the draft, if there is one
    draft: dict[str, Any] | None
    settings: Settings


def person_task(session: Session, task_id: int, person_id: int) -> PersonTask:
    """A person's task. Raises `NotYours` for a task that they were never given, or if they were erased."""
    found = session.execute(
        PERSON_TASK[isinstance(task_id, PublicId)], {"task": int(task_id), "person": person_id}
    ).first()
    if found is None:
        raise NotYours
    *rows, settings = found
    return PersonTask._make([*rows, settings_in(settings)])


def lock(session: Session, task_id: int) -> None:
    """Locks a task: no other transaction changes its places until this one ends."""
    if is_shared(session):
        session.connection().execute(LOCK[isinstance(task_id, PublicId)], {"task": int(task_id)})


def lease_state(store: Store, task_id: int, person_id: int) -> LeaseState:
    """The lease's state, read without a transaction. Raises `NotYours` as `person_task`."""
    with store.read_one() as connection:
        of_person = {"task": int(task_id), "person": person_id}
        found = connection.execute(LEASE_STATE[isinstance(task_id, PublicId)], of_person).first()
    if found is None:
        raise NotYours
    *values, settings = found
    return LeaseState._make([*values, settings_in(settings)])


def shown_task(session: Session, task_id: int, person_id: int) -> Task:
    """A task that this person was given at some time. Raises `NotYours` as `person_task`."""
    return person_task(session, task_id, person_id).task


def is_fresh(lease: Lease | LeaseState, settings: Settings, now: float) -> bool:
    """Whether more than half of a lease's time is left: then a heartbeat renews nothing and need not write.

    A lease that ends later than a new one would end was made before the clock was set back; it is not fresh.
    """
    lasts = 60 * settings.lease_minutes
    return now + lasts / 2 < lease.expires_at <= now + lasts


def ends_at(lease: Lease | LeaseState, settings: Settings) -> float:
    """When the person's time for the task is over, infinity without a limit; no lease is renewed beyond it."""
    minutes = settings.limits.minutes
    return math.inf if minutes is None or lease.final else lease.began_at + 60 * minutes


def lease_for(session: Session, settings: Settings, task: Task, person_id: int, now: float, new: bool = False) -> Lease:
    """Makes or renews the person's lease on a task; at the first time it draws the order of the answers.

    Expired leases of others on the task are ended for good, so that setting the clock back cannot revive them.
    """
    values = {"task": task.id, "person": person_id, "now": now}
    lease, presentation, n_answers, have_lapsed = session.execute(OWN, values).one()
    if have_lapsed:
        session.connection().execute(LAPSED, values)
    if lease is None:
        lease = Lease(task_id=task.id, person_id=person_id, token=secrets.token_urlsafe(16), began_at=now, final=False)
        session.add(lease)
    elif new or lease.expires_at == 0:
        lease.token, lease.began_at = secrets.token_urlsafe(16), now
    lease.began_at = min(lease.began_at, now)  # the clock may have been set back
    lease.expires_at = min(now + 60 * settings.lease_minutes, ends_at(lease, settings))
    if presentation is None:
        places = _shuffled(n_answers, settings, task, person_id)
        session.add(Presentation(task_id=task.id, person_id=person_id, places=places, shown_at=now))
        task.shown = True
    session.flush()
    return lease


def n_free(session: Session, task: Task, person_id: int, now: float) -> int:
    """The task's places not taken by rankings or by live leases of others. Practice and gold tasks have no limit."""
    if task.kind != "rank":
        return 1
    return task.required - task.n_done - (session.scalar(held_by_others(task.id, person_id, now)) or 0)


def may_hold(session: Session, task: Task, lease: Lease, now: float) -> bool:
    """Whether a person can continue a task: a place is free, or they adjudicate it, which needs none."""
    return lease.final or n_free(session, task, lease.person_id, now) > 0


def held_by_others(task_id: Any, person_id: int, now: float) -> Select[int]:
    """The number of other people who hold one of the task's places."""
    held = select(func.count()).select_from(Lease).where(Lease.task_id == task_id, Lease.person_id != person_id)
    return held.where(Lease.expires_at > now, ~Lease.final)


def cap_leases(session: Session, project_id: int, longest: float) -> None:
    """Shortens leases that end later than a new one would, so that setting the clock back locks nobody out."""
    session.connection().execute(TOO_LONG, {"project": project_id, "longest": longest})


def put_back(session: Session, *tasks: Task) -> None:
    """Moves tasks to the end of the queue, open if they lack rankings: people who passed them will meet them again."""
    for task in tasks:
        task.place = take_places(session, task.project_id, 1)
        if task.status == "done" and task.n_done < task.required:
            task.status = "open"
        if task.assigned:
            session.execute(update(Assignment).where(Assignment.task_id == task.id).values(place=task.place))
    session.flush()


def _shuffled(n_answers: int, settings: Settings, task: Task, person_id: int) -> list[int]:
    """The order of a task's answers for a person; depends only on the seed, the person and the task."""
    places = list(range(n_answers))
    random.Random(f"{settings.seed}:order:{person_id}:{task.hash}").shuffle(places)
    return places


def _of_person(*wanted: Any) -> dict[bool, Select[Any]]:
    """Queries for a task with a person's rows about it: by its id (False) and by its public id (True)."""
    mine = select(*wanted).select_from(Task).join(Presentation, _theirs(Presentation)).join(Lease, _theirs(Lease))
    mine = mine.where(~exists().where(Person.id == bindparam("person"), Person.erased_at.is_not(None)))
    mine = mine.outerjoin(Draft, _theirs(Draft)).outerjoin(Annotation, _theirs(Annotation))
    names = {False: Task.id, True: Task.public_id}
    return {key: mine.where(name == bindparam("task")) for key, name in names.items()}


def _theirs(table: Any) -> ColumnElement[bool]:
    return (table.task_id == Task.id) & (table.person_id == bindparam("person"))


def _has_lapsed(lease: Any) -> ColumnElement[bool]:
    """Whether a lease is another person's on the task and has expired."""
    is_others: ColumnElement[bool] = (lease.task_id == bindparam("task")) & (lease.person_id != bindparam("person"))
    return is_others & (lease.expires_at <= bindparam("now")) & (lease.expires_at > 0)


# Built once: nearly every call runs these, and building a query takes longer than running it.
LOCK = {
    key: select(Task.id).where(name == bindparam("task")).with_for_update(key_share=True)
    for key, name in ((False, Task.id), (True, Task.public_id))
}
_SETTINGS = select(type_coerce(Project.settings, Text)).where(Project.id == Task.project_id).scalar_subquery()
PERSON_TASK = _of_person(Task, Presentation, Lease, Draft, Annotation, _SETTINGS)
_OF_LEASE = (Lease.token, Lease.expires_at, Lease.began_at, Lease.final)
LEASE_STATE = _of_person(Task.id, *_OF_LEASE, Draft.rev, Draft.payload, _SETTINGS)
LAPSED = update(Lease).where(_has_lapsed(Lease)).values(expires_at=0)
TOO_LONG = (
    update(Lease)
    .where(Lease.expires_at > bindparam("longest"))
    .where(exists().where(Task.id == Lease.task_id, Task.project_id == bindparam("project")))
    .values(expires_at=bindparam("longest"))
)
_N_ANSWERS = select(func.count()).select_from(TaskOutput).where(TaskOutput.task_id == Task.id).scalar_subquery()
OWN = (
    select(Lease, Presentation, _N_ANSWERS, exists().where(_has_lapsed(aliased(Lease))))
    .select_from(Task)
    .outerjoin(Lease, _theirs(Lease))
    .outerjoin(Presentation, _theirs(Presentation))
    .where(Task.id == bindparam("task"))
)
