"""Handing out tasks: which one comes next for a person, and for how long it is theirs.

A task is given to somebody who has not ranked, skipped or flagged it, while rankings and live leases of others are
fewer than `required`. `Task.place` orders the queue and only grows. So a person's `Desk.place`, up to which they have
dealt with every open task, only grows too, and a claim begins there, however many tasks they have done.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, exists, func, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import LeaseLost, NotYours, Refused
from apps.store.projects import desk_of, settings_of, take_places
from apps.store.settings import Settings
from apps.store.tables import (
    Annotation,
    Desk,
    Draft,
    Lease,
    Output,
    Person,
    Presentation,
    Prompt,
    Revision,
    Task,
    TaskOutput,
)

Payload = dict[str, Any]


class Given(NamedTuple):
    """A task as a person may see it: blind, the answers in their own order."""

    id: int
    kind: str  # "rank" or "practice": a gold task looks like any other
    lease: str
    expires_at: float
    messages: list[dict[str, Any]]  # {role, content, ...}, as `apps.label.importing.kept_turn` writes them
    answers: list[str]  # by slot
    draft: Payload | None
    draft_rev: int
    annotation: str | None  # the id of what this person said before, if anything
    status: str | None  # of that annotation: submitted, skipped, flagged, undone
    revision: int  # of that annotation, 0 if there is none
    payload: Payload | None  # what it says now


class Nothing(NamedTuple):
    """There is no task to give. `retry_at` is when a lease of somebody else ends, if that may help."""

    reason: str  # empty, done, held, practice
    message: str
    retry_at: float | None = None


NOTHING = {
    "empty": "There are no tasks in this project yet.",
    "done": "You have done every task that is open to you. Thank you.",
    "held": "Others are working on the tasks that are left; some may become free again.",
    "practice": "All practice tasks are done, and too few pairs were as expected; please talk to who invited you.",
}


def claim(store: Store, project_id: int, person_id: int) -> Given | Nothing:
    """The next task for a person: the one that they hold already, one whose lease ran out and that is still free,
    a practice or a gold task where the project asks for it, or the first in the queue.
    """
    now = store.clock()
    with store.write() as session:
        settings = settings_of(session, project_id)
        person = session.get(Person, person_id)
        if person is None or not person.active:
            raise NotYours("project")
        desk = desk_of(session, project_id, person_id)
        _shorten(session, project_id, now + 60 * settings.lease_minutes)
        task = _held(session, project_id, person_id, now)
        if task is None:
            found = _next(session, settings, desk, person, now)
            if isinstance(found, Nothing):
                return found
            task = found
            desk.n_claims += 1
        lease_for(session, settings, task, person_id, now)
        return given(session, task, person_id)


def heartbeat(store: Store, person_id: int, task_id: int, token: str) -> float:
    """Keeps a task for longer, if half of its time is used. Returns until when.

    Raises `LeaseLost` for a lease that ran out, or was replaced, while others took all places; `NotYours` for a task
    that this person was never given.
    """
    now = store.clock()
    with store.read() as session:
        task = shown_task(session, task_id, person_id)
        lease = session.get_one(Lease, (task_id, person_id))
        if lease.token == token and is_fresh(lease, settings_of(session, task.project_id), now):
            return lease.expires_at
    with store.write() as session:
        task = shown_task(session, task_id, person_id)
        lease = session.get_one(Lease, (task_id, person_id))
        if lease.token != token or lease.expires_at == 0 or not _is_free(session, task, person_id, now):
            raise LeaseLost(
                "this task was given to somebody else meanwhile; your draft is kept, go on with the next task"
            )
        return lease_for(session, settings_of(session, task.project_id), task, person_id, now).expires_at


def release(store: Store, person_id: int, task_id: int, token: str) -> None:
    """Gives a task back, so that others can have it. The draft stays."""
    with store.write() as session:
        shown_task(session, task_id, person_id)
        lease = session.get_one(Lease, (task_id, person_id))
        if lease.token == token:
            lease.expires_at = 0


def close_task(store: Store, task_id: int, by: int | None = None) -> None:
    """Takes a task out of the queue, whatever it still lacks. What was said about it stays."""
    _set_status(store, task_id, "closed", by)


def reopen_task(store: Store, task_id: int, by: int | None = None) -> None:
    """Puts a closed task behind the queue again, if it lacks rankings."""
    _set_status(store, task_id, "open", by)


def shown_task(session: Session, task_id: int, person_id: int) -> Task:
    """A task that this person was given at some time. Raises `NotYours` for any other."""
    if session.get(Presentation, (task_id, person_id)) is None:
        raise NotYours
    return session.get_one(Task, task_id)


def is_fresh(lease: Lease, settings: Settings, now: float) -> bool:
    """Whether more than half of a lease's time is left: then a sign of life renews nothing, and need not wait to write.

    One that ends later than a lease that begins now is from before the clock was set back, and is not fresh.
    """
    lasts = 60 * settings.lease_minutes
    return now + lasts / 2 < lease.expires_at <= now + lasts


def lease_for(session: Session, settings: Settings, task: Task, person_id: int, now: float, new: bool = False) -> Lease:
    """The person's lease on a task, made or renewed, and the order of the answers, drawn at the first time.

    Leases of others on it that ran out are ended for good, so that a clock that is set back cannot revive them.
    """
    expires_at = now + 60 * settings.lease_minutes
    lapsed = (Lease.task_id == task.id) & (Lease.person_id != person_id) & (Lease.expires_at <= now)
    session.execute(update(Lease).where(lapsed, Lease.expires_at > 0).values(expires_at=0))
    lease = session.get(Lease, (task.id, person_id))
    if lease is None:
        lease = Lease(task_id=task.id, person_id=person_id, token=secrets.token_urlsafe(16), began_at=now)
        session.add(lease)
    elif new or lease.expires_at == 0:
        lease.token = secrets.token_urlsafe(16)
    lease.expires_at = expires_at
    if session.get(Presentation, (task.id, person_id)) is None:
        places = _shuffled(session, settings, task, person_id)
        session.add(Presentation(task_id=task.id, person_id=person_id, places=places, shown_at=now))
        task.shown = True
    session.flush()
    return lease


def given(session: Session, task: Task, person_id: int) -> Given:
    """A task as its person sees it."""
    lease = session.get_one(Lease, (task.id, person_id))
    places = session.get_one(Presentation, (task.id, person_id)).places
    prompt = session.get_one(Prompt, task.prompt_id)
    texts = outputs_of(session, task.id)
    draft = session.get(Draft, (task.id, person_id))
    mine = annotation_of(session, task.id, person_id)
    latest = session.get(Revision, (mine.id, mine.n_revisions)) if mine else None
    return Given(
        id=task.id,
        kind="practice" if task.kind == "practice" else "rank",
        lease=lease.token,
        expires_at=lease.expires_at,
        messages=prompt.messages,
        answers=[texts[place].text for place in places],
        draft=draft.payload if draft else None,
        draft_rev=draft.rev if draft else 0,
        annotation=mine.id if mine else None,
        status=mine.status if mine else None,
        revision=mine.n_revisions if mine else 0,
        payload=latest.payload if latest else None,
    )


def outputs_of(session: Session, task_id: int) -> Sequence[Output]:
    """A task's answers in the order of places."""
    query = select(Output).join(TaskOutput, TaskOutput.output_id == Output.id).where(TaskOutput.task_id == task_id)
    return session.scalars(query.order_by(TaskOutput.place)).all()


