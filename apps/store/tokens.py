"""API tokens with which scripts act as a person: `Authorization: Bearer align_...` instead of a login.

A token is 256 random bits, so only its hash is kept and wrong tokens need not be counted or slowed down: at a million
guesses a second the first hit is some 10^63 years away. A token has its person's current rights.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from sqlalchemy import select

from apps.store import events
from apps.store.engine import Store
from apps.store.errors import Refused
from apps.store.links import DAY_S, SET_BACK_S, hash_token, link_id
from apps.store.people import PersonInfo, person_info, person_named
from apps.store.sessions import SEEN_EVERY_S
from apps.store.tables import ApiToken, Person

PREFIX = "align_"  # lets secret scanners find a committed token
LONGEST_DAYS = 365
LONGEST_PURPOSE = 100


class NewToken(NamedTuple):
    """A new token. It is shown only now."""

    token: str
    expires_at: float


class KnownToken(NamedTuple):
    """A valid token in a list."""

    id: str
    person: str
    purpose: str
    created_at: float
    expires_at: float
    used_at: float | None


def create(store: Store, name: str, purpose: str, days: float, by: int | None = None) -> NewToken:
    """Makes a token for a person, valid for `days`. Raises `Refused` for an unknown or deactivated person."""
    purpose = purpose.strip()
    if not 1 <= len(purpose) <= LONGEST_PURPOSE or not purpose.isprintable():
        raise Refused(f"purpose: give 1 to {LONGEST_PURPOSE} visible characters that say what the token is for")
    if not 0 < days <= LONGEST_DAYS:
        raise Refused(f"days: {days:g}; give more than 0 and at most {LONGEST_DAYS}")
    token, now = PREFIX + secrets.token_urlsafe(32), store.clock()
    made = ApiToken(token_hash=hash_token(token), name=purpose, created_at=now, expires_at=now + days * DAY_S)
    with store.write() as session:
        person = person_named(session, name)
        if not person.active:
            raise Refused(f"{person.name} is deactivated; activate them first")
        made.person_id = person.id
        session.add(made)
        events.append(session, now, by, "token", person.name, {"token": link_id(made), "days": days})
        return NewToken(token, made.expires_at)


def person_of(store: Store, token: str) -> PersonInfo | None:
    """The token's person; None if it is unknown, expired or revoked, or the person is deactivated."""
    now = store.clock()
    with store.read() as session:
        query = select(ApiToken, Person).join(Person, Person.id == ApiToken.person_id)
        query = query.where(ApiToken.token_hash == hash_token(token), ApiToken.revoked_at.is_(None), Person.active)
        query = query.where(ApiToken.expires_at > now, ApiToken.created_at < now + SET_BACK_S)
        found = session.execute(query).first()
        if found is None:
            return None
        used_at, person = found[0].used_at, person_info(found[1])
    if used_at is None or now - used_at > SEEN_EVERY_S:
        with store.write() as session:
            row = session.get(ApiToken, hash_token(token))
            if row is not None:
                row.used_at = now
    return person


def all_tokens(store: Store) -> list[KnownToken]:
    """All valid tokens, by person. Those of a deactivated person work again when the person is activated."""
    query = select(ApiToken, Person.name).join(Person, Person.id == ApiToken.person_id)
    query = query.where(ApiToken.revoked_at.is_(None), ApiToken.expires_at > store.clock())
    with store.read() as session:
        rows = session.execute(query.order_by(Person.key, ApiToken.created_at))
        return [KnownToken(link_id(t), name, t.name, t.created_at, t.expires_at, t.used_at) for t, name in rows]


def revoke(store: Store, id: str, by: int | None = None) -> None:
    """Revokes a token by its id from `all_tokens`. Raises `Refused` if there is none."""
    now = store.clock()
    with store.write() as session:
        query = select(ApiToken, Person.name).join(Person, Person.id == ApiToken.person_id)
        rows = session.execute(query.where(ApiToken.revoked_at.is_(None))).all()
        mine = [(token, name) for token, name in rows if link_id(token) == id.strip()]
        if not mine:
            raise Refused(f"{id}: no valid token has this id; see the list of tokens")
        for token, name in mine:
            token.revoked_at = now
            events.append(session, now, by, "revoke_token", name, {"token": link_id(token)})
