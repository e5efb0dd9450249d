"""One-time links and API tokens as secrets: hashes, ids to show, validity, revoking."""

from __future__ import annotations

import hashlib

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from apps.store.tables import ApiToken, Event, Invitation

DAY_S = 86400.0
MOST_DAYS = 30  # that a link is valid
SET_BACK_S = 3600.0  # tolerance for a clock that was set back: what was made later than this from now is invalid


def hash_token(token: str) -> str:
    """A token's hash. Tokens are 256 random bits, so a plain hash protects them."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def link_id(row: Invitation | ApiToken) -> str:
    """The short id of an invitation or a token in lists. It reveals nothing of the secret itself."""
    return f"#{row.token_hash[:8]}"


def is_open(now: float) -> ColumnElement[bool]:
    """Usable invitations: not used, revoked or expired, made at most `MOST_DAYS` ago and not in the future."""
    is_recent = (Invitation.created_at > now - MOST_DAYS * DAY_S) & (Invitation.created_at <= now + SET_BACK_S)
    is_valid = Invitation.used_by.is_(None) & Invitation.revoked_at.is_(None) & (Invitation.expires_at > now)
    return is_recent & is_valid


def revoke_links(session: Session, which: ColumnElement[bool], now: float) -> None:
    """Revokes unused links, such as older password reset links: whoever has one must not get in with it."""
    is_unused = Invitation.used_by.is_(None) & Invitation.revoked_at.is_(None)
    session.execute(update(Invitation).where(is_unused & which).values(revoked_at=now))


def revoke_links_from_future(session: Session, now: float) -> None:
    """Revokes links made while the clock was ahead, which would be valid for longer than their days."""
    revoke_links(session, Invitation.created_at > now + SET_BACK_S, now)


def revoke_granted(session: Session, person_id: int, now: float) -> None:
    """Revokes the links and tokens that a person made for others, since they could come back with one."""
    revoke_links(session, Invitation.created_by == person_id, now)
    events_of = select(Event.data).where(Event.verb == "token", Event.person_id == person_id)
    made = {data.get("token") for data in session.scalars(events_of)}
    theirs = select(ApiToken).where(ApiToken.person_id != person_id, ApiToken.revoked_at.is_(None))
    for token in session.scalars(theirs):
        token.revoked_at = now if link_id(token) in made else None
