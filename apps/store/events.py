"""What happened, in order, each event with a hash that covers the one before: a later change can be seen.

A revision's event holds the digest of its content, so the chain covers what people said too. What a chain cannot
show is that its newest events were cut off; for that, note `Verdict.head` down elsewhere and give it to `verify`.

Where a person was erased, events that named them are blank and revisions have lost their texts, while all hashes stay.
The `erase` event says which, and what each hashes to since then: anything else is a change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from apps.store.engine import Store, lock_chain
from apps.store.tables import Annotation, Event, Person, Revision, canonical

NOTHING = "0" * 64  # what the first event follows
ERASE = "erase"
LAST = select(Event.seq, Event.hash).order_by(Event.seq.desc()).limit(1)
ADD = insert(Event)
# What these events are about has a number, and none of their data is a name or a text of somebody's: none is blank.
NAMELESS = (
    *("say", "erase", "import", "project", "guidelines", "close", "reopen", "accept_task", "send_back", "adjudicate"),
    *("final", "keep_report", "edit_prompt", "assign", "unassign", "pause", "resume", "limit", "reset_practice"),
)


def append(session: Session, at: float, person_id: int | None, verb: str, subject: str, data: dict[str, Any]) -> int:
    """Adds an event to the running transaction. Returns its number. Never give it a password or a token."""
    lock_chain(session)
    connection = session.connection()
    last = connection.execute(LAST).first()
    seq, before = (last.seq + 1, last.hash) if last else (1, NOTHING)
    own = event_hash(seq, at, person_id, verb, subject, data, before)
    row = {"seq": seq, "at": at, "person_id": person_id, "verb": verb, "subject": subject, "data": data}
    connection.execute(ADD, row | {"prev_hash": before, "hash": own})
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


def kept_digest(revision: Revision) -> str:
    """The digest that a revision has once its person is erased. It is noted from the start: a forged erasing of
    somebody cannot change what they decided.
    """
    return digest([without_texts(part) for part in revision_content(revision)])


def without_texts(value: Any) -> Any:
    """What a person said, its comments and reasons empty."""
    if not isinstance(value, dict):
        return value
    return {key: "" if key in ("comment", "reason") else without_texts(inner) for key, inner in value.items()}


@dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    n_events: int
    n_revisions: int
    head: str  # "number:hash" of the newest event
    problems: tuple[str, ...]
    n_erased: int = 0  # people; who may write to the database can erase somebody: look whether you did


N_TOLD = 20


def verify(store: Store, head: str | None = None) -> Verdict:
    """Checks the whole chain and every revision against it; `head` is a newest event noted down earlier."""
    with store.read() as session:
        chain = _Chain()
        for event in session.execute(select(Event).order_by(Event.seq).execution_options(yield_per=1000)).scalars():
            chain.read(event, head)
            session.expunge(event)
        problems = chain.problems + _false_erasings(session, chain)
        problems += [f"event {seq} was changed after it was written" for seq in chain.blank]
        n_revisions, said = 0, chain.said
        for revision in session.execute(select(Revision).execution_options(yield_per=1000)).scalars():
            n_revisions += 1
            expected = said.pop((revision.annotation_id, revision.n), None)
            if expected is None:
                problems.append(f"revision {revision.n} of {revision.annotation_id} has no event")
            elif expected != digest(revision_content(revision)):
                problems.append(f"revision {revision.n} of {revision.annotation_id} was changed after it was written")
            session.expunge(revision)
    problems += [f"revision {n} of {annotation} is missing" for annotation, n in said]
    if head is not None and not chain.has_head:
        problems.append(f"the event {head} is not in the chain: events were cut off or written anew")
    newest = f"{chain.n_events}:{chain.before}"
    return Verdict(chain.n_events, n_revisions, newest, tuple(problems[:N_TOLD]), len(chain.erasings))


@dataclass
class _Chain:
    """What reading the events from the first on has shown so far."""

    problems: list[str] = field(default_factory=list)
    said: dict[tuple[str, int], str] = field(default_factory=dict)  # (annotation, revision) → digest
    kept: dict[tuple[str, int], str] = field(default_factory=dict)  # the same without texts, where it was noted
    blank: dict[int, str] = field(default_factory=dict)  # events that lost what they said → what they hash to now
    erasings: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # (number, data) of erase events
    n_events: int = 0
    before: str = NOTHING
    has_head: bool = False

    def read(self, event: Event, head: str | None) -> None:
        """The next event."""
        self.n_events += 1
        if event.seq != self.n_events:
            self.problems.append(f"event {self.n_events} is missing; event {event.seq} stands in its place")
            self.n_events = event.seq
        if event.prev_hash != self.before:
            self.problems.append(f"event {event.seq} does not follow the event before it")
        content = event.seq, event.at, event.person_id, event.verb, event.subject, event.data, event.prev_hash
        mine = event_hash(*content)
        if mine == event.hash:
            self._learn(event)
        elif event.subject == "" and event.data == {} and event.verb not in NAMELESS:
            self.blank[event.seq] = mine
        else:
            self.problems.append(f"event {event.seq} was changed after it was written")
        self.before, self.has_head = event.hash, self.has_head or f"{event.seq}:{event.hash}" == head

    def _learn(self, event: Event) -> None:
        if "revision_sha256" in event.data:
            key = event.subject, event.data["revision"]
            self.said[key] = event.data["revision_sha256"]
            if "kept_sha256" in event.data:
                self.kept[key] = event.data["kept_sha256"]
        if event.verb == ERASE:
            self.erasings.append((event.seq, event.data))
            for seq, now in event.data["events"]:
                if self.blank.get(seq) == now:
                    del self.blank[seq]
            for annotation, n, now in event.data["revisions"]:
                if (annotation, n) in self.said:
                    self.said[annotation, n] = self.kept.get((annotation, n), now)


def _false_erasings(session: Session, chain: _Chain) -> list[str]:
    """Erase events of people who are not erased, or were before, or that change what others said."""
    erased = set(session.scalars(select(Person.id).where(Person.erased_at.is_not(None))))
    whose = select(Annotation.id, Annotation.person_id).where(Annotation.person_id.in_(erased))
    owners = dict(session.execute(whose).tuples().all())
    problems = []
    for seq, data in chain.erasings:
        if data["person"] not in erased:
            problems.append(f"event {seq} erases person {data['person']}, who is there or was erased before")
        erased.discard(data["person"])
        strangers = {annotation for annotation, _, _ in data["revisions"] if owners.get(annotation) != data["person"]}
        problems += [f"event {seq} erases {annotation}, which another person said" for annotation in sorted(strangers)]
    return problems + [f"person {id} is erased, and no event says so" for id in sorted(erased)]