def annotation_of(session: Session, task_id: int, person_id: int) -> Annotation | None:
    """What a person said about a task."""
    return session.scalar(select(Annotation).where(Annotation.task_id == task_id, Annotation.person_id == person_id))


def n_free(session: Session, task: Task, person_id: int, now: float) -> int:
    """Places of a task that neither rankings nor live leases of others take. Practice and gold tasks have no end."""
    if task.kind != "rank":
        return 1
    return task.required - task.n_done - (session.scalar(_held_by_others(task.id, person_id, now)) or 0)


def put_back(session: Session, task: Task) -> None:
    """Puts a task behind the queue, open if it lacks rankings: whoever passed by its old place will meet it again."""
    task.place = take_places(session, task.project_id, 1)
    if task.status == "done" and task.n_done < task.required:
        task.status = "open"
    session.flush()


def _set_status(store: Store, task_id: int, status: str, by: int | None) -> None:
    with store.write() as session:
        task = session.get(Task, task_id)
        if task is None:
            raise Refused(f"there is no task {task_id}")
        if status == "closed":
            task.status = "closed"
        elif task.status == "closed":
            task.status = "done" if task.kind == "rank" and task.n_done >= task.required else "open"
            put_back(session, task)
        events.append(session, store.clock(), by, "close" if status == "closed" else "reopen", str(task_id), {})


def _shorten(session: Session, project_id: int, longest: float) -> None:
    """No lease ends later than one that begins now, though the clock was set back since: nobody is locked out by it."""
    here = exists().where(Task.id == Lease.task_id, Task.project_id == project_id)
    session.execute(
        update(Lease)
        .where(Lease.expires_at > longest, here)
        .values(expires_at=longest)
        .execution_options(synchronize_session=False)
    )


