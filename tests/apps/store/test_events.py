"""The chain of events: whatever is changed behind the program's back is seen."""

from __future__ import annotations

import pytest
from offices import Office, new_id, ranking
from sqlalchemy import text

from apps.store import events, tasks, work


@pytest.fixture
def told(office: Office) -> Office:
    """A project in which somebody has ranked three tasks and taken one back."""
    office.tasks(3)
    ann = office.person("Ann")
    for _ in range(3):
        given = tasks.claim(office.store, office.project, ann.id)
        assert isinstance(given, tasks.TaskView)
        work.submit(office.store, ann.id, new_id(), given.id, given.lease, ranking(1, 2, 3, 4))
    work.undo(office.store, office.project, ann.id)
    return office


def meddle(office: Office, *changes: str) -> tuple[str, ...]:
    """What `verify` says after somebody with the database's password did this."""
    with office.store.write() as session:
        if office.store.is_sqlite:
            for table in ("revision", "event"):
                for what in ("update", "delete"):
                    session.execute(text(f"DROP TRIGGER {table}_no_{what}"))
        else:
            session.execute(text("SET LOCAL session_replication_role = replica"))
        for change in changes:
            session.execute(text(change))
    return events.verify(office.store).problems


def test_what_nobody_touched_is_whole(told: Office) -> None:
    verdict = events.verify(told.store)
    assert verdict.problems == ()
    assert verdict.n_revisions == 4
    assert verdict.head.startswith(f"{verdict.n_events}:")


def test_the_hashes_are_those_of_the_content(told: Office) -> None:
    """Worked out here once more, without the program's own function."""
    import hashlib
    import json

    with told.store.read() as session:
        rows = session.execute(
            text("SELECT seq, at, person_id, verb, subject, data, prev_hash, hash FROM event ORDER BY seq")
        )
        before = "0" * 64
        for seq, at, person, verb, subject, data, prev_hash, own in rows:
            content = [seq, at, person, verb, subject, json.loads(data), prev_hash]
            line = json.dumps(content, sort_keys=True, separators=(",", ":"))
            assert prev_hash == before
            assert own == hashlib.sha256(line.encode()).hexdigest()
            before = own


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE event SET verb = 'other' WHERE seq = 3", "event 3 was changed"),
        ("UPDATE event SET at = at + 1 WHERE seq = 2", "event 2 was changed"),
        ("DELETE FROM event WHERE seq = 4", "event 4 is missing"),
        ("UPDATE event SET hash = prev_hash WHERE seq = 5", "event 6 does not follow"),
        ("UPDATE revision SET seconds = 99 WHERE n = 2", "revision 2 of"),
        ("UPDATE revision SET payload = replace(payload, '4', '5')", "was changed after it was written"),
        ("DELETE FROM revision WHERE n = 2", "is missing"),
    ],
)
def test_a_change_is_seen(told: Office, change: str, problem: str) -> None:
    assert problem in "\n".join(meddle(told, change))


def test_a_revision_that_nobody_made_is_seen(told: Office) -> None:
    problems = meddle(
        told,
        "INSERT INTO revision SELECT annotation_id, 7, status, extra, payload, seconds, guidelines_version, created_at "
        "FROM revision WHERE n = 2",
    )
    assert [problem for problem in problems if "has no event" in problem]


def test_a_chain_that_was_cut_off_is_seen_with_the_head_noted_down(told: Office) -> None:
    head = events.verify(told.store).head
    number = int(head.split(":")[0])
    assert meddle(told, f"DELETE FROM event WHERE seq = {number}", "DELETE FROM revision WHERE n = 2") == ()
    (problem,) = events.verify(told.store, head).problems
    assert "cut off" in problem


def test_a_head_that_was_noted_down_is_found_later(told: Office) -> None:
    head = events.verify(told.store).head
    told.person("Bob")
    assert events.verify(told.store, head).problems == ()
