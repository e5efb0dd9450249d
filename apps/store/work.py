"""An annotator's actions on a task: draft, submit, skip, flag, undo, revise. All revisions are kept.

Each function is one transaction, so what it returns is in the database. A submit can be repeated: the same content
under the same id changes nothing and gives the same result; other content becomes a new revision.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal, NamedTuple

from sqlalchemy import Executable, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from apps.store.engine import Store, is_shared
from apps.store.errors import BadPayload, NotYours, Refused, Stale
from apps.store.feedback import Feedback, feedback_on
from apps.store.leases import (
    PersonTask,
    ends_at,
    is_fresh,
    lease_for,
    lease_state,
    lock,
    may_hold,
    n_free,
    person_task,
    put_back,
)
from apps.store.payload import check_draft, check_payload, check_reason
from apps.store.projects import settings_of
from apps.store.reading import beginning
from apps.store.revisions import add_revision, counts, decide, latest
from apps.store.tables import Annotation, Draft, Person, Prompt, Revision, Task, canonical
from apps.store.tasks import TaskView, task_view

Status = Literal["submitted", "skipped", "flagged"]


class Drafted(NamedTuple):
    """`saved` is false if a newer draft already exists; `rev` is the stored one."""

    saved: bool
    rev: int


class Saved(NamedTuple):
    """A saved annotation."""

    id: str
    revision: int
    extra: bool  # all places of the task were taken: kept but not counted, unless it is final
    final: bool  # a reviewer's ranking that decides the task
    replayed: bool  # the same content was saved before
    feedback: Feedback | None  # of practice tasks


class HistoryItem(NamedTuple):
    """One of a person's annotations in their history."""

    id: str
    task: int  # its public id
    status: str
    revision: int
    turn: int  # pass the last item's as `before` to get the next page
    at: float
    beginning: str  # of the last user message


def _keep(insert: Any) -> Executable:
    """Stores a draft unless an equally new one exists or the person was erased; one statement, so it needs no lock."""
    names = ("task_id", "person_id", "payload", "rev", "saved_at")
    values = [bindparam(name, type_=Draft.__table__.c[name].type) for name in names]
    is_here = (Person.id == bindparam("person_id")) & Person.erased_at.is_(None)
    row = select(*values).select_from(Person).where(is_here).with_for_update(read=True)  # erasing has to wait
    new = insert(Draft).from_select(names, row)
    newer = {name: new.excluded[name] for name in names[2:]}
    key = [Draft.task_id, Draft.person_id]
    kept: Executable = new.on_conflict_do_update(index_elements=key, set_=newer, where=Draft.rev < new.excluded.rev)
    return kept


KEEP = {True: _keep(sqlite.insert), False: _keep(postgresql.insert)}  # by whether it is SQLite


def save_draft(store: Store, person_id: int, task_id: int, payload: Any, rev: int) -> Drafted:
    """Saves a draft. `rev` counts up on the page; an older draft never replaces a newer one.

    It is also a heartbeat: a lease that is live or can be had again is renewed.
    """
    payload = check_draft(payload)
    if not isinstance(rev, int) or isinstance(rev, bool) or not 0 < rev < 2**53:
        raise BadPayload([f"rev = {rev!r}: expected a whole number of at least 1"])
    now = store.clock()
    seen = lease_state(store, task_id, person_id)
    values = {"task_id": seen.task_id, "person_id": person_id, "payload": payload, "rev": rev, "saved_at": now}
    if (seen.rev or 0) >= rev or not store.write_one(KEEP[store.is_sqlite], values):
        seen = lease_state(store, task_id, person_id)
        return Drafted(seen.rev == rev and seen.draft == payload, seen.rev or 0)
    if seen.expires_at > 0 and ends_at(seen, seen.settings) > now and not is_fresh(seen, seen.settings, now):
        _renew(store, person_id, task_id, now)
    return Drafted(True, rev)


def _renew(store: Store, person_id: int, task_id: int, now: float) -> None:
    """Renews an expired or expiring lease, unless others have taken all places of its task."""
    with store.write() as session:
        task, _, lease, _, _, settings = person_task(session, task_id, person_id)
        is_over = lease.expires_at == 0 or ends_at(lease, settings) <= now
        if not is_over and not is_fresh(lease, settings, now) and may_hold(session, task, lease, now):
            lease_for(session, settings, task, person_id, now)


