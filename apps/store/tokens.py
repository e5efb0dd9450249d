"""Tokens with which scripts work as a person: `Authorization: Bearer align_...` in place of a login.

A token is 256 random bits, so only its hash is kept, and wrong ones need not be counted or slowed down: at a million
guesses a second the first hit is some 10^63 years away. It may do what its person may at that moment.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from sqlalchemy import select

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.people import DAY_S, Somebody, _named, _somebody, hash_token, link_id
from apps.store.sessions import SEEN_EVERY_S, SET_BACK_S
from apps.store.tables import ApiToken, Person

PREFIX = "align_"  # by which scanners of source code find a token that was committed
LONGEST_DAYS = 365
LONGEST_PURPOSE = 100


class NewToken(NamedTuple):
    """The token is told this once."""

    token: str
    expires_at: float


class KnownToken(NamedTuple):
    """A token that works, as a list shows it."""

    id: str
    person: str
    purpose: str
    created_at: float
    expires_at: float
    used_at: float | None


def create(store: Store, name: str, purpose: str, days: float, by: int | None = None) -> NewToken:
    """A token for the person of this name, good for `days`. Raises `Refused` for a name that nobody has."""
    purpose = purpose.strip()
    if not 1 <= len(purpose) <= LONGEST_PURPOSE or not purpose.isprintable():
        raise Refused(f"purpose: give 1 to {LONGEST_PURPOSE} characters that can be seen, to know the token again")
    if not 0 < days <= LONGEST_DAYS:
        raise Refused(f"days: {days:g}; give more than 0 and at most {LONGEST_DAYS}")
    token, now = PREFIX + secrets.token_urlsafe(32), store.clock()
    made = ApiToken(token_hash=hash_token(token), name=purpose, created_at=now, expires_at=now + days * DAY_S)
    with store.write() as session:
        person = _named(session, name)
        if not person.active:
            raise Refused(f"{person.name} is shut out; let them in again first")
        made.person_id = person.id
        session.add(made)
        events.append(session, now, by, "token", person.name, {"token": link_id(made), "days": days})
        return NewToken(token, made.expires_at)


def person_of(store: Store, token: str) -> Somebody | None:
    """Whose token this is; None if it is unknown, too old or revoked, or its person was shut out."""
    now = store.clock()
    with store.read() as session:
        query = select(ApiToken, Person).join(Person, Person.id == ApiToken.person_id)
        query = query.where(ApiToken.token_hash == hash_token(token), ApiToken.revoked_at.is_(None), Person.active)
        query = query.where(ApiToken.expires_at > now, ApiToken.created_at < now + SET_BACK_S)
        found = session.execute(query).first()
        if found is None:
            return None
        used_at, somebody = found[0].used_at, _somebody(found[1])
    if used_at is None or now - used_at > SEEN_EVERY_S:
        with store.write() as session:
            row = session.get(ApiToken, hash_token(token))
            if row is not None:
                row.used_at = now
    return somebody


def listed(store: Store) -> list[KnownToken]:
    """The tokens that work, by person; those of somebody who is shut out work again when they are let in."""
    query = select(ApiToken, Person.name).join(Person, Person.id == ApiToken.person_id)
    query = query.where(ApiToken.revoked_at.is_(None), ApiToken.expires_at > store.clock())
    with store.read() as session:
        rows = session.execute(query.order_by(Person.key, ApiToken.created_at))
        return [KnownToken(link_id(t), name, t.name, t.created_at, t.expires_at, t.used_at) for t, name in rows]


def revoke(store: Store, id: str, by: int | None = None) -> None:
    """Ends a token, by its id as `listed` gives it. Raises `Refused` if there is none."""
    now = store.clock()
    with store.write() as session:
        query = select(ApiToken, Person.name).join(Person, Person.id == ApiToken.person_id)
        rows = session.execute(query.where(ApiToken.revoked_at.is_(None))).all()
        mine = [(token, name) for token, name in rows if link_id(token) == id.strip()]
        if not mine:
            raise Refused(f"{id}: no token that works has this id; the list of tokens has all")
        for token, name in mine:
            token.revoked_at = now
            events.append(session, now, by, "revoke_token", name, {"token": link_id(token)})
