"""Erasing a person: their name, logins and texts go, and what they decided stays under a pseudonym.

Models were trained on their rankings, ratings and flags, so these are kept as "erased-7". Everything else that tells
who they were goes: name, password, sessions, tokens, invitations and drafts, comments and reasons in all revisions, and
what events say in which they are named, also of those that others did. One `erase` event says what was changed, so that
`events.verify` holds before and after. Copies cannot be reached: backups, exports, and logs of other programs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import Unavailable
from apps.store.people import _by_name, _keep_an_admin, _named, end_gifts, hash_token, name_key
from apps.store.tables import (
    Annotation,
    ApiToken,
    Assignment,
    Attempt,
    Device,
    Draft,
    Erasing,
    Event,
    Invitation,
    Lease,
    LoginSession,
    Person,
    Revision,
    Task,
)
from apps.store.tasks import put_back


class Erased(NamedTuple):
    """What was done."""

    pseudonym: str
    n_revisions: int  # that had texts
    n_events: int  # that named the person


def erase(store: Store, name: str, by: int | None = None) -> Erased:
    """Erases the person of this name, in one transaction, then from SQLite's file too.

    The pseudonym of somebody who is erased already repeats the last step alone, which a crash may have kept from being
    done. Raises `Refused` for a name that nobody has and for the last active admin; `Unavailable` if the file could not
    be written anew.
    """
    with store.write() as session:
        person = _named(session, name)
        done = Erased(person.name, 0, 0) if person.erased_at is not None else _erase(session, person, store.clock(), by)
    try:
        store.sweep()
    except Unavailable as error:
        told = f"{done.pseudonym} is erased, but not from the database's file; erase {done.pseudonym} again"
        raise Unavailable(told, str(error)) from error
    return done


def _erase(session: Session, person: Person, now: float, by: int | None) -> Erased:
    _keep_an_admin(session, person, "erased")
    session.refresh(person, with_for_update=True)  # a draft that comes in now waits, and finds nobody
    session.add(Erasing(person_id=person.id))
    session.flush()  # from here on the triggers let changes pass
    key = person.key
    end_gifts(session, person.id, now)
    _forget(session, person.id, key)
    person.name, person.password_hash, person.active, person.erased_at = (
        _pseudonym(session, person.id),
        None,
        False,
        now,
    )
    person.key = name_key(person.name)
    revisions, named = _blank_texts(session, person.id), _blank_events(session, key)
    session.flush()
    session.execute(delete(Erasing))
    data = {"person": person.id, "events": named, "revisions": revisions}
    events.append(session, now, by, events.ERASE, person.name, data)
    return Erased(person.name, len(revisions), len(named))


def _pseudonym(session: Session, person_id: int) -> str:
    """A name that nobody has."""
    name = f"erased-{person_id}"
    while _by_name(session, name):
        name += "-"
    return name


def _forget(session: Session, person_id: int, key: str) -> None:
    """All with which they came in or could, and what they had begun."""
    for table in (LoginSession, Device, ApiToken, Draft, Assignment):
        session.execute(delete(table).where(table.person_id == person_id))
    left = exists().where(Assignment.task_id == Task.id)
    alone = session.scalars(select(Task).where(Task.assigned, ~left)).all()  # theirs alone: they are for all now
    for task in alone:
        task.assigned = False
    put_back(session, *alone)
    session.execute(update(Lease).where(Lease.person_id == person_id).values(expires_at=0))
    session.execute(delete(Attempt).where(Attempt.key == f"name:{hash_token(key)}"))
    named = [one.token_hash for one in session.scalars(select(Invitation)) if one.name and name_key(one.name) == key]
    theirs = or_(Invitation.person_id == person_id, Invitation.used_by == person_id, Invitation.token_hash.in_(named))
    session.execute(delete(Invitation).where(theirs))


def _blank_texts(session: Session, person_id: int) -> list[list[Any]]:
    """[annotation, number, digest] of each revision that lost its texts."""
    query = select(Revision).join(Annotation, Annotation.id == Revision.annotation_id)
    query = query.where(Annotation.person_id == person_id).order_by(Revision.annotation_id, Revision.n)
    changed = []
    for revision in session.scalars(query).all():
        payload = events.without_texts(revision.payload)
        if payload != revision.payload:
            revision.payload = payload
            digest = events.digest(events.revision_content(revision))
            changed.append([revision.annotation_id, revision.n, digest])
    return changed


def _blank_events(session: Session, key: str) -> list[list[Any]]:
    """[number, hash of what is left] of each event that named the person; its own hash stays, for the chain."""
    changed = []
    for event in session.scalars(select(Event).where(Event.verb.not_in(events.NAMELESS)).order_by(Event.seq)).all():
        if _names([event.subject, event.data], key):
            event.subject, event.data = "", {}
            content = event.seq, event.at, event.person_id, event.verb, event.subject, event.data, event.prev_hash
            changed.append([event.seq, events.event_hash(*content)])
    return changed


def _names(value: Any, key: str) -> bool:
    """Whether a person's name stands anywhere in an event."""
    if isinstance(value, str):
        return name_key(value) == key
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_names(one, key) for one in inner)