def submit(
    store: Store, person_id: int, annotation_id: str, task_id: int, lease: str, payload: Any, seconds: float = 0.0
) -> Saved:
    """Saves a ranking. If the lease has expired, it counts while a place is free, else it is kept as `extra`.

    Raises `BadPayload` with everything missing or wrong; `NotYours` for a task that this person was never given or
    another person's id; `Stale` if it was undone in another window after this one got its lease.
    """
    return _say(store, person_id, annotation_id, task_id, lease, "submitted", payload, seconds)


def skip(store: Store, person_id: int, annotation_id: str, task_id: int, lease: str, reason: str) -> Saved:
    """Skips a task for a reason. The draft is kept and comes back on undo."""
    return _say(store, person_id, annotation_id, task_id, lease, "skipped", check_reason(reason), 0.0)


def flag(
    store: Store, person_id: int, annotation_id: str, task_id: int, lease: str, reason: str, comment: str = ""
) -> Saved:
    """Reports that something is wrong with the task; the person skips it, and the lead sees the reason."""
    return _say(store, person_id, annotation_id, task_id, lease, "flagged", check_reason(reason, comment), 0.0)


def revise(store: Store, person_id: int, annotation_id: str, payload: Any, seconds: float = 0.0) -> Saved:
    """Changes an earlier ranking, or ranks a skipped task. All revisions are kept."""
    with store.write() as session:
        at = person_task(session, _mine(session, person_id, annotation_id).task_id, person_id)
        return _record(session, store.clock(), at, annotation_id, "submitted", payload, seconds)


def undo(store: Store, project_id: int, person_id: int, annotation_id: str | None = None) -> TaskView | None:
    """Undoes the last annotation, or the one named (so that a repeated request does not undo a second one).

    The person gets the task again with its content as the draft. None if there is nothing to undo. Raises `Refused` for
    a practice task: its expected ranking was shown.
    """
    now = store.clock()
    with store.write() as session:
        mine = (
            _last(session, project_id, person_id) if annotation_id is None else _mine(session, person_id, annotation_id)
        )
        if mine is None:
            return None
        task = session.get_one(Task, mine.task_id)
        settings = settings_of(session, task.project_id)
        if mine.status != "undone":
            _refuse_practice(task)
            _keep_as_draft(session, mine, now)
            task.n_done -= counts(mine)
            put_back(session, task)
            lease = lease_for(session, settings, task, person_id, now, new=True)
            if not may_hold(session, task, lease, now):
                lease.expires_at = 0  # others took all places: the task can be shown but not reserved
            add_revision(session, mine, "undone", {}, 0.0, now)
        return task_view(session, settings, task, person_id)


