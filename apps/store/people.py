"""People: roles, deactivating, ending sessions. Nobody exists by default: see `invitations.py`."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.links import revoke_granted
from apps.store.names import name_key
from apps.store.tables import Device, Lease, LoginSession, Person

Role = Literal["admin", "reviewer", "annotator"]
ROLES = ("admin", "reviewer", "annotator")
LEADS = ("admin", "reviewer")  # roles that may see everybody's work


class PersonInfo(NamedTuple):
    """A person without secrets, for the rest of the program."""

    id: int
    name: str
    role: Role
    active: bool = True
    accepted: bool = True  # whether they have a password
    created_at: float = 0.0
    erased: bool = False  # the name is a pseudonym


def all_people(store: Store) -> list[PersonInfo]:
    """Everybody, by name."""
    with store.read() as session:
        return [person_info(person) for person in session.scalars(select(Person).order_by(Person.key))]


def by_name(store: Store, name: str) -> PersonInfo:
    """The person of this name. Raises `Refused` if there is none."""
    with store.read() as session:
        return person_info(person_named(session, name))


def set_active(store: Store, name: str, active: bool, by: int | None = None) -> PersonInfo:
    """Activates or deactivates a person. Deactivating ends their sessions and leases at once.

    Raises `Refused` for an unknown name, and for the last active admin.
    """
    now = store.clock()
    with store.write() as session:
        person = unerased_person(session, name)
        if not active:
            require_another_admin(session, person, "deactivated")
            end_sessions(session, person.id, now)
            revoke_granted(session, person.id, now)
            session.execute(update(Lease).where(Lease.person_id == person.id).values(expires_at=0))
        person.active = active
        events.append(session, now, by, "activate" if active else "deactivate", person.name, {})
        return person_info(person)


def set_role(store: Store, name: str, role: Role, by: int | None = None) -> PersonInfo:
    """Gives a person another role. Raises `Refused` for an unknown name or role, and for the last active admin."""
    check_role(role)
    now = store.clock()
    with store.write() as session:
        person = unerased_person(session, name)
        if role != "admin":
            require_another_admin(session, person, f"made {role}")
            revoke_granted(session, person.id, now)
        person.role = role
        events.append(session, now, by, "role", person.name, {"role": role})
        return person_info(person)


def check_role(role: str) -> None:
    """Raises `Refused` for an unknown role."""
    if role not in ROLES:
        raise Refused(f"role: {role} is unknown; the roles are {', '.join(ROLES)}")


def find_person(session: Session, name: str) -> Person | None:
    """The person of this name in any spelling, if there is one."""
    return session.scalar(select(Person).where(Person.key == name_key(name)))


def person_named(session: Session, name: str) -> Person:
    """The person of this name. Raises `Refused` if there is none."""
    person = find_person(session, name)
    if person is None:
        raise Refused(f"{name}: nobody has this name; see the list of people")
    return person


def unerased_person(session: Session, name: str) -> Person:
    """The same for actions on a person. Raises `Refused` for an erased one, too."""
    person = person_named(session, name)
    if person.erased_at is not None:
        raise Refused(f"{person.name} was erased and cannot come back; invite them again")
    return person


def require_another_admin(session: Session, person: Person, change: str) -> None:
    """Raises `Refused` if the person is the last active admin."""
    admins = session.scalars(select(Person.id).where(Person.role == "admin", Person.active)).all()
    if list(admins) == [person.id]:
        raise Refused(f"{person.name} is the last active admin and cannot be {change}; make another admin first")


def end_sessions(session: Session, person_id: int, now: float) -> int:
    """Logs a person out everywhere and forgets their browsers. Returns the number of sessions ended."""
    session.execute(delete(Device).where(Device.person_id == person_id))
    alive = (LoginSession.person_id == person_id) & LoginSession.revoked_at.is_(None) & (LoginSession.expires_at > now)
    ids = session.scalars(select(LoginSession.token_hash).where(alive)).all()
    session.execute(update(LoginSession).where(LoginSession.token_hash.in_(ids)).values(revoked_at=now))
    return len(ids)


def person_info(person: Any) -> PersonInfo:  # a Person, or a row of its columns
    """A row as `PersonInfo`."""
    accepted = person.password_hash is not None
    erased = person.erased_at is not None
    role = known_role(person.role)
    return PersonInfo(person.id, person.name, role, person.active, accepted, person.created_at, erased)


def known_role(role: str) -> Role:
    """A role read from the database."""
    assert role in ROLES
    return role  # type: ignore[return-value]
