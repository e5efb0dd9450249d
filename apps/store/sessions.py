"""Login sessions, and slowing down password guessing.

A failure is counted before the password is checked, in its own transaction, so guesses sent in parallel count like
guesses sent one by one.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import Any

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import LoginRefused, TooManyAttempts
from apps.store.links import DAY_S, SET_BACK_S, hash_token, revoke_links_from_future
from apps.store.names import name_key
from apps.store.people import PersonInfo, person_info
from apps.store.tables import Attempt, Device, LoginSession, Person

# Failures allowed before a wait. People behind one router share an address. A name's wait is short, because others can
# cause it.
FREE = {"name": 5, "device": 5, "address": 20}
LONGEST_WAIT_S = {"name": 60.0, "device": 60.0, "address": 900.0}
FORGET_S = 86400.0  # a day without a failure clears the count
SEEN_EVERY_S = 60.0
DEVICE_S = 180 * DAY_S  # an unused browser is forgotten after this time

# Built once, since every call runs it; selects columns instead of objects.
LIVE = (
    select(*Person.__table__.c, LoginSession.seen_at)
    .join(LoginSession, LoginSession.person_id == Person.id)
    .where(LoginSession.token_hash == bindparam("token"), LoginSession.revoked_at.is_(None))
    .where(LoginSession.expires_at > bindparam("now"), LoginSession.created_at < bindparam("newest"), Person.active)
)
SEEN = update(LoginSession).where(LoginSession.token_hash == bindparam("token")).values(seen_at=bindparam("now"))


def login(
    store: Store, name: str, password: str, address: str, hours: float = 12, device: str = "", next_device: str = ""
) -> str:
    """Checks name and password and returns a session token, valid for `hours`. Only its hash is kept.

    `address` is "" if unknown. `device` is the token of a browser in which somebody logged in before; `next_device`
    replaces it. If that was this person, only the browser's own failures count: others who guess this name or share the
    address cannot lock them out.

    Raises `LoginRefused` with the same message and timing for an unknown name, a wrong password and a deactivated
    person; `TooManyAttempts` before the password is checked.
    """
    from apps.store.passwords import hash_password, is_outdated, verify_password

    keys = _counted_as(store, name, address, device)
    _count_failure(store, keys)
    with store.read() as session:
        person = session.scalar(select(Person).where(Person.key == name_key(name)))
        person_id, known = (person.id, person.password_hash) if person and person.active else (None, None)
    if not verify_password(known, password) or person_id is None or known is None:
        raise LoginRefused("the name or the password is wrong")
    newer = hash_password(password) if is_outdated(known) else known
    with store.write() as session:
        person = session.get_one(Person, person_id)
        if person.password_hash != known:  # reset while the hash was computed
            raise LoginRefused("the name or the password is wrong")
        person.password_hash = newer
        _take_back_failure(session, keys)
        return _begin(session, person, store.clock(), hours, device, next_device)


def begin(store: Store, person_id: int, hours: float, device: str, next_device: str) -> str:
    """A session token after a person set their password. Raises `LoginRefused` if they are deactivated."""
    with store.write() as session:
        return _begin(session, session.get_one(Person, person_id), store.clock(), hours, device, next_device)


def _begin(session: Session, person: Person, now: float, hours: float, device: str, next_device: str) -> str:
    if not person.active:
        raise LoginRefused("the name or the password is wrong")
    token = secrets.token_urlsafe(32)
    revoke_links_from_future(session, now)
    session.execute(delete(LoginSession).where(LoginSession.expires_at < now - FORGET_S))
    is_past = (Device.token_hash == hash_token(device)) | (Device.seen_at < now - DEVICE_S)
    session.execute(delete(Device).where(is_past))
    begins = {"person_id": person.id, "created_at": now, "expires_at": now + hours * 3600, "seen_at": now}
    session.add(LoginSession(token_hash=hash_token(token), **begins))
    if next_device:
        session.add(Device(token_hash=hash_token(next_device), person_id=person.id, seen_at=now))
    events.append(session, now, person.id, "login", person.name, {})
    return token


def person_of(store: Store, token: str | None) -> PersonInfo | None:
    """The person of a session; None if there is no such session or it has ended."""
    if not token:
        return None
    now = store.clock()
    with store.read_one() as connection:
        values = {"token": hash_token(token), "now": now, "newest": now + SET_BACK_S}
        found: Any = connection.execute(LIVE, values).first()
    if found is None:
        return None
    if now - found.seen_at > SEEN_EVERY_S:
        store.write_one(SEEN, {"token": hash_token(token), "now": now})
    return person_info(found)


def logout(store: Store, token: str | None) -> None:
    """Ends this session."""
    with store.write() as session:
        row = session.get(LoginSession, hash_token(token or ""))
        if row is not None and row.revoked_at is None:
            row.revoked_at = store.clock()
            events.append(session, store.clock(), row.person_id, "logout", "", {})


def _counted_as(store: Store, name: str, address: str, device: str) -> list[str]:
    """The keys that a failure counts for: a browser known to be this person's, else the name and the address."""
    known = (Device.token_hash == hash_token(device)) & (Device.seen_at > store.clock() - DEVICE_S)
    with store.read() as session:
        key = session.scalar(select(Person.key).join(Device, Device.person_id == Person.id).where(known))
    if key == name_key(name):
        return [f"device:{hash_token(device)}"]
    return [f"name:{hash_token(name_key(name))}", *([f"address:{network_of(address)}"] if address else [])]


def _count_failure(store: Store, keys: list[str]) -> None:
    """Counts a failure in advance; success takes it back. Raises `TooManyAttempts` while a key has to wait."""
    now = store.clock()
    with store.write() as session:
        session.execute(delete(Attempt).where(Attempt.last_at < now - FORGET_S))
        rows = [
            session.get(Attempt, key) or Attempt(key=key, failures=0, blocked_until=0.0, last_at=now) for key in keys
        ]
        # a clock that was set back must not extend a wait beyond the longest one
        waits = [min(row.blocked_until - now, LONGEST_WAIT_S[_kind(row.key)]) for row in rows]
        if max(waits) > 0:
            raise TooManyAttempts(max(waits))
        for row in rows:
            row.failures += 1
            row.last_at = now
            beyond = row.failures - FREE[_kind(row.key)]
            if beyond > 0:
                row.blocked_until = now + min(2.0 ** min(beyond, 20), LONGEST_WAIT_S[_kind(row.key)])
            session.add(row)


def _take_back_failure(session: Session, keys: list[str]) -> None:
    """Clears the failures of the name or browser. The address loses only this one: others may be guessing from it."""
    for key in keys:
        row = session.get(Attempt, key)
        if row is None:
            continue
        row.failures = max(0, row.failures - 1) if _kind(key) == "address" else 0
        if row.failures <= FREE[_kind(key)]:
            row.blocked_until = 0.0


def network_of(address: str) -> str:
    """The network that counts as one address: for IPv6 the first 64 bits, since one customer owns the rest."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))


def _kind(key: str) -> str:
    return key.partition(":")[0]
