"""Invitations and password reset links: each works once, and its owner sets the password.

The first admin is invited on the command line.
"""

from __future__ import annotations

import csv
import secrets
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import BadPayload, LoginRefused, Refused
from apps.store.links import DAY_S, MOST_DAYS, hash_token, is_open, link_id, revoke_links
from apps.store.names import checked_name, look_alike, name_key
from apps.store.people import (
    PersonInfo,
    Role,
    check_role,
    end_sessions,
    find_person,
    known_role,
    person_info,
    unerased_person,
)
from apps.store.tables import Invitation, Person

MOST_NAMES = 1000  # invited at once: each is compared with all others while nobody else can write


class NewInvitation(NamedTuple):
    """A new invitation. The token is shown only now; only its hash is kept."""

    token: str
    role: Role
    name: str | None
    expires_at: float


class OpenInvitation(NamedTuple):
    """An invitation as the page shows it to the invited person."""

    role: Role
    name: str | None  # given by the inviter; None lets the person choose
    is_reset: bool  # it sets a new password for an existing person


class PendingInvitation(NamedTuple):
    """An open invitation in the list of people."""

    id: str  # to revoke it by
    role: Role
    name: str | None
    expires_at: float


def invite(
    store: Store, role: Role, name: str | None = None, days: float = 7, created_by: int | None = None
) -> NewInvitation:
    """Makes an invitation that works once within `days`.

    Raises `Refused` for an unknown role, and for a name that is taken or looks like another one.
    """
    check_role(role)
    _check_days(days)
    name = None if name is None else checked_name(name)
    with store.write() as session:
        if name is not None:
            _refuse_taken(session, name, store.clock(), "to change the password, use reset")
        return _invite(session, role, name, days, created_by, store.clock())


def invite_many(
    store: Store, lines: str, role: Role, days: float = 7, created_by: int | None = None
) -> list[NewInvitation]:
    """Invites the name on each line, or in each CSV row's first column: all of them, or none.

    Raises `BadPayload` that lists each line with no name, an invalid, taken or repeated one, or one that looks like
    another; also for more than `MOST_NAMES`.
    """
    check_role(role)
    _check_days(days)
    made, problems, lines_of = list[NewInvitation](), list[str](), dict[str, int]()
    names, now = _first_column(lines), store.clock()
    if len(names) > MOST_NAMES:
        raise BadPayload([f"names: {len(names)}; give at most {MOST_NAMES} at once"])
    with store.write() as session:
        for n, given in enumerate(names, start=1):
            try:
                name = checked_name(given)
                first = lines_of.setdefault(name_key(name), n)
                if first != n:
                    raise BadPayload([f"{name} is already in line {first}"])
                _refuse_taken(session, name, now, "remove it")
                made.append(_invite(session, role, name, days, created_by, now))
            except BadPayload as refused:
                problems.append(f"line {n}: {refused}")
        if problems or not made:
            raise BadPayload(problems or ["names: the list is empty; give one name per line"])
        return made


def reset(store: Store, name: str, days: float = 1, created_by: int | None = None) -> NewInvitation:
    """Makes a link with which an existing person sets a new password; revokes earlier ones.

    Raises `Refused` for an unknown name.
    """
    _check_days(days)
    token, now = secrets.token_urlsafe(32), store.clock()
    with store.write() as session:
        person = unerased_person(session, name)
        revoke_links(session, Invitation.person_id == person.id, now)
        session.add(_invitation(token, person.role, person.name, person.id, created_by, now, days))
        events.append(session, now, created_by, "reset", person.name, {})
        return NewInvitation(token, known_role(person.role), person.name, now + days * DAY_S)


def invitation(store: Store, token: str) -> OpenInvitation:
    """The open invitation of a token. Raises `LoginRefused` if it is unknown, used, revoked or expired."""
    with store.read() as session:
        found = _open_invitation(session, token, store.clock())
        return OpenInvitation(known_role(found.role), found.name, found.person_id is not None)


