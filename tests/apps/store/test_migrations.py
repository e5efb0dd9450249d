"""A database of an older version is opened: nothing that was said in it changes, and people go on with their work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from offices import Clock, Office, assert_counts, claim, nothing, rank, ranking
from sqlalchemy import MetaData, insert, inspect, select, text

from apps.store import events, people, reading, tasks, work
from apps.store.engine import Store, _engine, _parsed
from apps.store.migrate import _config
from apps.store.tables import Lease, Presentation, Project, Task


def a_day_of(store: Store) -> None:
    """Rankings, a skip, a report, something taken back, a closed task and one that somebody holds."""
    office = Office(store, overlap=2, practice={"required": 1})
    office.tasks(8, k=3)
    office.tasks(1, k=3, kind="practice", expected=(1, 1, 2))
    ann, bob = office.person("Ann", "admin"), office.person("Bob", "admin")
    saved = [rank(office, ann, claim(office, ann)) for _ in range(4)]
    work.revise(store, ann.id, saved[0].id, ranking(2, 1, 1))
    for say in (work.skip, work.flag):
        given = claim(office, bob)
        say(store, bob.id, f"00000000-0000-4000-8000-{given.id:012}", given.id, given.lease, "unclear")
    rank(office, bob, claim(office, bob))
    work.undo(store, office.project, ann.id)
    work.save_draft(store, ann.id, claim(office, ann).id, {"comment": "half"}, 9)
    tasks.close_task(store, 7, ann.id)


def as_of_version_1(store: Store, url: str) -> None:
    """Makes the first version's tables at `url`, and copies what they held."""
    from alembic import command

    older, config = Store(_engine(_parsed(url))), _config()
    with older.write() as session, store.read() as now:
        config.attributes["connection"] = session.connection()
        command.upgrade(config, "0001")
        known = MetaData()
        known.reflect(session.connection())
        for table in known.sorted_tables:
            rows = [dict(row) for row in now.connection().execute(select(table)).mappings()]
            if rows and table.name != "alembic_version":
                session.connection().execute(insert(table), rows)
    assert "public_id" not in {column["name"] for column in inspect(older.engine).get_columns("task")}
    older.close()


def all_said(store: Store, project: int) -> list[Any]:
    with store.read() as session:
        found = reading.annotated_tasks(session, project, ("rank", "practice"), with_unannotated=True)
        return [(task.id, task.hash, task.status, task.answers, task.annotations) for task in found]


@pytest.fixture
def older_url(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> str:
    if "://" not in url:
        return str(tmp_path / "older.db")
    found: str = request.getfixturevalue("cluster").new("older")
    return found


def test_a_database_of_version_1_keeps_every_label(store: Store, older_url: str, clock: Clock) -> None:
    a_day_of(store)
    said = all_said(store, 1)
    head = events.verify(store).head
    as_of_version_1(store, older_url)
    opened = Store.open(older_url, clock=clock)
    assert all_said(opened, 1) == said
    verdict = events.verify(opened, head)
    assert (verdict.problems, verdict.head) == ((), head)
    with opened.read() as session:
        public = session.scalars(select(Task.public_id)).all()
        shown = select(Lease.began_at, Presentation.shown_at).join(
            Presentation, (Presentation.task_id == Lease.task_id) & (Presentation.person_id == Lease.person_id)
        )
        assert all(began == at for began, at in session.execute(shown).tuples())
        assert session.scalars(select(Project.secret)).one()
    assert min(public) > 0
    assert len(set(public)) == len(public) == 9
    assert versions(opened) == ["0003"]
    go_on(opened)
    opened.close()


def versions(store: Store) -> list[str]:
    with store.read() as session:
        return list(session.scalars(text("SELECT version_num FROM alembic_version")))


def go_on(store: Store) -> None:
    """Ann finds her draft, and both do what is left."""
    office = Office(store, overlap=2, practice={"required": 1})
    ann, bob = (people.by_name(store, name) for name in ("Ann", "Bob"))
    assert claim(office, ann).draft == {"comment": "half"}
    for person in (ann, bob):
        while isinstance(given := tasks.claim(store, office.project, person.id), tasks.TaskView):
            rank(office, person, given)
        assert nothing(office, person).reason == "done"
    assert_counts(office)
    assert events.verify(store).problems == ()
