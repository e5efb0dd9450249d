"""The same tests on SQLite and on PostgreSQL, with a clock that they set.

PostgreSQL is a throw-away cluster on a unix socket, made once for all tests. Where its programs are missing those tests
are skipped; with ALIGN_REQUIRE_POSTGRES=1 they fail instead.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from browser import chromium
from offices import Bench, Clock, Office

from apps.store.engine import Store
from apps.store.project import opened
from apps.store.tables import Table


@pytest.fixture(scope="session", autouse=True)
def _cheap_passwords() -> Iterator[None]:
    """One pass over 8 KiB instead of three over 64 MiB; a test of its own looks at the real cost."""
    from apps.store import passwords

    real = passwords.PASSES, passwords.MEMORY_KIB, passwords.LANES
    passwords.PASSES, passwords.MEMORY_KIB, passwords.LANES = 1, 8, 1
    passwords._hasher.cache_clear()
    yield
    passwords.PASSES, passwords.MEMORY_KIB, passwords.LANES = real
    passwords._hasher.cache_clear()


class Cluster:
    """A PostgreSQL server of the tests' own."""

    def __init__(self, programs: Path, folder: Path, owner: str | None) -> None:
        self.programs, self.folder, self.owner = programs, folder, owner
        self._run(
            "initdb", "-D", str(folder / "data"), "-U", "tests", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        self.start()
        self.url = f"postgresql://tests@/postgres?host={folder}"
        self.shared = self.new("shared")
        Store.open(self.shared).close()

    def start(self) -> None:
        options = f"-c listen_addresses='' -c fsync=off -c max_connections=200 -k {self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-o", options, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", mode, "-w", "stop")

    def new(self, name: str) -> str:
        """A new database's URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://tests@/{name}?host={self.folder}"

    def new_on(self, folder: Path, name: str) -> str:
        """A new database's URL, its files in a folder that the server's owner may write to."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
            connection.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        return f"postgresql://tests@/{name}?host={self.folder}"

    def drop(self, name: str) -> None:
        """Removes what `new_on` made."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"DROP TABLESPACE IF EXISTS {name}")

    def clear(self) -> None:
        """Empties the shared database, which is quicker than a new one; triggers that refuse it are switched off."""
        names = ", ".join(table.name for table in Table.metadata.sorted_tables)
        with psycopg.connect(self.shared) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(f"TRUNCATE {names} RESTART IDENTITY")

    def _run(self, program: str, *words: str) -> None:
        as_owner: dict[str, Any] = {"user": self.owner, "group": self.owner} if self.owner else {}
        command = [str(self.programs / program), *words]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", **as_owner)
        assert done.returncode == 0, done.stderr.decode()


def postgres_programs() -> Path | None:
    """Where initdb is: the newest of the distribution's, or that of the PATH."""
    found = [Path(path) for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")]
    on_path = shutil.which("initdb")
    found += [Path(on_path)] if on_path else []
    return (
        max(found, key=lambda path: int("0" + path.parts[-3]) if path.parts[-3].isdigit() else 0).parent
        if found
        else None
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    programs = postgres_programs()
    if programs is None:
        reason = "PostgreSQL's initdb is not installed"
        if os.environ.get("ALIGN_REQUIRE_POSTGRES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    owner = None
    if os.getuid() == 0:  # the server refuses to run as root
        owner = "postgres"
        shutil.chown(folder, owner, owner)
    made = Cluster(programs, folder, owner)
    yield made
    made.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database with its tables. To copy it is quicker than to make one."""
    path = tmp_path_factory.mktemp("empty") / "labels.db"
    Store.open(str(path)).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, empty: Path, tmp_path: Path) -> Iterator[str]:
    """An empty database with its tables."""
    if request.param == "sqlite":
        yield shutil.copy(empty, str(tmp_path / "labels.db"))
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    yield cluster.shared
    cluster.clear()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    opened = Store.open(url, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


@pytest.fixture
def make(url: str, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Opens a project with the keys given."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:

        def made(**keys: Any) -> Bench:
            path = tmp_path / "project.yaml"
            path.write_text(json.dumps({"name": "bench", "database": url, **keys}), encoding="utf-8")
            project = stack.enter_context(opened(str(path)))
            project.store.clock = clock
            return Bench(project, tmp_path)

        yield made


@pytest.fixture
def bench(make: Any) -> Bench:
    made: Bench = make()
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for the whole session: Playwright's event loop stands in the way of tests that run one of their own."""
    with chromium() as started:
        yield started
