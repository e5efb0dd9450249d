"""What a person does with a task: draft, submit, skip, flag, undo, revise. Nothing that was said is ever dropped.

Each function is one transaction, so what it returns is in the database. A submit can be repeated: the same content
under the same id changes nothing and gives the same answer; other content becomes a new revision.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal, NamedTuple

from sqlalchemy import Executable, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from apps.store.engine import Store, is_beside
from apps.store.errors import BadPayload, NotYours, Refused, Stale
from apps.store.feedback import Feedback, feedback_on
from apps.store.leases import Seat, ends_at, glance, is_fresh, lease_for, lock, may_hold, n_free, put_back, seat
from apps.store.payload import check_draft, check_payload, check_reason
from apps.store.projects import settings_of
from apps.store.reading import beginning
from apps.store.revisions import add_revision, counts, decide, latest
from apps.store.tables import Annotation, Draft, Person, Prompt, Revision, Task, canonical
from apps.store.tasks import Given, given

Status = Literal["submitted", "skipped", "flagged"]


class Drafted(NamedTuple):
    """`saved` is false where a newer draft was there already; `rev` is the one that is kept."""

    saved: bool
    rev: int


class Saved(NamedTuple):
    """It is in the database."""

    id: str
    revision: int
    extra: bool  # all places of the task were taken: kept beside them
    replayed: bool  # the same had been saved before
    feedback: Feedback | None  # of practice tasks


class Past(NamedTuple):
    """One of a person's annotations, for a list."""

    id: str
    task: int  # its public id
    status: str
    revision: int
    turn: int  # give the last one's as `before` to go on
    at: float
    beginning: str  # of what the user asked last


def _keep(insert: Any) -> Executable:
    """A draft, unless there is one as new or its person was erased; in one statement, so that it needs no lock."""
    names = ("task_id", "person_id", "payload", "rev", "saved_at")
    values = [bindparam(name, type_=Draft.__table__.c[name].type) for name in names]
    is_here = (Person.id == bindparam("person_id")) & Person.erased_at.is_(None)
    row = select(*values).select_from(Person).where(is_here).with_for_update(read=True)  # who erases has to wait
    new = insert(Draft).from_select(names, row)
    newer = {name: new.excluded[name] for name in names[2:]}
    key = [Draft.task_id, Draft.person_id]
    kept: Executable = new.on_conflict_do_update(index_elements=key, set_=newer, where=Draft.rev < new.excluded.rev)
    return kept


KEEP = {True: _keep(sqlite.insert), False: _keep(postgresql.insert)}  # by whether it is SQLite


def save_draft(store: Store, person_id: int, task_id: int, payload: Any, rev: int) -> Drafted:
    """Keeps what was filled in so far; `rev` counts up on the page, and an older one never replaces a newer.

    A sign of life too: a lease that is live, or can be had again, is renewed.
    """
    payload = check_draft(payload)
    if not isinstance(rev, int) or isinstance(rev, bool) or not 0 < rev < 2**53:
        raise BadPayload([f"rev = {rev!r}: a whole number from 1 on is wanted"])
    now = store.clock()
    seen = glance(store, task_id, person_id)
    values = {"task_id": seen.task_id, "person_id": person_id, "payload": payload, "rev": rev, "saved_at": now}
    if (seen.rev or 0) >= rev or not store.put(KEEP[store.is_sqlite], values):
        seen = glance(store, task_id, person_id)
        return Drafted(seen.rev == rev and seen.draft == payload, seen.rev or 0)
    if seen.expires_at > 0 and ends_at(seen, seen.settings) > now and not is_fresh(seen, seen.settings, now):
        _renew(store, person_id, task_id, now)
    return Drafted(True, rev)


def _renew(store: Store, person_id: int, task_id: int, now: float) -> None:
    """Keeps a task for longer whose lease is over or soon will be, unless others have taken its places."""
    with store.write() as session:
        task, _, lease, _, _, settings = seat(session, task_id, person_id)
        is_over = lease.expires_at == 0 or ends_at(lease, settings) <= now
        if not is_over and not is_fresh(lease, settings, now) and may_hold(session, task, lease, now):
            lease_for(session, settings, task, person_id, now)


def submit(
    store: Store, person_id: int, annotation_id: str, task_id: int, lease: str, payload: Any, seconds: float = 0.0
) -> Saved:
    """Saves a ranking. The lease may have run out: then it counts if a place is free, and else is kept as `extra`.

    Raises `BadPayload` with all that is missing or wrong; `NotYours` for a task that this person was never given, or an
    id that is somebody else's; `Stale` if it was undone in another window after that one got its lease.
    """
    return _say(store, person_id, annotation_id, task_id, lease, "submitted", payload, seconds)


