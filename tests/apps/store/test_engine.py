"""The database itself: how it is opened, what is refused, and what happens when it fails."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from offices import Office, new_id, ranking
from sqlalchemy import select, text, update

from align.errors import UserError
from apps.store import engine, invitations, people, tasks, work, write_lock
from apps.store.engine import Store
from apps.store.errors import Unavailable
from apps.store.tables import Person, Table


def refused(url: str, **how: Any) -> str:
    with pytest.raises(UserError) as error:
        Store.open(url, **how)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------------- opening


def test_migrations_make_the_tables_that_the_code_declares(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with store.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_a_database_is_opened_again_as_it_was(store: Store, url: str) -> None:
    invitations.invite(store, "admin")
    other = Store.open(url, create=False)
    assert people.all_people(other) == []
    other.close()


def test_sqlite_keeps_what_is_committed_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "new" / "labels.db"
    store = Store.open(str(path))
    with store.write() as session:
        found = [session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")]
    assert found == ["wal", 2, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store.close()


def test_a_process_with_two_stores_keeps_its_log_when_another_process_ends(tmp_path: Path) -> None:
    """Who closes a file loses all its locks; then the next to leave would take the log away, and labels with it."""
    path = tmp_path / "labels.db"
    first, second = Store.open(str(path)), Store.open(str(path))
    log = Path(f"{path}-wal").stat().st_ino
    other = f"import sqlite3; sqlite3.connect({str(path)!r}).execute('SELECT count(*) FROM event').fetchone()"
    subprocess.run([sys.executable, "-c", other], check=True)
    assert Path(f"{path}-wal").stat().st_ino == log
    invitations.invite(first, "admin", "ana")
    assert [one.name for one in invitations.pending_invitations(second)] == ["ana"]
    first.close()
    second.close()


def test_a_writing_transaction_locks_before_it_reads(store: Store, url: str) -> None:
    """Else two could read the same state and both write."""
    other = Store.open(url)
    inside, done = threading.Event(), []

    def second() -> None:
        inside.wait()
        with other.write() as session:
            done.append(session.scalar(text("SELECT count(*) FROM event")))

    thread = threading.Thread(target=second)
    thread.start()
    with store.write() as session:
        inside.set()
        thread.join(0.5)
        assert done == []
        session.execute(text("INSERT INTO event VALUES (1, 0, NULL, 'x', '', '{}', '', '')"))
    thread.join()
    assert done == [1]
    other.close()


def test_a_reader_sees_one_state_throughout(store: Store) -> None:
    with store.read() as session:
        before = session.scalars(select(Person.id)).all()
        invitations.accept(store, invitations.invite(store, "admin").token, "Ann", "four words or more")
        assert session.scalars(select(Person.id)).all() == before == []
    assert len(people.all_people(store)) == 1


def test_rows_that_are_only_added_cannot_be_changed(office: Office) -> None:
    office.tasks(1)
    ann = office.person("Ann")
    given = tasks.claim(office.store, office.project, ann.id)
    assert isinstance(given, tasks.TaskView)
    work.submit(office.store, ann.id, new_id(), given.id, given.lease, ranking(1, 2, 3, 4))
    for change in (
        "UPDATE revision SET seconds = 1",
        "DELETE FROM revision",
        "UPDATE event SET verb = ''",
        "DELETE FROM event",
    ):
        with pytest.raises(Exception, match="are never changed"), office.store.write() as session:
            session.execute(text(change))


def test_a_newer_database_is_refused(store: Store, url: str) -> None:
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    said = refused(url)
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    assert "was written by a newer version" in said
    assert "update this program" in said


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE invoices (id)")
    assert "holds tables of another program (invoices)" in refused(str(path))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at " * 40)
    assert "not a database" in refused(str(path))


def test_what_is_not_there_is_not_made_where_it_is_only_read(tmp_path: Path) -> None:
    assert "does not exist" in refused(str(tmp_path / "none.db"), create=False)
    (tmp_path / "empty.db").touch()
    assert "is empty" in refused(str(tmp_path / "empty.db"), create=False)


@pytest.mark.parametrize("url", ["mysql://x/y", "http://x", "sqlite://", "sqlite:///:memory:", "nonsense://"])
def test_other_urls_are_refused(url: str) -> None:
    assert "give a path (SQLite), or postgresql://" in refused(url)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refused(str(tmp_path))


def test_a_password_is_in_no_message() -> None:
    said = refused("postgresql://ann:s3cret@127.0.0.1:1/labels")
    assert "cannot be reached" in said
    assert "s3cret" not in said
    store = Store(engine._engine(engine._parsed("postgresql://ann:s3cret@127.0.0.1:1/labels")))
    assert store.where == "postgresql+psycopg://ann:***@127.0.0.1:1/labels"


@pytest.mark.parametrize(
    ("kind", "is_refused"), [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ext4", False)]
)
def test_network_file_systems_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_refused: bool
) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="ext4"), SimpleNamespace(mountpoint=str(tmp_path), fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    path = tmp_path / "deep" / "labels.db"
    if is_refused:
        assert "network file system" in refused(str(path))
    else:
        Store.open(str(path)).close()


# ------------------------------------------------------------------------------------------------------------- failing


def test_a_busy_database_is_told_and_nothing_is_saved(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WAIT_S", 0.2)
    monkeypatch.setattr(write_lock, "WAIT_S", 0.2)
    monkeypatch.setattr(engine, "CONNECT", engine.CONNECT.replace("lock_timeout=10s", "lock_timeout=200ms"))
    other = Store.open(url)
    with store.write():
        with pytest.raises(Unavailable, match="busy"):
            invitations.invite(other, "admin")
        with pytest.raises(Unavailable, match="busy"):
            invitations.invite(store, "admin")
    invitations.invite(other, "admin")
    other.close()


def test_a_busy_database_is_waited_for(store: Store, url: str) -> None:
    other, release = Store.open(url), threading.Event()

    def hold() -> None:
        with store.write():
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    threading.Timer(0.5, release.set).start()
    invitations.invite(other, "admin")
    thread.join()
    other.close()


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "labels.db"))
    office = Office(store)
    office.tasks(2)
    ann = office.person("Ann")
    given = tasks.claim(store, office.project, ann.id)
    assert isinstance(given, tasks.TaskView)
    work.save_draft(store, ann.id, given.id, {"comment": "kept"}, 1)
    store.close()
    full = Store.open(str(tmp_path / "labels.db"))
    with full.write() as session:  # SQLite's own limit raises what a full disk raises
        pages = session.scalar(text("PRAGMA page_count"))
        session.execute(text(f"PRAGMA max_page_count = {pages}"))
    big = ranking(1, 2, 3, 4) | {"comment": "x" * 10_000}
    with pytest.raises(Unavailable, match="disk is full"):
        work.submit(full, ann.id, new_id(), given.id, given.lease, big)
    again = tasks.claim(full, office.project, ann.id)
    assert isinstance(again, tasks.TaskView)
    assert (again.draft, again.annotation) == ({"comment": "kept"}, None)
    full.close()


def fill(path: Path) -> None:
    """Writes until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 512):
            pass


