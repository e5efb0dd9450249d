"""Erasing a person: their name, logins and texts are deleted; their rankings stay under a pseudonym.

Models were trained on their rankings, ratings and flags, so these are kept as "erased-7". Everything else that
identifies them is deleted: name, password, sessions, tokens, invitations, drafts, comments and reasons in all
revisions, and the content of every event that names them, including events of others. One `erase` event records the
changes, so that `events.verify` still passes. Copies are out of reach: backups, exports, and logs of other programs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import delete, exists, or_, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import Unavailable
from apps.store.links import hash_token, revoke_granted
from apps.store.names import name_key
from apps.store.people import find_person, person_named, require_another_admin
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
    """The result of erasing."""

    pseudonym: str
    n_revisions: int  # revisions that lost texts
    n_events: int  # events that named the person


def erase(store: Store, name: str, by: int | None = None) -> Erased:
    """Erases the person of this name in one transaction, then from SQLite's file.

    Given the pseudonym of an erased person, it repeats only the last step, which a crash may have prevented. Raises
    `Refused` for an unknown name and for the last active admin; `Unavailable` if the file could not be rewritten.
    """
    with store.write() as session:
        person = person_named(session, name)
        done = Erased(person.name, 0, 0) if person.erased_at is not None else _erase(session, person, store.clock(), by)
    try:
        store.vacuum()
    except Unavailable as error:
        message = f"{done.pseudonym} is erased, but not from the database's file; erase {done.pseudonym} again"
        raise Unavailable(message, str(error)) from error
    return done


def _erase(session: Session, person: Person, now: float, by: int | None) -> Erased:
    require_another_admin(session, person, "erased")
    session.refresh(person, with_for_update=True)  # a draft saved at this moment waits, and then finds no person
    session.add(Erasing(person_id=person.id))
    session.flush()  # from here on the triggers allow changes
    key = person.key
    revoke_granted(session, person.id, now)
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
    """An unused name."""
    name = f"erased-{person_id}"
    while find_person(session, name):
        name += "-"
    return name


def _forget(session: Session, person_id: int, key: str) -> None:
    """Deletes everything that let them log in, and their unfinished work."""
    for table in (LoginSession, Device, ApiToken, Draft, Assignment):
        session.execute(delete(table).where(table.person_id == person_id))
    left = exists().where(Assignment.task_id == Task.id)
    alone = session.scalars(
        select(Task).where(Task.assigned, ~left)
    ).all()  # assigned to nobody else: open to everybody again
    for task in alone:
        task.assigned = False
    put_back(session, *alone)
    session.execute(update(Lease).where(Lease.person_id == person_id).values(expires_at=0))
    session.execute(delete(Attempt).where(Attempt.key == f"name:{hash_token(key)}"))
    named = [one.token_hash for one in session.scalars(select(Invitation)) if one.name and name_key(one.name) == key]
    theirs = or_(Invitation.person_id == person_id, Invitation.used_by == person_id, Invitation.token_hash.in_(named))
    session.execute(delete(Invitation).where(theirs))


def _blank_texts(session: Session, person_id: int) -> list[list[Any]]:
    """Blanks the texts of all revisions. Returns [annotation, number, digest] of each changed one."""
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
    """Blanks the events that name the person. Returns [number, new hash] of each; the chain keeps the old hash."""
    changed = []
    for event in session.scalars(select(Event).where(Event.verb.not_in(events.NAMELESS)).order_by(Event.seq)).all():
        if _names([event.subject, event.data], key):
            event.subject, event.data = "", {}
            content = event.seq, event.at, event.person_id, event.verb, event.subject, event.data, event.prev_hash
            changed.append([event.seq, events.event_hash(*content)])
    return changed


def _names(value: Any, key: str) -> bool:
    """Whether a person's name occurs anywhere in a value."""
    if isinstance(value, str):
        return name_key(value) == key
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_names(one, key) for one in inner)
