"""What happened, in order, each event with a hash that covers the one before: a later change can be seen.

A revision's event holds the digest of its content, so the chain covers what people said too. What a chain cannot
show is that its newest events were cut off; for that, note `Verdict.head` down elsewhere and give it to `verify`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from apps.store.engine import Store
from apps.store.tables import Event, Revision, canonical

NOTHING = "0" * 64  # what the first event follows


def append(session: Session, at: float, person_id: int | None, verb: str, subject: str, data: dict[str, Any]) -> int:
    """Adds an event to the running transaction. Returns its number. Never give it a password or a token."""
    last = session.execute(select(Event.seq, Event.hash).order_by(Event.seq.desc()).limit(1)).first()
    seq, before = (last.seq + 1, last.hash) if last else (1, NOTHING)
    own = event_hash(seq, at, person_id, verb, subject, data, before)
    session.add(
        Event(seq=seq, at=at, person_id=person_id, verb=verb, subject=subject, data=data, prev_hash=before, hash=own)
    )
    session.flush()
    return seq


def event_hash(
    seq: int, at: float, person_id: int | None, verb: str, subject: str, data: dict[str, Any], prev_hash: str
) -> str:
    """The hash of an event's content and of the event before it."""
    return digest([seq, at, person_id, verb, subject, data, prev_hash])


def digest(value: Any) -> str:
    """SHA-256 of a value as canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def revision_content(revision: Revision | Any) -> list[Any]:
    """What the digest of a revision is made of."""
    r = revision
    return [r.annotation_id, r.n, r.status, r.extra, r.payload, r.seconds, r.guidelines_version, r.created_at]


@dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    n_events: int
    n_revisions: int
    head: str  # "number:hash" of the newest event
    problems: tuple[str, ...]


N_TOLD = 20


def verify(store: Store, head: str | None = None) -> Verdict:
    """Checks the whole chain and every revision against it; `head` is a newest event noted down earlier."""
    problems: list[str] = []
    said: dict[tuple[str, int], str] = {}  # (annotation, revision) → digest
    before, n_events, n_revisions, seen = NOTHING, 0, 0, head is None
    with store.read() as session:
        for event in session.execute(select(Event).order_by(Event.seq).execution_options(yield_per=1000)).scalars():
            n_events += 1
            if event.seq != n_events:
                problems.append(f"event {n_events} is missing; event {event.seq} stands in its place")
                n_events = event.seq
            mine = event_hash(
                event.seq, event.at, event.person_id, event.verb, event.subject, event.data, event.prev_hash
            )
            if event.prev_hash != before:
                problems.append(f"event {event.seq} does not follow the event before it")
            if mine != event.hash:
                problems.append(f"event {event.seq} was changed after it was written")
            if "revision_sha256" in event.data:
                said[event.subject, event.data["revision"]] = event.data["revision_sha256"]
            before, seen = event.hash, seen or f"{event.seq}:{event.hash}" == head
            session.expunge(event)
        for revision in session.execute(select(Revision).execution_options(yield_per=1000)).scalars():
            n_revisions += 1
            expected = said.pop((revision.annotation_id, revision.n), None)
            if expected is None:
                problems.append(f"revision {revision.n} of {revision.annotation_id} has no event")
            elif expected != digest(revision_content(revision)):
                problems.append(f"revision {revision.n} of {revision.annotation_id} was changed after it was written")
            session.expunge(revision)
    problems += [f"revision {n} of {annotation} is missing" for annotation, n in said]
    if not seen:
        problems.append(f"the event {head} is not in the chain: events were cut off or written anew")
    return Verdict(n_events, n_revisions, f"{n_events}:{before}", tuple(problems[:N_TOLD]))
