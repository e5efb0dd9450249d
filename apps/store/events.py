"""The event log: a hash chain that makes later changes visible. Each event's hash covers the event before it.

A revision's event holds the digest of its content, so the chain covers annotations too. A chain cannot show that its
newest events were cut off; for that, note `Verdict.head` elsewhere and pass it to `verify`.

When a person is erased, events that named them are blanked and revisions lose their texts, while all hashes stay. The
`erase` event lists them with their new hashes: any other difference is a change.
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
# Events that hold no person's name or text: their subjects are numbers. Erasing never blanks them.
NAMELESS = (
    *("say", "erase", "import", "project", "guidelines", "close", "reopen", "accept_task", "send_back", "adjudicate"),
    *("final", "keep_report", "edit_prompt", "assign", "unassign", "pause", "resume", "limit", "reset_practice"),
)


def append(session: Session, at: float, person_id: int | None, verb: str, subject: str, data: dict[str, Any]) -> int:
    """Adds an event to the running transaction. Returns its number. Never pass a password or a token."""
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
    """The hash of an event's content and of the previous event's hash."""
    return digest([seq, at, person_id, verb, subject, data, prev_hash])


def digest(value: Any) -> str:
    """SHA-256 of a value as canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def revision_content(revision: Revision | Any) -> list[Any]:
    """The values that a revision's digest covers."""
    r = revision
    return [r.annotation_id, r.n, r.status, r.extra, r.payload, r.seconds, r.guidelines_version, r.created_at]


def kept_digest(revision: Revision) -> str:
    """The digest that a revision has once its person is erased. It is recorded from the start, so that a forged erasure
    cannot change what they decided.
    """
    return digest([without_texts(part) for part in revision_content(revision)])


def without_texts(value: Any) -> Any:
    """A payload with its comments and reasons blanked."""
    if not isinstance(value, dict):
        return value
    return {key: "" if key in ("comment", "reason") else without_texts(inner) for key, inner in value.items()}


@dataclass(frozen=True)
class Verdict:
    """The result of `verify`."""

    n_events: int
    n_revisions: int
    head: str  # "number:hash" of the newest event
    problems: tuple[str, ...]
    n_erased: int = 0  # erased people; whoever can write to the database can erase somebody, so check that you did


N_REPORTED = 20


def verify(store: Store, head: str | None = None) -> Verdict:
    """Checks the whole chain, and every revision against it. `head`: a newest event noted earlier."""
    with store.read() as session:
        chain = _Chain()
        for event in session.execute(select(Event).order_by(Event.seq).execution_options(yield_per=1000)).scalars():
            chain.read(event, head)
            session.expunge(event)
        problems = chain.problems + _forged_erasings(session, chain)
        problems += [f"event {seq} was changed after it was written" for seq in chain.blank]
        n_revisions, digests = 0, chain.digests
        for revision in session.execute(select(Revision).execution_options(yield_per=1000)).scalars():
            n_revisions += 1
            expected = digests.pop((revision.annotation_id, revision.n), None)
            if expected is None:
                problems.append(f"revision {revision.n} of {revision.annotation_id} has no event")
            elif expected != digest(revision_content(revision)):
                problems.append(f"revision {revision.n} of {revision.annotation_id} was changed after it was written")
            session.expunge(revision)
    problems += [f"revision {n} of {annotation} is missing" for annotation, n in digests]
    if head is not None and not chain.has_head:
        problems.append(f"the event {head} is not in the chain: events were cut off or rewritten")
    newest = f"{chain.n_events}:{chain.before}"
    return Verdict(chain.n_events, n_revisions, newest, tuple(problems[:N_REPORTED]), len(chain.erasings))


@dataclass
class _Chain:
    """The state of reading the chain from its first event."""

    problems: list[str] = field(default_factory=list)
    digests: dict[tuple[str, int], str] = field(default_factory=dict)  # (annotation, revision) → digest
    kept: dict[tuple[str, int], str] = field(default_factory=dict)  # the digest without texts, if recorded
    blank: dict[int, str] = field(default_factory=dict)  # blanked event → its hash now
    erasings: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # (number, data) of erase events
    n_events: int = 0
    before: str = NOTHING
    has_head: bool = False

    def read(self, event: Event, head: str | None) -> None:
        """Reads the next event."""
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
            self.digests[key] = event.data["revision_sha256"]
            if "kept_sha256" in event.data:
                self.kept[key] = event.data["kept_sha256"]
        if event.verb == ERASE:
            self.erasings.append((event.seq, event.data))
            for seq, now in event.data["events"]:
                if self.blank.get(seq) == now:
                    del self.blank[seq]
            for annotation, n, now in event.data["revisions"]:
                if (annotation, n) in self.digests:
                    self.digests[annotation, n] = self.kept.get((annotation, n), now)


def _forged_erasings(session: Session, chain: _Chain) -> list[str]:
    """Problems with erase events: the person is not erased, or was before, or the event changes another's work."""
    erased = set(session.scalars(select(Person.id).where(Person.erased_at.is_not(None))))
    theirs = select(Annotation.id, Annotation.person_id).where(Annotation.person_id.in_(erased))
    owners = dict(session.execute(theirs).tuples().all())
    problems = []
    for seq, data in chain.erasings:
        if data["person"] not in erased:
            problems.append(f"event {seq} erases person {data['person']}, who is not erased or was erased before")
        erased.discard(data["person"])
        strangers = {annotation for annotation, _, _ in data["revisions"] if owners.get(annotation) != data["person"]}
        problems += [f"event {seq} erases {annotation}, which is another person's" for annotation in sorted(strangers)]
    return problems + [f"person {id} is erased without an event" for id in sorted(erased)]
