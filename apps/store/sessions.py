"""Logging in, staying logged in, and how guessing is slowed down.

A failure is counted before the password is looked at, in a transaction of its own, so guesses sent all at once count
like guesses sent one by one.
"""

from __future__ import annotations

import ipaddress
import secrets

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import LoginRefused, TooManyAttempts
from apps.store.people import Somebody, _somebody, hash_token, name_key
from apps.store.tables import Attempt, LoginSession, Person

FREE = {"name": 5, "address": 20}  # failures before there is a wait; people behind one router share an address
LONGEST_WAIT_S = {"name": 60.0, "address": 900.0}  # others could keep a name waiting, so its wait is short
FORGET_S = 86400.0  # a day without a failure clears the count
SEEN_EVERY_S = 60.0
SET_BACK_S = 3600.0  # as far may a clock be set back before sessions end that seem to begin later than now

# Asked with every call, so it is put together once, and of tables instead of classes.
LIVE = (
    select(*Person.__table__.c, LoginSession.seen_at)
    .join(LoginSession, LoginSession.person_id == Person.id)
    .where(LoginSession.token_hash == bindparam("token"), LoginSession.revoked_at.is_(None))
    .where(LoginSession.expires_at > bindparam("now"), LoginSession.created_at < bindparam("newest"), Person.active)
)


def login(store: Store, name: str, password: str, address: str, hours: float = 12) -> str:
    """A session's token for the right name and password; it is good for `hours`. Only its hash is kept.

    Raises `LoginRefused`, in the same words and time for an unknown name, a wrong password and somebody who was shut
    out; `TooManyAttempts` before anything is looked at.
    """
    from apps.store.passwords import hash_password, is_outdated, verify_password

    keys = [f"name:{hash_token(name_key(name))}", f"address:{network_of(address)}"]
    _count_failure(store, keys)
    with store.read() as session:
        person = session.scalar(select(Person).where(Person.key == name_key(name)))
        person_id, known = (person.id, person.password_hash) if person and person.active else (None, None)
    if not verify_password(known, password) or person_id is None or known is None:
        raise LoginRefused("the name or the password is wrong")
    newer = hash_password(password) if is_outdated(known) else known
    token, now = secrets.token_urlsafe(32), store.clock()
    with store.write() as session:
        person = session.get_one(Person, person_id)
        if not person.active or person.password_hash != known:  # shut out, or reset, while we computed
            raise LoginRefused("the name or the password is wrong")
        person.password_hash = newer
        _take_back_failure(session, keys)
        session.execute(delete(LoginSession).where(LoginSession.expires_at < now - FORGET_S))
        session.add(
            LoginSession(
                token_hash=hash_token(token),
                person_id=person_id,
                created_at=now,
                expires_at=now + hours * 3600,
                seen_at=now,
            )
        )
        events.append(session, now, person_id, "login", person.name, {})
    return token


def person_of(store: Store, token: str | None) -> Somebody | None:
    """Whose session this is, or None if there is no such session, or it ended."""
    if not token:
        return None
    now = store.clock()
    with store.look() as connection:
        values = {"token": hash_token(token), "now": now, "newest": now + SET_BACK_S}
        found = connection.execute(LIVE, values).first()
    if found is None:
        return None
    if now - found.seen_at > SEEN_EVERY_S:
        with store.write() as session:
            row = session.get(LoginSession, hash_token(token))
            if row is not None:
                row.seen_at = max(row.seen_at, now)
    return _somebody(found)


def logout(store: Store, token: str | None) -> None:
    """Ends this session."""
    with store.write() as session:
        row = session.get(LoginSession, hash_token(token or ""))
        if row is not None and row.revoked_at is None:
            row.revoked_at = store.clock()
            events.append(session, store.clock(), row.person_id, "logout", "", {})


def _count_failure(store: Store, keys: list[str]) -> None:
    """Counts a failure that is yet to be taken back. Raises `TooManyAttempts` while one of the keys has to wait."""
    now = store.clock()
    with store.write() as session:
        session.execute(delete(Attempt).where(Attempt.last_at < now - FORGET_S))
        rows = [
            session.get(Attempt, key) or Attempt(key=key, failures=0, blocked_until=0.0, last_at=now) for key in keys
        ]
        # a clock that was set back must not lock anybody out for longer than the longest wait
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
    """A success clears the name, and takes back what it counted for the address: others may be guessing from there."""
    for key in keys:
        row = session.get(Attempt, key)
        if row is None:
            continue
        row.failures = 0 if _kind(key) == "name" else max(0, row.failures - 1)
        if row.failures <= FREE[_kind(key)]:
            row.blocked_until = 0.0


def network_of(address: str) -> str:
    """Who is behind an address: of IPv6 the first 64 bits, since one customer has all the others."""
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