def history(
    store: Store, project_id: int, person_id: int, before: int | None = None, limit: int = 50
) -> list[HistoryItem]:
    """A person's annotations, latest first; `before` is the `turn` of the last item of the previous page."""
    query = (
        select(Annotation, Task.public_id, Prompt.messages, Revision.created_at)
        .join(Task, Task.id == Annotation.task_id)
        .join(Prompt, Prompt.id == Task.prompt_id)
        .join(Revision, (Revision.annotation_id == Annotation.id) & (Revision.n == Annotation.n_revisions))
        .where(Annotation.project_id == project_id, Annotation.person_id == person_id)
        .order_by(Annotation.turn.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(Annotation.turn < before)
    with store.read() as session:
        return [
            HistoryItem(a.id, public_id, a.status, a.n_revisions, a.turn, at, beginning(messages))
            for a, public_id, messages, at in session.execute(query)
        ]


def get(store: Store, person_id: int, annotation_id: str) -> TaskView:
    """One of a person's annotations with its task. Raises `NotYours` for another person's."""
    with store.read() as session:
        mine = _mine(session, person_id, annotation_id)
        task = session.get_one(Task, mine.task_id)
        return task_view(session, settings_of(session, task.project_id), task, person_id)


def _say(
    store: Store,
    person_id: int,
    annotation_id: str,
    task_id: int,
    lease: str,
    status: Status,
    payload: Any,
    seconds: float,
) -> Saved:
    """Submit, skip and flag."""
    annotation_id = _checked_id(annotation_id)

    def save(session: Session) -> Saved:
        lock(session, task_id)
        at = person_task(session, task_id, person_id)
        # in a shared transaction, another person's id fails to insert, and all is repeated as the only writer
        owner = None if at.mine is None and is_shared(session) else session.get(Annotation, annotation_id)
        if owner is not None and (owner.person_id, owner.task_id) != (person_id, at.task.id):
            raise NotYours
        if at.mine is not None and at.mine.status == "undone" and lease != at.lease.token:
            raise Stale("this was undone in another window; open the task again")
        if at.mine is not None and at.mine.status == "submitted" and status != "submitted":
            raise Stale("this task is already ranked; undo that first")
        return _record(session, store.clock(), at, annotation_id, status, payload, seconds)

    return store.shared_write(save)


def _record(
    session: Session, now: float, at: PersonTask, annotation_id: str, status: Status, payload: Any, seconds: float
) -> Saved:
    """Creates or changes an annotation. All actions go through here."""
    task, presentation, lease, draft, mine, settings = at
    if status == "submitted":
        payload = check_payload(payload, len(presentation.places), settings.questions, settings.ranking)
    if mine is not None and mine.status == status and latest(session, mine).payload == payload:
        if status == "submitted":
            decide(session, task, mine, lease, now)
        return _saved(session, task, mine, replayed=True)
    if mine is not None and mine.status != "undone":
        _refuse_practice(task)
    before = 0 if mine is None else counts(mine)
    may_be_extra = status == "submitted" and not before  # else it already has a place
    is_extra = may_be_extra and (lease.final or n_free(session, task, lease.person_id, now) <= 0)
    if mine is None:
        mine = Annotation(id=annotation_id, project_id=task.project_id, task_id=task.id, person_id=lease.person_id)
        mine.n_revisions, mine.final, mine.turn = 0, False, 0
        session.add(mine)
    mine.status, mine.extra, lease.expires_at = status, is_extra, 0
    if status == "submitted":
        _settle(task, int(not mine.extra) - before)
        decide(session, task, mine, lease, now)
        if draft is not None:
            draft.payload = None
    add_revision(session, mine, status, payload, seconds, now)
    return _saved(session, task, mine, replayed=False)


def _settle(task: Task, more: int) -> None:
    """Adds to a task's count of rankings and marks it done when it has enough."""
    task.n_done += more
    if task.kind == "rank" and task.status == "open" and task.n_done >= task.required:
        task.status = "done"


def _saved(session: Session, task: Task, mine: Annotation, replayed: bool) -> Saved:
    session.flush()
    has_feedback = task.kind == "practice" and mine.status == "submitted"
    feedback = feedback_on(session, task, mine) if has_feedback else None
    return Saved(mine.id, mine.n_revisions, mine.extra, mine.final, replayed, feedback)


def _keep_as_draft(session: Session, mine: Annotation, now: float) -> None:
    """Turns a submitted ranking back into a draft; a skipped task still has its draft."""
    draft = session.get(Draft, (mine.task_id, mine.person_id))
    if draft is None:
        draft = Draft(task_id=mine.task_id, person_id=mine.person_id, payload=None, rev=0, saved_at=now)
        session.add(draft)
    if mine.status == "submitted":
        draft.payload, draft.rev, draft.saved_at = latest(session, mine).payload, draft.rev + 1, now


def _mine(session: Session, person_id: int, annotation_id: str) -> Annotation:
    found = session.get(Annotation, _checked_id(annotation_id))
    if found is None or found.person_id != person_id or session.get_one(Person, person_id).erased_at is not None:
        raise NotYours("annotation")
    return found


def _last(session: Session, project_id: int, person_id: int) -> Annotation | None:
    """The annotation that a person changed last and did not undo."""
    mine = (Annotation.project_id == project_id) & (Annotation.person_id == person_id) & (Annotation.status != "undone")
    return session.scalar(select(Annotation).where(mine).order_by(Annotation.turn.desc()).limit(1))


def _refuse_practice(task: Task) -> None:
    if task.kind == "practice":
        raise Refused(
            "a finished practice task cannot be changed, since its expected ranking was shown; go on with the next task"
        )


def _checked_id(annotation_id: Any) -> str:
    """A UUID in its normal spelling. Raises `BadPayload`."""
    try:
        return str(uuid.UUID(annotation_id))
    except (ValueError, TypeError, AttributeError):
        raise BadPayload([f"id = {canonical(str(annotation_id)[:60])}: expected a UUID"]) from None
