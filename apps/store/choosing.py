"""Choosing a person's next task, or the reason why there is none.

A person can get a task that they have not ranked, skipped or flagged, while the rankings and live leases of others are
fewer than `required`. Assigned tasks go only to their assignees, and to them first. `Task.place` orders the queue and
only grows. So a person's `Desk.place`, up to which they have handled every open task, only grows too, and a claim
starts there however many tasks they have done. `Desk.own_place` is the same for their assigned tasks.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, exists, false, func, select
from sqlalchemy.orm import Session

from apps.store.engine import is_shared, require_exclusive
from apps.store.feedback import has_passed
from apps.store.leases import ends_at, held_by_others, n_free, put_back
from apps.store.settings import Limits, Settings
from apps.store.tables import Annotation, Assignment, Desk, Lease, Person, Project, Revision, Task

DAY_S = 86400.0
LAST_OWN = select(func.max(Assignment.place)).where(
    Assignment.person_id == bindparam("person"), Assignment.project_id == bindparam("project")
)


class NoTask(NamedTuple):
    """No task is available. `retry_at`: when somebody's lease ends or a new day begins, if that can help."""

    reason: str  # empty, done, held, practice, paused, enough
    message: str
    retry_at: float | None = None


MESSAGES = {
    "empty": "There are no tasks in this project yet.",
    "done": "You have done all tasks that are open to you. Thank you.",
    "held": "Other people are working on the remaining tasks. Some may become free again.",
    "practice": "You have done all practice tasks, but too few pairs were in the expected order. The lead can see this "
    "and can let you repeat them; they then appear here.",
    "paused": "The lead has paused the work. Everything that you submitted is kept.",
}


def check_limits(session: Session, settings: Settings, desk: Desk, now: float) -> NoTask | None:
    """A pause or a limit that keeps this person from getting any task; None if there is neither."""
    if desk.paused or session.scalar(select(Project.paused).where(Project.id == desk.project_id)):
        return no_task("paused")
    limits = settings.limits
    most = limits.rankings if desk.most is None else desk.most
    if most is not None and _n_ranked(session, desk) >= most:
        return NoTask("enough", f"You have reached the limit of {most} rankings per person. Thank you.")
    return _enough_today(session, limits, desk, now)


def held_task(session: Session, settings: Settings, project_id: int, person_id: int, now: float) -> Task | None:
    """The task that the person holds, or held until its lease expired and can still have: the latest one.

    A task that they did not finish within the project's time limit goes to the end of the queue; the draft is kept.
    """
    leases = (
        select(Task, Lease)
        .join(Lease, Lease.task_id == Task.id)
        .where(Lease.person_id == person_id, Lease.expires_at > 0, Task.project_id == project_id, Task.status == "open")
        .order_by(Lease.expires_at.desc())
    )
    for task, lease in session.execute(leases).tuples():
        if lease.expires_at > now:
            return task
        if ends_at(lease, settings) <= now:
            lease.expires_at = 0
            put_back(session, task)
        elif n_free(session, task, person_id, now) > 0:
            return task
    return None


def next_task(session: Session, settings: Settings, desk: Desk, person: Person, now: float) -> Task | NoTask:
    """A new task for the person."""
    if settings.practice.required and not desk.qualified and person.role == "annotator":
        practice = _practice(session, settings, desk)
        if practice is not None:
            return practice
    if settings.gold.share and (gold := _gold(session, settings, desk)):
        return gold
    return _first_of_own(session, desk, now) or _first_in_queue(session, desk, now)


def no_task(reason: str, retry_at: float | None = None) -> NoTask:
    """The reason with its message."""
    return NoTask(reason, MESSAGES[reason], retry_at)


def _n_ranked(session: Session, desk: Desk) -> int:
    """The number of rankings that a person has submitted, including practice and gold tasks."""
    query = select(func.count()).select_from(Annotation).where(*_by(desk), Annotation.status == "submitted")
    return session.scalar(query) or 0


def _enough_today(session: Session, limits: Limits, desk: Desk, now: float) -> NoTask | None:
    if limits.hours is None:
        return None
    midnight = now - now % DAY_S
    if _seconds_since(session, desk, midnight) < 3600 * limits.hours:
        return None
    message = f"You have reached the limit of {limits.hours:g} hours per day. New tasks are available at midnight UTC."
    return NoTask("enough", message, midnight + DAY_S)


def _seconds_since(session: Session, desk: Desk, since: float) -> float:
    """The seconds that a person's rankings took since then. Of earlier rows it reads only one."""
    of_annotation = Revision.annotation_id == Annotation.id
    latest = select(Annotation.turn).join(Revision, of_annotation & (Revision.n == Annotation.n_revisions))
    latest = latest.where(*_by(desk), Revision.created_at < since).order_by(Annotation.turn.desc()).limit(1)
    before = session.scalar(latest) or 0
    spent = select(func.coalesce(func.sum(Revision.seconds), 0.0)).select_from(Annotation).join(Revision, of_annotation)
    return session.scalar(spent.where(*_by(desk), Annotation.turn > before, Revision.created_at >= since)) or 0.0


