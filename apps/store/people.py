"""Who there is: invitations, roles, and who may still come in. Logging in is in `sessions.py`.

Nobody exists by default. The first admin is invited on the command line, and every password is set by its owner, with a
link that works once.
"""

from __future__ import annotations

import csv
import hashlib
import secrets
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import BadPayload, LoginRefused, Refused
from apps.store.names import checked_name, look_alike
from apps.store.names import name_key as name_key
from apps.store.tables import ApiToken, Device, Event, Invitation, Lease, LoginSession, Person

Role = Literal["admin", "reviewer", "annotator"]
ROLES = ("admin", "reviewer", "annotator")
LEADS = ("admin", "reviewer")  # who may see everybody's work
DAY_S = 86400.0
MOST_DAYS = 30  # that a link works
MOST_NAMES = 1000  # invited at once: each is compared with all others, while nobody can write
SET_BACK_S = 3600.0  # as far may a clock be set back before what seems to begin later than now has ended


class Somebody(NamedTuple):
    """A person, as the rest of the program knows them."""

    id: int
    name: str
    role: Role
    active: bool = True
    accepted: bool = True  # whether they have a password
    created_at: float = 0.0
    erased: bool = False  # the name is a pseudonym


class Invited(NamedTuple):
    """A new invitation. The token is told this once; only its hash is kept."""

    token: str
    role: Role
    name: str | None
    expires_at: float


class OpenInvitation(NamedTuple):
    """An invitation as the page shows it to the invited person."""

    role: Role
    name: str | None  # given by who invited; None lets them choose
    is_reset: bool  # it sets a new password for somebody who is known


def hash_token(token: str) -> str:
    """Tokens are 256 random bits, so a plain hash keeps them."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class Waiting(NamedTuple):
    """Somebody who was invited and has not come yet."""

    id: str  # by which it can be taken back
    role: Role
    name: str | None
    expires_at: float


def invite(
    store: Store, role: Role, name: str | None = None, days: float = 7, created_by: int | None = None
) -> Invited:
    """An invitation that works once, for `days`.

    Raises `Refused` for an unknown role, and for a name that is taken or looks like another one.
    """
    _check_role(role)
    _check_days(days)
    name = None if name is None else checked_name(name)
    with store.write() as session:
        if name is not None:
            _refuse_taken(session, name, store.clock(), "for a new password reset theirs")
        return _invite(session, role, name, days, created_by, store.clock())


def invite_many(store: Store, lines: str, role: Role, days: float = 7, created_by: int | None = None) -> list[Invited]:
    """An invitation for each line's name, or for the first column's where it is CSV: of all of them, or of none.

    Raises `BadPayload` that tells each line which has no name, one that cannot be, or one that is taken, comes twice or
    looks like another; and for more than `MOST_NAMES`.
    """
    _check_role(role)
    _check_days(days)
    made, problems, lines_of = list[Invited](), list[str](), dict[str, int]()
    names, now = _first_column(lines), store.clock()
    if len(names) > MOST_NAMES:
        raise BadPayload([f"names: {len(names)}; give at most {MOST_NAMES} at once"])
    with store.write() as session:
        for n, given in enumerate(names, start=1):
            try:
                name = checked_name(given)
                first = lines_of.setdefault(name_key(name), n)
                if first != n:
                    raise BadPayload([f"{name} stands in line {first} already"])
                _refuse_taken(session, name, now, "leave it out")
                made.append(_invite(session, role, name, days, created_by, now))
            except BadPayload as refused:
                problems.append(f"line {n}: {refused}")
        if problems or not made:
            raise BadPayload(problems or ["names: there is none; give one on each line"])
        return made


def _first_column(lines: str) -> list[str]:
    try:
        rows = csv.reader(lines.strip().splitlines(), skipinitialspace=True, strict=True)
        return [row[0] if row else "" for row in rows]
    except csv.Error as error:
        raise BadPayload([f"names: this is no CSV ({error}); give a name on each line"]) from None


def reset(store: Store, name: str, days: float = 1, created_by: int | None = None) -> Invited:
    """A link with which a known person sets a new password; those made before do so no longer.

    Raises `Refused` for a name that nobody has.
    """
    _check_days(days)
    token, now = secrets.token_urlsafe(32), store.clock()
    with store.write() as session:
        person = _living(session, name)
        _end_links(session, Invitation.person_id == person.id, now)
        session.add(_invitation(token, person.role, person.name, person.id, created_by, now, days))
        events.append(session, now, created_by, "reset", person.name, {})
        return Invited(token, _role(person), person.name, now + days * DAY_S)


def invitation(store: Store, token: str) -> OpenInvitation:
    """What an invitation is for. Raises `LoginRefused` if it is unknown, used, revoked or too old."""
    with store.read() as session:
        found = _open_invitation(session, token, store.clock())
        return OpenInvitation(_checked_role(found.role), found.name, found.person_id is not None)


def accept(store: Store, token: str, name: str | None, password: str) -> Somebody:
    """Makes the invited person, or sets a known person's password anew and ends their sessions.

    Raises `LoginRefused` for an invitation that is not valid, `BadPayload` for a name that is taken or cannot be one
    and for a password that is too short.
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
            _end_sessions(session, person.id, now)
        else:
            _refuse_taken(session, name, now, "choose another", look=found.name is None)
            person = Person(name=name, key=name_key(name), role=found.role, active=True, created_at=now)
            person.password_hash = password_hash
            session.add(person)
            session.flush()
        found.used_by = person.id
        session.flush()
        _end_links(session, Invitation.person_id == person.id, now)
        for other in _invited_as(session, person.name, now):  # invited twice
            other.revoked_at = now
        events.append(session, now, person.id, "accept", person.name, {"role": person.role})
        return _somebody(person)


