"""Handing out tasks on leases, and a lead's control of them: close, assign, pause, limit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Text, bindparam, case, delete, insert, select, type_coerce
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, defer

from apps.store import events, people
from apps.store.choosing import NoTask, check_limits, held_task, next_task
from apps.store.engine import Store, is_shared, require_exclusive
from apps.store.errors import LeaseLost, NotYours, Refused
from apps.store.leases import (
    cap_leases,
    ends_at,
    is_fresh,
    lease_for,
    lease_state,
    may_hold,
    person_task,
    put_back,
    shown_task,
)
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


# Built once, since each claim runs them.
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


class TaskView(NamedTuple):
    """A task as its annotator sees it: without model names, the answers in the person's own order."""

    id: int
    public_id: int  # the id that browsers see
    kind: str  # "rank" or "practice": a gold task looks like any other
    lease: str
    expires_at: float
    ends_at: float | None  # when the project's time limit for the task ends
    messages: list[dict[str, Any]]  # {role, content, ...}, as `apps.label.importing.stored_message` writes them
    answers: list[str]  # by slot
    draft: Payload | None
    draft_rev: int
    annotation: str | None  # the id of this person's annotation, if there is one
    status: str | None  # of that annotation: submitted, skipped, flagged, undone
    revision: int  # of that annotation, 0 if there is none
    payload: Payload | None  # of its latest revision


def claim(store: Store, project_id: int, person_id: int) -> TaskView | NoTask:
    """The next task for a person. In this order: the task that they hold, one whose lease expired and that is still
    free, a practice or gold task if the project has them, the first assigned to them, the first in the queue. No new
    task while they are paused or have reached a limit.
    """
    now = store.clock()

    def claimed(session: Session) -> TaskView | NoTask:
        asked, of_person = LOCKED_DESK if is_shared(session) else AT_DESK, {"project": project_id, "person": person_id}
        found = session.execute(asked, of_person).tuples().first()
        if found is None and is_shared(session):
            new = {"project_id": project_id, "person_id": person_id} | NEW_DESK
            session.connection().execute(ADD_DESK, new)
            found = session.execute(asked, of_person).tuples().first()
        if found is None:
            raise NotYours("project")
        person, _, desk, text = found
        settings, desk = settings_in(text), desk or desk_of(session, project_id, person_id)
        cap_leases(session, project_id, now + 60 * settings.lease_minutes)
        task = held_task(session, settings, project_id, person_id, now)
        if task is not None:
            require_exclusive(session)
        elif refused := check_limits(session, settings, desk, now):
            return refused
        else:
            next_one = next_task(session, settings, desk, person, now)
            if isinstance(next_one, NoTask):
                return next_one
            task = next_one
            desk.n_claims += 1
        lease_for(session, settings, task, person_id, now)
        return task_view(session, settings, task, person_id)

    return store.shared_write(claimed)


def heartbeat(store: Store, person_id: int, task_id: int, token: str) -> float:
    """Renews a lease once half of its time is used. Returns when it expires.

    Raises `LeaseLost` if the lease expired or was replaced and others took all places, and when the project's time
    limit for the task is over; `NotYours` for a task that this person was never given.
    """
    now = store.clock()
    seen = lease_state(store, task_id, person_id)
    if seen.token == token and is_fresh(seen, seen.settings, now):
        return seen.expires_at
    with store.write() as session:
        task = shown_task(session, task_id, person_id)
        lease, settings = session.get_one(Lease, (task.id, person_id)), settings_of(session, task.project_id)
        if lease.token == token and ends_at(lease, settings) <= now:
            raise LeaseLost(
                f"the time for this task is over ({settings.limits.minutes:g} minutes); your draft is kept, and if you "
                "submit it now it counts unless others have taken its place"
            )
        if lease.token != token or lease.expires_at == 0 or not may_hold(session, task, lease, now):
            raise LeaseLost("this task went to somebody else meanwhile; your draft is kept, go on with the next task")
        return lease_for(session, settings, task, person_id, now).expires_at


def release(store: Store, person_id: int, task_id: int, token: str) -> None:
    """Releases a task so that others can have it. The draft stays."""
    with store.write() as session:
        task = shown_task(session, task_id, person_id)
        lease = session.get_one(Lease, (task.id, person_id))
        if lease.token == token:
            lease.expires_at = 0