@pytest.mark.skipif(shutil.which("mount") is None or os.getuid() != 0, reason="needs root to mount a small disk")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=1500k tmpfs {small} 2>/dev/null") != 0:
        pytest.skip("mounting is not allowed here")
    try:
        store = Store.open(str(small / "labels.db"))
        office = Office(store)
        office.tasks(1)
        ann = office.person("Ann")
        given = tasks.claim(store, office.project, ann.id)
        assert isinstance(given, tasks.TaskView)
        fill(small / "filler")
        saved, problem = 0, ""
        for rev in range(1, 200):
            try:
                work.save_draft(store, ann.id, given.id, {"comment": f"{rev} " * 2000}, rev)
                saved = rev
            except Unavailable as error:
                problem = str(error)
                break
        assert "disk is full" in problem
        (small / "filler").unlink()
        again = tasks.claim(store, office.project, ann.id)
        assert isinstance(again, tasks.TaskView)
        assert again.draft_rev == saved
        with store.read() as session:
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"
        store.close()
    finally:
        os.system(f"umount {small}")


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back(cluster: Any, tmp_path: Path) -> None:
    url = cluster.new("goes_away")
    store = Store.open(url)
    invitations.invite(store, "admin")
    cluster.stop()
    try:
        for _ in range(2):
            with pytest.raises(Unavailable, match="cannot be reached"):
                invitations.invite(store, "admin")
    finally:
        cluster.start()
    invitations.invite(store, "admin")
    with store.read() as session:
        assert session.scalar(text("SELECT count(*) FROM invitation")) == 2
    store.close()


def test_an_error_of_the_program_is_not_called_a_failing_database(store: Store) -> None:
    with pytest.raises(Exception, match="nonsense") as error, store.write() as session:
        session.execute(text("SELECT nonsense"))
    assert not isinstance(error.value, UserError)


def test_what_raises_in_a_transaction_is_rolled_back(store: Store) -> None:
    invitations.accept(store, invitations.invite(store, "admin").token, "Ann", "four words or more")

    def fail_after_a_change() -> None:
        with store.write() as session:
            session.execute(update(Person).values(role="annotator"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_a_change()
    assert people.by_name(store, "Ann").role == "admin"


def write_without_pause(path: str) -> None:
    store = Store.open(path)
    for n in range(10**9):
        with store.write() as session:
            session.execute(text("INSERT INTO attempt VALUES (:key, 0, 0, 0)"), {"key": str(n)})
            time.sleep(0.003)


@pytest.mark.filterwarnings("ignore:This process")  # that fork and threads do not mix: no thread runs here
def test_a_process_that_writes_without_pause_leaves_others_their_turn(tmp_path: Path) -> None:
    """Without write_lock the other one got in after a median of 330 ms, and 7 seconds at the most."""
    path = str(tmp_path / "labels.db")
    Store.open(path).close()
    busy = os.fork()
    if not busy:
        try:
            write_without_pause(path)
        finally:
            os._exit(1)
    store = Store.open(path)
    counts = []
    try:
        while len(counts) < 20:
            with store.write() as session:
                n = session.scalar(text("SELECT count(*) FROM attempt")) or 0
            if n:
                counts.append(n)
            time.sleep(0.01)
    finally:
        os.kill(busy, signal.SIGKILL)
        os.waitpid(busy, 0)
    store.close()
    between = sorted(later - earlier for earlier, later in pairwise(counts))
    assert between[len(between) // 2] <= 10