def listed(store: Store) -> list[Somebody]:
    """Everybody, by name."""
    with store.read() as session:
        return [_somebody(person) for person in session.scalars(select(Person).order_by(Person.key))]


def waiting(store: Store) -> list[Waiting]:
    """The invitations that are open, the oldest first."""
    is_new = _is_open(store.clock()) & Invitation.person_id.is_(None)
    query = select(Invitation).where(is_new).order_by(Invitation.created_at)
    with store.read() as session:
        found = session.scalars(query)
        return [Waiting(link_id(one), _checked_role(one.role), one.name, one.expires_at) for one in found]


def by_name(store: Store, name: str) -> Somebody:
    """The person of this name. Raises `Refused` if there is none."""
    with store.read() as session:
        return _somebody(_named(session, name))


def set_active(store: Store, name: str, active: bool, by: int | None = None) -> Somebody:
    """Lets a person in again, or shuts them out at once: their sessions end and their leases are given back.

    Raises `Refused` for an unknown name, and for the last active admin.
    """
    now = store.clock()
    with store.write() as session:
        person = _living(session, name)
        if not active:
            _keep_an_admin(session, person, "deactivated")
            _end_sessions(session, person.id, now)
            end_gifts(session, person.id, now)
            session.execute(update(Lease).where(Lease.person_id == person.id).values(expires_at=0))
        person.active = active
        events.append(session, now, by, "activate" if active else "deactivate", person.name, {})
        return _somebody(person)


def set_role(store: Store, name: str, role: Role, by: int | None = None) -> Somebody:
    """Gives a person another role. Raises `Refused` for an unknown name or role, and for the last active admin."""
    _check_role(role)
    now = store.clock()
    with store.write() as session:
        person = _living(session, name)
        if role != "admin":
            _keep_an_admin(session, person, f"made {role}")
            end_gifts(session, person.id, now)
        person.role = role
        events.append(session, now, by, "role", person.name, {"role": role})
        return _somebody(person)


def revoke(store: Store, name: str, by: int | None = None) -> int:
    """Ends a person's sessions and takes back open invitations in their name. Returns how many there were.

    One invitation alone goes by its id, as `waiting` gives it. Raises `Refused` for a name or id of nobody.
    """
    now = store.clock()
    with store.write() as session:
        person, invitations = _by_name(session, name), _invited_as(session, name, now)
        if person is None and not invitations:
            raise Refused(
                f"{name}: nobody has this name, and nobody was invited by it or has an invitation of this id; "
                "look at the list of people"
            )
        for one in invitations:
            one.revoked_at = now
        n_ended = _end_sessions(session, person.id, now) if person else 0
        events.append(session, now, by, "revoke", person.name if person else name, {})
        return n_ended + len(invitations)


def _invited_as(session: Session, name: str, now: float) -> list[Invitation]:
    """The open invitations in a name, or with this id."""
    found = session.scalars(select(Invitation).where(_is_open(now)))
    key = name_key(name)
    return [one for one in found if link_id(one) == name.strip() or (one.name and name_key(one.name) == key)]


def link_id(row: Invitation | ApiToken) -> str:
    """What an invitation or a token is called. It tells nothing of the link: no hash can be turned back into that."""
    return f"#{row.token_hash[:8]}"


def end_gifts(session: Session, person_id: int, now: float) -> None:
    """Takes back the links and tokens that somebody made for others: they would come back by one."""
    _end_links(session, Invitation.created_by == person_id, now)
    events_of = select(Event.data).where(Event.verb == "token", Event.person_id == person_id)
    made = {data.get("token") for data in session.scalars(events_of)}
    theirs = select(ApiToken).where(ApiToken.person_id != person_id, ApiToken.revoked_at.is_(None))
    for token in session.scalars(theirs):
        token.revoked_at = now if link_id(token) in made else None