def _by(desk: Desk) -> tuple[ColumnElement[bool], ...]:
    return Annotation.person_id == desk.person_id, Annotation.project_id == desk.project_id


def _practice(session: Session, settings: Settings, desk: Desk) -> Task | NoTask | None:
    """The next practice task; None once the person has passed."""
    if has_passed(session, settings, desk.project_id, desk.person_id):
        desk.qualified = True
        return None
    task = session.scalar(_open(desk, "practice").order_by(Task.place).limit(1))
    return no_task("practice") if task is None else task


def _gold(session: Session, settings: Settings, desk: Desk) -> Task | None:
    """A gold task with probability `gold.share`, while there are any that the person has not done."""
    secret = session.scalar(select(Project.secret).where(Project.id == desk.project_id))
    chance = random.Random(f"{secret}:{settings.seed}:gold:{desk.person_id}:{desk.n_claims}")
    if chance.random() >= settings.gold.share:
        return None
    # ids only: reading whole rows would make gold tasks slower, so that annotators could tell them apart
    left = session.scalars(_open(desk, "gold").with_only_columns(Task.id).order_by(Task.place)).all()
    return session.get_one(Task, chance.choice(left)) if left else None


def _first_of_own(session: Session, desk: Desk, now: float) -> Task | None:
    """The first free task that is assigned to the person."""
    mine = (Assignment.person_id == desk.person_id) & (Assignment.project_id == desk.project_id)
    last = session.connection().execute(LAST_OWN, {"person": desk.person_id, "project": desk.project_id}).scalar() or 0
    if last <= desk.own_place:
        return None
    require_exclusive(session)
    ahead = select(Task).join(Assignment, Assignment.task_id == Task.id).order_by(Assignment.place).limit(1)
    ahead = ahead.where(mine, Assignment.place > desk.own_place, Task.status == "open", _not_annotated(desk))
    first = session.execute(ahead.add_columns(Assignment.place, _is_free(desk, now))).first()
    if first is None:  # the person has passed all of them
        desk.own_place = last
        return None
    task, place, is_free = first
    desk.own_place = place - 1
    return task if is_free else session.scalar(ahead.where(_is_free(desk, now)))


def _first_in_queue(session: Session, desk: Desk, now: float) -> Task | NoTask:
    ahead = _open(desk, "rank", Task.place > desk.place).order_by(Task.place).limit(1)
    if is_shared(session) and (task := _locked(session, ahead, desk, now)):
        return task
    first = session.execute(ahead.add_columns(_is_free(desk, now))).first()
    if first is None:  # the person has passed every open task
        last = select(func.max(Task.place)).where(*_in_queue(desk, "rank"))
        desk.place = max(desk.place, session.scalar(last) or 0)
        return no_task("done" if _has_tasks(session, desk.project_id) else "empty")
    found, is_free = first
    desk.place = found.place - 1
    task = found if is_free else session.scalar(ahead.where(_is_free(desk, now)))
    if task is not None:
        require_exclusive(session)  # else another transaction may be changing this task's places
        return task
    live = select(func.min(Lease.expires_at)).join(Task, Task.id == Lease.task_id)
    return no_task("held", session.scalar(live.where(Task.project_id == desk.project_id, Lease.expires_at > now)))


def _locked(session: Session, ahead: Select[Task], desk: Desk, now: float) -> Task | None:
    """The first free task that no other transaction has locked."""
    first = ahead.with_only_columns(Task.place).correlate(None).scalar_subquery()
    free = ahead.where(_is_free(desk, now)).add_columns(first)
    found = session.execute(free.with_for_update(of=Task, key_share=True, skip_locked=True)).first()
    if found is None or n_free(session, found[0], desk.person_id, now) <= 0:  # taken a moment ago
        return None
    desk.place = found[1] - 1
    task: Task = found[0]
    return task


def _open(desk: Desk, kind: str, *more: ColumnElement[bool]) -> Select[Task]:
    """The open, unassigned tasks of a kind that a person has not annotated."""
    return select(Task).where(*_in_queue(desk, kind), *more, _not_annotated(desk))


def _not_annotated(desk: Desk) -> ColumnElement[bool]:
    theirs = (Annotation.task_id == Task.id) & (Annotation.person_id == desk.person_id)
    return ~exists().where(theirs, Annotation.status != "undone")


def _in_queue(desk: Desk, kind: str) -> tuple[ColumnElement[bool], ...]:
    is_open = (Task.kind == kind) & (Task.assigned == false()) & (Task.status == "open")
    return Task.project_id == desk.project_id, is_open


def _is_free(desk: Desk, now: float) -> ColumnElement[bool]:
    return Task.n_done + held_by_others(Task.id, desk.person_id, now).scalar_subquery() < Task.required


def _has_tasks(session: Session, project_id: int) -> bool:
    return (
        session.scalar(select(Task.id).where(Task.project_id == project_id, Task.kind == "rank").limit(1)) is not None
    )
