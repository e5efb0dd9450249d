"""What a claim costs does not grow with the queue, nor with what a person has done: plans, and SQLite's own steps."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from offices import Clock, Office, claim, new_id, nothing, queue_of, rank, ranking
from sqlalchemy import event, text

from apps.store import erasing, people, projects, reviews, tasks, work
from apps.store.engine import Store
from apps.store.settings import Settings

Statement = tuple[str, Any]


@contextmanager
def statements(store: Store) -> Iterator[list[Statement]]:
    """What is sent to the database meanwhile."""
    sent: list[Statement] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        sent.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    yield sent
    event.remove(store.engine, "before_cursor_execute", note)


def plan(store: Store, statement: Statement) -> str:
    """How the database goes about a statement. PostgreSQL is asked not to read small tables whole, as it would like."""
    sent, parameters = statement
    if not sent.startswith(("SELECT", "UPDATE", "DELETE")) or "pg_advisory" in sent:
        return ""
    with store.read() as session:
        connection = session.connection()
        if store.is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sent}", parameters)
            return "\n".join(row[3] for row in rows)
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        found = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sent}", parameters).scalar()
        return json.dumps(found)


def reads_a_whole_table(store: Store, told: str) -> bool:
    return "SCAN " in told if store.is_sqlite else '"Seq Scan"' in told


def whole_reads(store: Store, sent: list[Statement]) -> set[str]:
    """The statements that read a whole table. To read the last event is a scan too, of one row."""
    sent = [one for one in sent if "ORDER BY event.seq DESC" not in one[0]]
    return {one[0] for one in sent if reads_a_whole_table(store, plan(store, one))}


def do(office: Office, person: people.PersonInfo, n: int) -> None:
    for _ in range(n):
        given = claim(office, person)
        work.submit(office.store, person.id, new_id(), given.id, given.lease, ranking(1, 2))


def fill_up(office: Office) -> None:
    """More people, desks and projects: a table of one row is rightly read whole."""
    for n in range(12):
        other, project = office.person(f"other {n}"), projects.sync(office.store, f"project {n}", Settings())
        with office.store.write() as session:
            projects.desk_of(session, project, other.id)
    office.store.analyze()


def test_no_statement_of_a_persons_work_reads_a_whole_table(store: Store) -> None:
    office = Office(store, overlap=2, gold={"share": 0.5}, practice={"required": 1})
    office.tasks(30, k=2)
    office.tasks(5, k=2, kind="gold", expected=(1, 2))
    office.tasks(1, k=2, kind="practice", expected=(1, 1))
    ann = office.person("Ann", "admin")
    do(office, ann, 5)
    fill_up(office)
    with statements(store) as sent:
        for _ in range(4):
            given = claim(office, ann)
            tasks.heartbeat(store, ann.id, given.id, given.lease)
            work.save_draft(store, ann.id, given.id, {}, 1)
            work.submit(store, ann.id, new_id(), given.id, given.lease, ranking(1, 2))
        work.undo(store, office.project, ann.id)
        given = claim(office, ann)
        work.skip(store, ann.id, new_id(), given.id, given.lease, "no idea")
        work.history(store, office.project, ann.id)
    assert len(sent) > 50
    assert whole_reads(store, sent) == set()


def test_no_statement_of_a_claim_that_finds_nothing_reads_a_whole_table(store: Store) -> None:
    office = Office(store)
    office.tasks(20, k=2)
    ann, bob = office.person("Ann"), office.person("Bob")
    do(office, ann, 19)
    given = claim(office, ann)
    fill_up(office)
    with statements(store) as sent:
        assert nothing(office, bob).reason == "held"
        rank(office, ann, given)
        assert nothing(office, bob).reason == "done"
    assert whole_reads(store, sent) == set()


def test_decisions_of_leads_are_found_without_reading_all_events(store: Store) -> None:
    office = Office(store)
    office.tasks(30, k=2)
    ann = office.person("Ann", "admin")
    do(office, ann, 20)
    given = claim(office, ann)
    work.flag(store, ann.id, new_id(), given.id, given.lease, "no sense")
    reviews.accept_task(store, office.project, 1, ann.id)
    store.analyze()
    with statements(store) as sent:
        with store.read() as session:
            assert reviews.decided(session, office.project) == {1}
        assert len(reviews.reports(store, office.project)) == 1
    plans = [plan(store, one) for one in sent if "FROM event" in one[0]]
    assert len(plans) == 3
    assert not any(reads_a_whole_table(store, told) for told in plans)
    assert all("event_of_leads" in told for told in plans)


def test_the_queue_is_read_in_its_order_and_not_sorted(store: Store) -> None:
    office = Office(store)
    office.tasks(150, k=2)
    ann, bob = office.person("Ann"), office.person("Bob")
    do(office, ann, 3)
    store.analyze()
    with statements(store) as sent:
        claim(office, ann)
        claim(office, bob)  # the first one in the queue is Ann's
    of_queue = [plan(store, one) for one in sent if "ORDER BY task.place" in one[0]]
    assert len(of_queue) == (3 if store.is_sqlite else 2)  # PostgreSQL's looks for the first one and a free one at once
    for told in of_queue:
        assert "task_queue" in told
        assert "TEMP B-TREE" not in told
        assert '"Sort"' not in told


def n_steps(office: Office, act: Callable[[], Any]) -> int:
    """How many of SQLite's instructions something takes."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(connection: sqlite3.Connection, *_: Any) -> None:
        connection.set_progress_handler(count, 1)

    def rest(connection: sqlite3.Connection, *_: Any) -> None:
        connection.set_progress_handler(None, 1)

    for name, listener in (("checkout", watch), ("checkin", rest)):
        event.listen(office.store.engine, name, listener)
    act()
    for name, listener in (("checkout", watch), ("checkin", rest)):
        event.remove(office.store.engine, name, listener)
    return steps