def _end_links(session: Session, which: ColumnElement[bool], now: float) -> None:
    """Takes back open links, as older ones that set a password: whoever has one must not get in by it."""
    is_open = Invitation.used_by.is_(None) & Invitation.revoked_at.is_(None)
    session.execute(update(Invitation).where(is_open & which).values(revoked_at=now))


def end_links_from_later(session: Session, now: float) -> None:
    """Takes back links that were made while the clock was ahead, which would work for longer than their days."""
    _end_links(session, Invitation.created_at > now + SET_BACK_S, now)


def _is_open(now: float) -> ColumnElement[bool]:
    """Invitations that can be used: not used yet, not taken back, and made within their days, not later than now."""
    is_young = (Invitation.created_at > now - MOST_DAYS * DAY_S) & (Invitation.created_at <= now + SET_BACK_S)
    is_left = Invitation.used_by.is_(None) & Invitation.revoked_at.is_(None) & (Invitation.expires_at > now)
    return is_young & is_left


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise Refused(f"role: {role} is none; the roles are {', '.join(ROLES)}")


def _check_days(days: float) -> None:
    if not 0 < days <= MOST_DAYS:
        raise Refused(f"days: {days:g}; give more than 0 and at most {MOST_DAYS}")


def _refuse_taken(session: Session, name: str, now: float, remedy: str, look: bool = True) -> None:
    """Raises `BadPayload` for somebody's name, and for one that could be taken for another, even of the invited."""
    if _by_name(session, name):
        raise BadPayload([f"name: {name}: this name is taken; {remedy}"])
    if look:
        invited = select(Invitation.name).where(_is_open(now), Invitation.name.is_not(None))
        other = look_alike(name, filter(None, (*session.scalars(select(Person.name)), *session.scalars(invited))))
        if other is not None:
            raise BadPayload([f"name: {name} looks like {other}; choose another"])


def _invite(session: Session, role: Role, name: str | None, days: float, by: int | None, now: float) -> Invited:
    token = secrets.token_urlsafe(32)
    session.add(_invitation(token, role, name, None, by, now, days))
    events.append(session, now, by, "invite", name or "", {"role": role})
    return Invited(token, role, name, now + days * DAY_S)


def _invitation(
    token: str, role: str, name: str | None, person_id: int | None, by: int | None, now: float, days: float
) -> Invitation:
    return Invitation(
        token_hash=hash_token(token), role=role, name=name, person_id=person_id, created_by=by, created_at=now,
        expires_at=now + days * DAY_S,
    )  # fmt: skip


def _open_invitation(session: Session, token: str, now: float) -> Invitation:
    found = session.scalar(select(Invitation).where(Invitation.token_hash == hash_token(token), _is_open(now)))
    if found is None:
        raise LoginRefused("this invitation is not valid any more; ask for a new one")
    return found


def _by_name(session: Session, name: str) -> Person | None:
    return session.scalar(select(Person).where(Person.key == name_key(name)))


def _named(session: Session, name: str) -> Person:
    person = _by_name(session, name)
    if person is None:
        raise Refused(f"{name}: nobody has this name; look at the list of people")
    return person


def _living(session: Session, name: str) -> Person:
    """The same, where something is to be done with them that an erased person cannot have done."""
    person = _named(session, name)
    if person.erased_at is not None:
        raise Refused(f"{person.name} was erased, and cannot come back; invite them anew")
    return person


def _keep_an_admin(session: Session, person: Person, what: str) -> None:
    admins = session.scalars(select(Person.id).where(Person.role == "admin", Person.active)).all()
    if list(admins) == [person.id]:
        raise Refused(f"{person.name} is the last active admin and cannot be {what}; make another admin first")


def _end_sessions(session: Session, person_id: int, now: float) -> int:
    """Logs a person out everywhere, and forgets their browsers. Returns how many sessions there were."""
    session.execute(delete(Device).where(Device.person_id == person_id))
    alive = (LoginSession.person_id == person_id) & LoginSession.revoked_at.is_(None) & (LoginSession.expires_at > now)
    ids = session.scalars(select(LoginSession.token_hash).where(alive)).all()
    session.execute(update(LoginSession).where(LoginSession.token_hash.in_(ids)).values(revoked_at=now))
    return len(ids)


def _somebody(person: Any) -> Somebody:  # a Person, or a row of its columns
    accepted = person.password_hash is not None
    erased = person.erased_at is not None
    return Somebody(person.id, person.name, _role(person), person.active, accepted, person.created_at, erased)


def _role(person: Any) -> Role:
    return _checked_role(person.role)


def _checked_role(role: str) -> Role:
    assert role in ROLES
    return role  # type: ignore[return-value]