def _held(session: Session, project_id: int, person_id: int, now: float) -> Task | None:
    """A task that the person holds, or held until the lease ran out and can hold on to: the latest first."""
    leases = (
        select(Task, Lease.expires_at)
        .join(Lease, Lease.task_id == Task.id)
        .where(Lease.person_id == person_id, Lease.expires_at > 0, Task.project_id == project_id, Task.status == "open")
        .order_by(Lease.expires_at.desc())
    )
    for task, expires_at in session.execute(leases):
        if expires_at > now or _is_free(session, task, person_id, now):
            return task
    return None


def _is_free(session: Session, task: Task, person_id: int, now: float) -> bool:
    return n_free(session, task, person_id, now) > 0


def _next(session: Session, settings: Settings, desk: Desk, person: Person, now: float) -> Task | Nothing:
    """A task that the person does not hold yet."""
    if settings.practice.required and not desk.qualified and person.role == "annotator":
        practice = _practice(session, settings, desk)
        if practice is not None:
            return practice
    chance = random.Random(f"{settings.seed}:gold:{person.id}:{desk.n_claims}")
    if settings.gold.share and chance.random() < settings.gold.share:
        left = session.scalars(_open(desk, "gold").order_by(Task.place)).all()
        if left:
            return chance.choice(left)
    return _first_in_queue(session, desk, now)


def _practice(session: Session, settings: Settings, desk: Desk) -> Task | Nothing | None:
    """The next practice task; None once enough were done well enough."""
    from apps.store.judgments import practice_agreement

    done = practice_agreement(session, desk.project_id, desk.person_id)
    if len(done) >= settings.practice.required and sum(done) / len(done) >= settings.practice.pass_share:
        desk.qualified = True
        return None
    task = session.scalar(_open(desk, "practice").order_by(Task.place).limit(1))
    return _nothing("practice") if task is None else task


def _first_in_queue(session: Session, desk: Desk, now: float) -> Task | Nothing:
    ahead = _open(desk, "rank", Task.place > desk.place).order_by(Task.place).limit(1)
    free = Task.n_done + _held_by_others(Task.id, desk.person_id, now).scalar_subquery() < Task.required
    first = session.execute(ahead.add_columns(free)).first()
    if first is None:  # every open task is behind this person
        last = select(func.max(Task.place)).where(*_in_queue(desk))
        desk.place = max(desk.place, session.scalar(last) or 0)
        return _nothing("done" if _has_tasks(session, desk.project_id) else "empty")
    task, is_free = first
    desk.place = task.place - 1
    if is_free:
        return task
    task = session.scalar(ahead.where(free))
    if task is not None:
        return task
    live = select(func.min(Lease.expires_at)).join(Task, Task.id == Lease.task_id)
    return _nothing("held", session.scalar(live.where(Task.project_id == desk.project_id, Lease.expires_at > now)))


def _open(desk: Desk, kind: str, *more: ColumnElement[bool]) -> Select[Task]:
    """The open tasks of a kind that a person has not dealt with."""
    dealt_with = exists().where(
        Annotation.task_id == Task.id, Annotation.person_id == desk.person_id, Annotation.status != "undone"
    )
    return select(Task).where(*_in_queue(desk, kind), *more, ~dealt_with)


def _in_queue(desk: Desk, kind: str = "rank") -> tuple[ColumnElement[bool], ...]:
    return Task.project_id == desk.project_id, Task.kind == kind, Task.status == "open"


def _held_by_others(task_id: Any, person_id: int, now: float) -> Select[int]:
    """How many others hold a task."""
    held = select(func.count()).select_from(Lease).where(Lease.task_id == task_id, Lease.person_id != person_id)
    return held.where(Lease.expires_at > now)


def _has_tasks(session: Session, project_id: int) -> bool:
    return (
        session.scalar(select(Task.id).where(Task.project_id == project_id, Task.kind == "rank").limit(1)) is not None
    )


def _nothing(reason: str, retry_at: float | None = None) -> Nothing:
    return Nothing(reason, NOTHING[reason], retry_at)


def _shuffled(session: Session, settings: Settings, task: Task, person_id: int) -> list[int]:
    """The order of a task's answers for a person: a function of the seed, the person and the task."""
    n = session.scalar(select(func.count()).select_from(TaskOutput).where(TaskOutput.task_id == task.id)) or 0
    places = list(range(n))
    random.Random(f"{settings.seed}:order:{person_id}:{task.hash}").shuffle(places)
    return places
