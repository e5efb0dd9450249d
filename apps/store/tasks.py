"""Handing out tasks, for as long as a person works on them; and what a lead decides about who gets which, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Text, bindparam, case, delete, insert, select, type_coerce
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, defer

from apps.store import events, people
from apps.store.choosing import Nothing, held, next_task, why_not
from apps.store.engine import Store, alone, is_beside
from apps.store.errors import LeaseLost, NotYours, Refused
from apps.store.leases import ends_at, glance, is_fresh, lease_for, may_hold, put_back, seat, shorten, shown_task
from apps.store.projects import NEW_DESK, desk_of, settings_in, settings_of, take_places
from apps.store.revisions import add_revision, counts
from apps.store.settings import Settings
from apps.store.tables import (
    Annotation,
    Assignment,
    Desk,
    Lease,
    Output,
    Person,
    Project,
    Prompt,
    Revision,
    Task,
    TaskOutput,
)

Payload = dict[str, Any]
N_AT_ONCE = 1000  # ids in one query


# Put together once, since each claim asks them.
_AT_DESK = (
    select(Person, Project, Desk, type_coerce(Project.settings, Text))
    .select_from(Person)
    .join(Project, Project.id == bindparam("project"))
    .where(Person.id == bindparam("person"), Person.active)
    .options(defer(Project.guidelines), defer(Project.settings))
)
_THEIRS = (Desk.person_id == Person.id) & (Desk.project_id == Project.id)
AT_DESK = _AT_DESK.outerjoin(Desk, _THEIRS)
LOCKED_DESK = _AT_DESK.join(Desk, _THEIRS).with_for_update(of=Desk, key_share=True)
ADD_DESK = postgresql.insert(Desk).on_conflict_do_nothing()
TEXTS = (
    select(Output.text, case((TaskOutput.place == 0, Prompt.messages)))
    .select_from(TaskOutput)
    .join(Output, Output.id == TaskOutput.output_id)
    .join(Prompt, Prompt.id == Output.prompt_id)
    .where(TaskOutput.task_id == bindparam("task"))
    .order_by(TaskOutput.place)
)


class Given(NamedTuple):
    """A task as a person may see it: blind, the answers in their own order."""

    id: int
    public_id: int  # what a browser knows it by
    kind: str  # "rank" or "practice": a gold task looks like any other
    lease: str
    expires_at: float
    ends_at: float | None  # when the person's time for it is over, where the project limits it
    messages: list[dict[str, Any]]  # {role, content, ...}, as `apps.label.importing.kept_turn` writes them
    answers: list[str]  # by slot
    draft: Payload | None
    draft_rev: int
    annotation: str | None  # the id of what this person said before, if anything
    status: str | None  # of that annotation: submitted, skipped, flagged, undone
    revision: int  # of that annotation, 0 if there is none
    payload: Payload | None  # what it says now


def claim(store: Store, project_id: int, person_id: int) -> Given | Nothing:
    """The next task for a person: the one that they hold already, one whose lease ran out and that is still free,
    a practice or a gold task where the project asks for it, the first that is assigned to them or the first in the
    queue. Nothing new while they are paused, or have done as much as they may.
    """
    now = store.clock()

    def claimed(session: Session) -> Given | Nothing:
        asked, of_person = LOCKED_DESK if is_beside(session) else AT_DESK, {"project": project_id, "person": person_id}
        found = session.execute(asked, of_person).tuples().first()
        if found is None and is_beside(session):
            new = {"project_id": project_id, "person_id": person_id} | NEW_DESK
            session.connection().execute(ADD_DESK, new)
            found = session.execute(asked, of_person).tuples().first()
        if found is None:
            raise NotYours("project")
        person, _, desk, text = found
        settings, desk = settings_in(text), desk or desk_of(session, project_id, person_id)
        shorten(session, project_id, now + 60 * settings.lease_minutes)
        task = held(session, settings, project_id, person_id, now)
        if task is not None:
            alone(session)
        elif refused := why_not(session, settings, desk, now):
            return refused
        else:
            next_one = next_task(session, settings, desk, person, now)
            if isinstance(next_one, Nothing):
                return next_one
            task = next_one
            desk.n_claims += 1
        lease_for(session, settings, task, person_id, now)
        return given(session, settings, task, person_id)

    return store.beside(claimed)


def heartbeat(store: Store, person_id: int, task_id: int, token: str) -> float:
    """Keeps a task for longer, if half of its time is used. Returns until when.

    Raises `LeaseLost` for a lease that ran out, or was replaced, while others took all places, and when the time that
    the project gives for a task is over; `NotYours` for a task that this person was never given.
    """
    now = store.clock()
    seen = glance(store, task_id, person_id)
    if seen.token == token and is_fresh(seen, seen.settings, now):
        return seen.expires_at
    with store.write() as session:
        task = shown_task(session, task_id, person_id)
        lease, settings = session.get_one(Lease, (task.id, person_id)), settings_of(session, task.project_id)
        if lease.token == token and ends_at(lease, settings) <= now:
            raise LeaseLost(
                f"the time for this task is over ({settings.limits.minutes:g} minutes); your draft is kept, and what "
                "you send now counts unless others have taken its place"
            )
        if lease.token != token or lease.expires_at == 0 or not may_hold(session, task, lease, now):
            raise LeaseLost(
                "this task was given to somebody else meanwhile; your draft is kept, go on with the next task"
            )
        return lease_for(session, settings, task, person_id, now).expires_at


def release(store: Store, person_id: int, task_id: int, token: str) -> None:
    """Gives a task back, so that others can have it. The draft stays."""
    with store.write() as session:
        task = shown_task(session, task_id, person_id)
        lease = session.get_one(Lease, (task.id, person_id))
        if lease.token == token:
            lease.expires_at = 0


def close_task(store: Store, task_id: int, by: int | None = None) -> None:
    """Takes a task out of the queue, whatever it still lacks. What was said about it stays."""
    _set_status(store, task_id, "closed", by)


def reopen_task(store: Store, task_id: int, by: int | None = None) -> None:
    """Puts a closed task behind the queue again, if it lacks rankings."""
    _set_status(store, task_id, "open", by)


def given(session: Session, settings: Settings, task: Task, person_id: int) -> Given:
    """A task as its person sees it."""
    _, presentation, lease, draft, mine, _ = seat(session, task.id, person_id)
    rows = session.connection().execute(TEXTS, {"task": task.id}).all()
    latest = session.get(Revision, (mine.id, mine.n_revisions)) if mine else None
    return Given(
        id=task.id,
        public_id=task.public_id,
        kind="practice" if task.kind == "practice" else "rank",
        lease=lease.token,
        expires_at=lease.expires_at,
        ends_at=None if math.isinf(end := ends_at(lease, settings)) else end,
        messages=rows[0][1],
        answers=[rows[place][0] for place in presentation.places],
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


def assign(store: Store, project_id: int, task_ids: Sequence[int], names: Sequence[str], by: int | None = None) -> int:
    """Gives tasks to these people and to nobody else, to them before all others; returns how many.

    Who holds one already may finish it. In the order of the queue; who had them before keeps none of them. Raises
    `Refused` for a name that nobody has or who is shut out, and for a task that is not this project's to rank.
    """
    found = {people.by_name(store, name) for name in names}
    if out := sorted(person.name for person in found if not person.active):
        raise Refused(f"people: {out[0]} is shut out; name somebody else, or let them in again")
    ids = sorted(person.id for person in found)
    if not ids:
        raise Refused("people: nobody is named; name one at least, or take the assignment back")
    with store.write() as session:
        tasks = _ranking_tasks(session, project_id, task_ids)
        _end_assignments(session, tasks)
        first = take_places(session, project_id, len(tasks))
        rows = []
        for place, task in enumerate(tasks, start=first):
            task.assigned = True
            own = {"task_id": task.id, "project_id": project_id, "place": place}
            rows += [own | {"person_id": person} for person in ids]
        if rows:
            session.execute(insert(Assignment), rows)
        data = {"tasks": [task.id for task in tasks], "people": ids}
        events.append(session, store.clock(), by, "assign", str(project_id), data)
        return len(tasks)


def unassign(store: Store, project_id: int, task_ids: Sequence[int], by: int | None = None) -> int:
    """Gives tasks to everybody again: they go behind the queue. Returns how many were assigned."""
    with store.write() as session:
        found = [task for task in _ranking_tasks(session, project_id, task_ids) if task.assigned]
        _end_assignments(session, found)
        for task in found:
            task.assigned = False
        put_back(session, *found)
        data = {"tasks": [task.id for task in found]}
        events.append(session, store.clock(), by, "unassign", str(project_id), data)
        return len(found)


def pause(store: Store, project_id: int, paused: bool, by: int | None = None) -> None:
    """Gives nobody a task until this is taken back. Who has one can finish it, and change what they said."""
    with store.write() as session:
        settings_of(session, project_id)  # that it is there
        session.get_one(Project, project_id).paused = paused
        events.append(session, store.clock(), by, "pause" if paused else "resume", str(project_id), {})


def pause_person(store: Store, project_id: int, name: str, paused: bool, by: int | None = None) -> None:
    """The same for one person."""
    person = people.by_name(store, name)
    with store.write() as session:
        desk_of(session, project_id, person.id).paused = paused
        data = {"person": person.id}
        events.append(session, store.clock(), by, "pause" if paused else "resume", str(project_id), data)


def limit_person(store: Store, project_id: int, name: str, most: int | None, by: int | None = None) -> None:
    """The most rankings that somebody may do in this project; None: as many as project.yaml says."""
    if most is not None and not 0 <= most < 2**31:
        raise Refused(f"most: {most}; give a whole number from 0 on, or none")
    person = people.by_name(store, name)
    with store.write() as session:
        desk_of(session, project_id, person.id).most = most
        data = {"person": person.id, "most": most}
        events.append(session, store.clock(), by, "limit", str(project_id), data)


def reset_practice(store: Store, project_id: int, name: str, by: int | None = None) -> int:
    """Lets somebody do all practice tasks again: what they said about them is taken back. Returns how many."""
    now = store.clock()
    person = people.by_name(store, name)
    with store.write() as session:
        done = select(Annotation, Task).join(Task, Task.id == Annotation.task_id).where(Task.kind == "practice")
        done = done.where(Annotation.project_id == project_id, Annotation.person_id == person.id)
        rows = session.execute(done.where(Annotation.status != "undone").order_by(Annotation.turn)).tuples().all()
        desk_of(session, project_id, person.id).qualified = False
        for mine, task in rows:
            task.n_done -= counts(mine)
        for mine, _ in rows:
            add_revision(session, mine, "undone", {}, 0.0, now)
        data = {"person": person.id, "tasks": len(rows)}
        events.append(session, now, by, "reset_practice", str(project_id), data)
        return len(rows)


def portions(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """So many ids that a query can hold them."""
    for first in range(0, len(ids), N_AT_ONCE):
        yield ids[first : first + N_AT_ONCE]


def _end_assignments(session: Session, of: list[Task]) -> None:
    for ids in portions([task.id for task in of]):
        session.execute(delete(Assignment).where(Assignment.task_id.in_(ids)))


def _ranking_tasks(session: Session, project_id: int, task_ids: Sequence[int]) -> list[Task]:
    """Tasks of this project that people rank, in the order of the queue. Raises `Refused` if one is none."""
    wanted = set(task_ids)
    found: list[Task] = []
    for ids in portions(sorted(wanted)):
        found += session.scalars(select(Task).where(Task.project_id == project_id, Task.id.in_(ids)))
    found = [task for task in found if task.kind == "rank"]
    if missing := wanted - {task.id for task in found}:
        raise Refused(f"there is no task {min(missing)} to rank in this project")
    return sorted(found, key=lambda task: task.place)


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