@pytest.fixture
def sqlite_store(tmp_path: Any, clock: Clock) -> Iterator[Store]:
    store = Store.open(str(tmp_path / "steps.db"), clock=clock)
    yield store
    store.close()


def test_a_claim_takes_as_many_steps_at_the_end_of_a_long_queue_as_at_the_beginning(sqlite_store: Store) -> None:
    office = Office(sqlite_store, overlap=2)  # so that what Ann has done stays open, and before what she has not
    office.tasks(90, k=2)
    ann, bob = office.person("Ann"), office.person("Bob")
    sqlite_store.analyze()
    do(office, ann, 1)
    first = n_steps(office, lambda: claim(office, ann))
    do(office, ann, 70)
    late = n_steps(office, lambda: claim(office, ann))
    do(office, ann, 19)
    last = n_steps(office, lambda: tasks.claim(sqlite_store, office.project, ann.id))
    again = n_steps(office, lambda: tasks.claim(sqlite_store, office.project, ann.id))
    other = n_steps(office, lambda: claim(office, bob))
    assert first > 300  # so the handler counts
    assert max(late, last, again, other) < 1.5 * first, (first, late, last, again, other)


def test_steps_grow_where_a_claim_has_to_look_at_everything(sqlite_store: Store) -> None:
    """What the test above would see without the desk's place: a person passes 70 open tasks that they have done."""
    office = Office(sqlite_store, overlap=2)
    office.tasks(90, k=2)
    ann = office.person("Ann")
    do(office, ann, 1)
    first = n_steps(office, lambda: claim(office, ann))
    do(office, ann, 70)
    with sqlite_store.write() as session:
        session.execute(text("UPDATE desk SET place = 0"))
    assert n_steps(office, lambda: claim(office, ann)) > 2 * first


def test_no_statement_of_a_claim_of_assigned_tasks_reads_a_whole_table(store: Store) -> None:
    office = Office(store, limits={"rankings": 50, "minutes": 10, "hours": 5})
    office.tasks(40, k=2)
    ann, bob = office.person("Ann"), office.person("Bob")
    tasks.assign(store, office.project, queue_of(office)[:20], ["Ann"])
    fill_up(office)
    with statements(store) as sent:
        for _ in range(22):
            rank(office, ann, claim(office, ann))
        claim(office, bob)
    assert len(sent) > 50
    assert whole_reads(store, sent) == set()


def test_a_claim_takes_as_many_steps_however_much_is_assigned(sqlite_store: Store) -> None:
    office = Office(sqlite_store, overlap=2)  # so that what Ann has done stays open
    office.tasks(180, k=2)
    ann, bob = office.person("Ann"), office.person("Bob")
    order = queue_of(office)
    tasks.assign(sqlite_store, office.project, order[:90], ["Ann"])
    sqlite_store.analyze()
    rank(office, ann, claim(office, ann))
    first = n_steps(office, lambda: claim(office, ann))
    for _ in range(80):
        rank(office, ann, claim(office, ann))
    late = n_steps(office, lambda: claim(office, ann))
    past = n_steps(office, lambda: claim(office, bob))  # the first 90 are not Bob's
    assert claim(office, bob).id == order[90]
    assert first > 300  # so the handler counts
    assert max(late, past) < 1.5 * first, (first, late, past)


@pytest.mark.parametrize("frees", [lambda office: tasks.unassign(office.store, office.project, queue_of(office)),
                                   lambda office: erasing.erase(office.store, "Ann")])  # fmt: skip
def test_however_many_tasks_are_for_all_again_it_takes_few_statements(store: Store, frees: Any) -> None:
    """Everybody who writes waits for it."""
    office = Office(store)
    office.tasks(60, k=2)
    office.person("Lead", "admin")
    office.person("Ann")
    tasks.assign(store, office.project, queue_of(office), ["Ann"])
    with statements(store) as sent:
        frees(office)
    assert len(sent) < 60
