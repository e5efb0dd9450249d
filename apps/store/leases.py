"""Leases: a task kept for a person while they work on it, and what of it is free for others."""

from __future__ import annotations

import math
import random
import secrets
from typing import Any

from sqlalchemy import Select, exists, func, select, update
from sqlalchemy.orm import Session

from apps.store.errors import NotYours
from apps.store.projects import take_places
from apps.store.settings import Settings
from apps.store.tables import Assignment, Lease, Person, Presentation, Task, TaskOutput


class PublicId(int):
    """The number by which a browser names a task. Functions that take a task's id take this one too."""


def shown_task(session: Session, task_id: int, person_id: int) -> Task:
    """A task that this person was given at some time. Raises `NotYours` for any other, or if they were erased."""
    name = Task.public_id if isinstance(task_id, PublicId) else Task.id
    shown = select(Task, Presentation).join(Presentation, Presentation.task_id == Task.id)
    erased = exists().where(Person.id == Presentation.person_id, Person.erased_at.is_not(None))
    shown = shown.where(name == int(task_id), Presentation.person_id == person_id, ~erased)
    found = session.execute(shown).tuples().first()
    if found is None:
        raise NotYours
    return found[0]


def is_fresh(lease: Lease, settings: Settings, now: float) -> bool:
    """Whether more than half of a lease's time is left: then a sign of life renews nothing, and need not wait to write.

    One that ends later than a lease that begins now is from before the clock was set back, and is not fresh.
    """
    lasts = 60 * settings.lease_minutes
    return now + lasts / 2 < lease.expires_at <= now + lasts


def ends_at(lease: Lease, settings: Settings) -> float:
    """When the person's time for the task is over, where the project limits it: no lease is renewed beyond."""
    minutes = settings.limits.minutes
    return math.inf if minutes is None or lease.final else lease.began_at + 60 * minutes


def lease_for(session: Session, settings: Settings, task: Task, person_id: int, now: float, new: bool = False) -> Lease:
    """The person's lease on a task, made or renewed, and the order of the answers, drawn at the first time.

    Leases of others on it that ran out are ended for good, so that a clock that is set back cannot revive them.
    """
    lapsed = (Lease.task_id == task.id) & (Lease.person_id != person_id) & (Lease.expires_at <= now)
    session.execute(update(Lease).where(lapsed, Lease.expires_at > 0).values(expires_at=0))
    lease = session.get(Lease, (task.id, person_id))
    if lease is None:
        lease = Lease(task_id=task.id, person_id=person_id, token=secrets.token_urlsafe(16), began_at=now, final=False)
        session.add(lease)
    elif new or lease.expires_at == 0:
        lease.token, lease.began_at = secrets.token_urlsafe(16), now
    lease.began_at = min(lease.began_at, now)  # the clock may have been set back
    lease.expires_at = min(now + 60 * settings.lease_minutes, ends_at(lease, settings))
    if session.get(Presentation, (task.id, person_id)) is None:
        places = _shuffled(session, settings, task, person_id)
        session.add(Presentation(task_id=task.id, person_id=person_id, places=places, shown_at=now))
        task.shown = True
    session.flush()
    return lease


def n_free(session: Session, task: Task, person_id: int, now: float) -> int:
    """Places of a task that neither rankings nor live leases of others take. Practice and gold tasks have no end."""
    if task.kind != "rank":
        return 1
    return task.required - task.n_done - (session.scalar(held_by_others(task.id, person_id, now)) or 0)


def may_hold(session: Session, task: Task, lease: Lease, now: float) -> bool:
    """Whether a person can go on with a task: a place is free for them, or they are to decide it, which needs none."""
    return lease.final or n_free(session, task, lease.person_id, now) > 0


def held_by_others(task_id: Any, person_id: int, now: float) -> Select[int]:
    """How many others hold one of a task's places."""
    held = select(func.count()).select_from(Lease).where(Lease.task_id == task_id, Lease.person_id != person_id)
    return held.where(Lease.expires_at > now, ~Lease.final)


def shorten(session: Session, project_id: int, longest: float) -> None:
    """No lease ends later than one that begins now, though the clock was set back since: nobody is locked out by it."""
    here = exists().where(Task.id == Lease.task_id, Task.project_id == project_id)
    session.execute(
        update(Lease)
        .where(Lease.expires_at > longest, here)
        .values(expires_at=longest)
        .execution_options(synchronize_session=False)
    )


def put_back(session: Session, task: Task) -> None:
    """Puts a task behind the queue, open if it lacks rankings: whoever passed by its old place will meet it again."""
    task.place = take_places(session, task.project_id, 1)
    if task.status == "done" and task.n_done < task.required:
        task.status = "open"
    if task.assigned:
        session.execute(update(Assignment).where(Assignment.task_id == task.id).values(place=task.place))
    session.flush()


def _shuffled(session: Session, settings: Settings, task: Task, person_id: int) -> list[int]:
    """The order of a task's answers for a person: a function of the seed, the person and the task."""
    n = session.scalar(select(func.count()).select_from(TaskOutput).where(TaskOutput.task_id == task.id)) or 0
    places = list(range(n))
    random.Random(f"{settings.seed}:order:{person_id}:{task.hash}").shuffle(places)
    return places