def skip(store: Store, person_id: int, annotation_id: str, task_id: int, lease: str, reason: str) -> Saved:
    """Passes a task by, for a reason. The draft is kept, and comes back if this is undone."""
    return _say(store, person_id, annotation_id, task_id, lease, "skipped", check_reason(reason), 0.0)


def flag(
    store: Store, person_id: int, annotation_id: str, task_id: int, lease: str, reason: str, comment: str = ""
) -> Saved:
    """Says that something is wrong with the task itself; it is passed by, and the lead sees why."""
    return _say(store, person_id, annotation_id, task_id, lease, "flagged", check_reason(reason, comment), 0.0)


def revise(store: Store, person_id: int, annotation_id: str, payload: Any, seconds: float = 0.0) -> Saved:
    """Says something else about a task that was done, or ranks one that was skipped. All revisions are kept."""
    with store.write() as session:
        at = seat(session, _mine(session, person_id, annotation_id).task_id, person_id)
        return _record(session, store.clock(), at, annotation_id, "submitted", payload, seconds)


def undo(store: Store, project_id: int, person_id: int, annotation_id: str | None = None) -> Given | None:
    """Takes back the last annotation (or the one named, so that a repeated request takes back no second one).

    The task is the person's again, with what they had said as the draft. None if there is nothing to take back. Raises
    `Refused` for a practice task: its answer has been shown.
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
                lease.expires_at = 0  # others took all places: there is a task to show, and no place to keep
            add_revision(session, mine, "undone", {}, 0.0, now)
        return given(session, settings, task, person_id)


def history(store: Store, project_id: int, person_id: int, before: int | None = None, limit: int = 50) -> list[Past]:
    """A person's annotations, the latest first; `before` is a `turn`, to go on from."""
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
            Past(a.id, public_id, a.status, a.n_revisions, a.turn, at, beginning(messages))
            for a, public_id, messages, at in session.execute(query)
        ]


def get(store: Store, person_id: int, annotation_id: str) -> Given:
    """One of a person's annotations with its task. Raises `NotYours` for any other."""
    with store.read() as session:
        mine = _mine(session, person_id, annotation_id)
        task = session.get_one(Task, mine.task_id)
        return given(session, settings_of(session, task.project_id), task, person_id)


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

    def said(session: Session) -> Saved:
        lock(session, task_id)
        at = seat(session, task_id, person_id)
        # beside others, an id that is somebody else's cannot be added, and all is done again alone
        owner = None if at.mine is None and is_beside(session) else session.get(Annotation, annotation_id)
        if owner is not None and (owner.person_id, owner.task_id) != (person_id, at.task.id):
            raise NotYours
        if at.mine is not None and at.mine.status == "undone" and lease != at.lease.token:
            raise Stale("this was taken back in another window; open the task again")
        if at.mine is not None and at.mine.status == "submitted" and status != "submitted":
            raise Stale("this task is ranked already; undo that first")
        return _record(session, store.clock(), at, annotation_id, status, payload, seconds)

    return store.beside(said)


def _record(
    session: Session, now: float, at: Seat, annotation_id: str, status: Status, payload: Any, seconds: float
) -> Saved:
    """The one place where an annotation comes to be or changes."""
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
    may_be_extra = status == "submitted" and not before  # else it has its place already
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
    """So many more rankings of a task that counts them."""
    task.n_done += more
    if task.kind == "rank" and task.status == "open" and task.n_done >= task.required:
        task.status = "done"


def _saved(session: Session, task: Task, mine: Annotation, replayed: bool) -> Saved:
    session.flush()
    is_told = task.kind == "practice" and mine.status == "submitted"
    feedback = feedback_on(session, task, mine) if is_told else None
    return Saved(mine.id, mine.n_revisions, mine.extra, replayed, feedback)


def _keep_as_draft(session: Session, mine: Annotation, now: float) -> None:
    """What had been submitted is the draft of what will be; a skipped task's draft is there still."""
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
    """The annotation that a person changed last and did not take back."""
    mine = (Annotation.project_id == project_id) & (Annotation.person_id == person_id) & (Annotation.status != "undone")
    return session.scalar(select(Annotation).where(mine).order_by(Annotation.turn.desc()).limit(1))


def _refuse_practice(task: Task) -> None:
    if task.kind == "practice":
        raise Refused(
            "a practice task stays as it was first answered, since its answer has been shown; go on with the next"
        )


def _checked_id(annotation_id: Any) -> str:
    """A UUID in its one spelling."""
    try:
        return str(uuid.UUID(annotation_id))
    except (ValueError, TypeError, AttributeError):
        raise BadPayload([f"id = {canonical(str(annotation_id)[:60])}: a UUID is wanted"]) from None