def close_task(store: Store, task_id: int, by: int | None = None) -> None:
    """Takes a task out of the queue for good. Its annotations stay."""
    _set_status(store, task_id, "closed", by)


def reopen_task(store: Store, task_id: int, by: int | None = None) -> None:
    """Reopens a closed task; if it lacks rankings, it goes to the end of the queue."""
    _set_status(store, task_id, "open", by)


def task_view(session: Session, settings: Settings, task: Task, person_id: int) -> TaskView:
    """The view of a task for a person."""
    _, presentation, lease, draft, mine, _ = person_task(session, task.id, person_id)
    rows = session.connection().execute(TEXTS, {"task": task.id}).all()
    latest = session.get(Revision, (mine.id, mine.n_revisions)) if mine else None
    return TaskView(
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
    """A task's answers in import order."""
    query = select(Output).join(TaskOutput, TaskOutput.output_id == Output.id).where(TaskOutput.task_id == task_id)
    return session.scalars(query.order_by(TaskOutput.place)).all()


def assign(store: Store, project_id: int, task_ids: Sequence[int], names: Sequence[str], by: int | None = None) -> int:
    """Assigns tasks to these people only, before all their other tasks; returns how many.

    Keeps the order of the queue and replaces earlier assignments; people who hold a task may finish it. Raises
    `Refused` for an unknown or deactivated person, and for a task that is no ranking task of the project.
    """
    found = {people.by_name(store, name) for name in names}
    if out := sorted(person.name for person in found if not person.active):
        raise Refused(f"people: {out[0]} is deactivated; choose somebody else or activate them")
    ids = sorted(person.id for person in found)
    if not ids:
        raise Refused("people: nobody is chosen; choose at least one person, or remove the assignment")
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
    """Opens assigned tasks to everybody: they go to the end of the queue. Returns how many were assigned."""
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
    """Pauses or resumes a project. While paused, nobody gets a new task; people can finish and revise their tasks."""
    with store.write() as session:
        settings_of(session, project_id)  # raises if the project does not exist
        session.get_one(Project, project_id).paused = paused
        events.append(session, store.clock(), by, "pause" if paused else "resume", str(project_id), {})


def pause_person(store: Store, project_id: int, name: str, paused: bool, by: int | None = None) -> None:
    """Pauses or resumes one person."""
    person = people.by_name(store, name)
    with store.write() as session:
        desk_of(session, project_id, person.id).paused = paused
        data = {"person": person.id}
        events.append(session, store.clock(), by, "pause" if paused else "resume", str(project_id), data)


def limit_person(store: Store, project_id: int, name: str, most: int | None, by: int | None = None) -> None:
    """Sets a person's own limit of rankings in this project; None: the limit of project.yaml."""
    if most is not None and not 0 <= most < 2**31:
        raise Refused(f"most: {most}; give a whole number of at least 0, or nothing")
    person = people.by_name(store, name)
    with store.write() as session:
        desk_of(session, project_id, person.id).most = most
        data = {"person": person.id, "most": most}
        events.append(session, store.clock(), by, "limit", str(project_id), data)


def reset_practice(store: Store, project_id: int, name: str, by: int | None = None) -> int:
    """Undoes a person's practice tasks so that they can repeat them all. Returns how many."""
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
    """Splits ids into portions that fit into one query."""
    for first in range(0, len(ids), N_AT_ONCE):
        yield ids[first : first + N_AT_ONCE]


def _end_assignments(session: Session, of: list[Task]) -> None:
    for ids in portions([task.id for task in of]):
        session.execute(delete(Assignment).where(Assignment.task_id.in_(ids)))


def _ranking_tasks(session: Session, project_id: int, task_ids: Sequence[int]) -> list[Task]:
    """These ranking tasks of the project in the order of the queue. Raises `Refused` if one is missing."""
    wanted = set(task_ids)
    found: list[Task] = []
    for ids in portions(sorted(wanted)):
        found += session.scalars(select(Task).where(Task.project_id == project_id, Task.id.in_(ids)))
    found = [task for task in found if task.kind == "rank"]
    if missing := wanted - {task.id for task in found}:
        raise Refused(f"this project has no ranking task {min(missing)}")
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