def accept(store: Store, token: str, name: str | None, password: str) -> PersonInfo:
    """Creates the invited person, or sets an existing person's new password and ends their sessions.

    Raises `LoginRefused` for an invalid invitation, `BadPayload` for a taken or invalid name and a bad password.
    """
    from apps.store.passwords import check_password, hash_password

    name = invitation(store, token).name or checked_name(name or "")
    check_password(password, name)
    password_hash = hash_password(password)  # slow, so outside the transaction
    now = store.clock()
    with store.write() as session:
        found = _open_invitation(session, token, now)
        if found.person_id is not None:
            person = session.get_one(Person, found.person_id)
            person.password_hash = password_hash
            end_sessions(session, person.id, now)
        else:
            _refuse_taken(session, name, now, "choose another", look=found.name is None)
            person = Person(name=name, key=name_key(name), role=found.role, active=True, created_at=now)
            person.password_hash = password_hash
            session.add(person)
            session.flush()
        found.used_by = person.id
        session.flush()
        revoke_links(session, Invitation.person_id == person.id, now)
        for other in _invited_as(session, person.name, now):  # invited twice
            other.revoked_at = now
        events.append(session, now, person.id, "accept", person.name, {"role": person.role})
        return person_info(person)


def pending_invitations(store: Store) -> list[PendingInvitation]:
    """The open invitations of new people, oldest first."""
    is_new = is_open(store.clock()) & Invitation.person_id.is_(None)
    query = select(Invitation).where(is_new).order_by(Invitation.created_at)
    with store.read() as session:
        found = session.scalars(query)
        return [PendingInvitation(link_id(one), known_role(one.role), one.name, one.expires_at) for one in found]


def revoke(store: Store, name: str, by: int | None = None) -> int:
    """Ends a person's sessions and revokes open invitations in their name. Returns how many there were.

    An id from `pending_invitations` revokes that invitation alone. Raises `Refused` for an unknown name or id.
    """
    now = store.clock()
    with store.write() as session:
        person, invitations = find_person(session, name), _invited_as(session, name, now)
        if person is None and not invitations:
            raise Refused(f"{name}: no person and no open invitation has this name or id; see the list of people")
        for one in invitations:
            one.revoked_at = now
        n_ended = end_sessions(session, person.id, now) if person else 0
        events.append(session, now, by, "revoke", person.name if person else name, {})
        return n_ended + len(invitations)


def _first_column(lines: str) -> list[str]:
    try:
        rows = csv.reader(lines.strip().splitlines(), skipinitialspace=True, strict=True)
        return [row[0] if row else "" for row in rows]
    except csv.Error as error:
        raise BadPayload([f"names: this is not valid CSV ({error}); give one name per line"]) from None


def _invited_as(session: Session, name: str, now: float) -> list[Invitation]:
    """The open invitations with this name or id."""
    found = session.scalars(select(Invitation).where(is_open(now)))
    key = name_key(name)
    return [one for one in found if link_id(one) == name.strip() or (one.name and name_key(one.name) == key)]


def _check_days(days: float) -> None:
    if not 0 < days <= MOST_DAYS:
        raise Refused(f"days: {days:g}; give more than 0 and at most {MOST_DAYS}")


def _refuse_taken(session: Session, name: str, now: float, remedy: str, look: bool = True) -> None:
    """Raises `BadPayload` for a taken name, and (if `look`) for one that looks like a person's or an invited name."""
    if find_person(session, name):
        raise BadPayload([f"name: {name}: this name is taken; {remedy}"])
    if look:
        invited = select(Invitation.name).where(is_open(now), Invitation.name.is_not(None))
        other = look_alike(name, filter(None, (*session.scalars(select(Person.name)), *session.scalars(invited))))
        if other is not None:
            raise BadPayload([f"name: {name} looks like {other}; choose another"])


def _invite(session: Session, role: Role, name: str | None, days: float, by: int | None, now: float) -> NewInvitation:
    token = secrets.token_urlsafe(32)
    session.add(_invitation(token, role, name, None, by, now, days))
    events.append(session, now, by, "invite", name or "", {"role": role})
    return NewInvitation(token, role, name, now + days * DAY_S)


def _invitation(
    token: str, role: str, name: str | None, person_id: int | None, by: int | None, now: float, days: float
) -> Invitation:
    return Invitation(
        token_hash=hash_token(token), role=role, name=name, person_id=person_id, created_by=by, created_at=now,
        expires_at=now + days * DAY_S,
    )  # fmt: skip


def _open_invitation(session: Session, token: str, now: float) -> Invitation:
    found = session.scalar(select(Invitation).where(Invitation.token_hash == hash_token(token), is_open(now)))
    if found is None:
        raise LoginRefused("this invitation is no longer valid; ask for a new one")
    return found
