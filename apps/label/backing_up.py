"""A copy of the database while people go on working: `python -m apps.label backup project.yaml FILE`.

Of SQLite a database file, which `database:` can name as it is; of PostgreSQL an archive for `pg_restore`. A database
file in use must not be copied by other means: what is in its write-ahead log would be missing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from align.errors import UserError
from apps.store.engine import Store


def backup(store: Store, path: Path) -> int:
    """Writes the copy, checks it, and returns its bytes; it appears when it is whole. Raises `UserError`."""
    if path.exists():
        raise UserError(f"{path} exists; give the name of a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.writing")
    writing.unlink(missing_ok=True)
    os.close(os.open(writing, os.O_WRONLY | os.O_CREAT, 0o600))
    try:
        _copy_sqlite(store, writing) if store.is_sqlite else _dump_postgresql(store, writing)
        with writing.open("rb") as file:
            os.fsync(file.fileno())
        writing.replace(path)
    finally:
        writing.unlink(missing_ok=True)
    return path.stat().st_size


def _copy_sqlite(store: Store, writing: Path) -> None:
    with store.read() as session:
        session.execute(text("SELECT count(*) FROM event"))  # the state that is copied
        source = session.connection().connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        try:
            with closing(sqlite3.connect(writing)) as target:
                source.backup(target)
                problems = [row[0] for row in target.execute("PRAGMA integrity_check")]
        except sqlite3.Error as error:
            raise UserError(f"{writing}: cannot write the backup ({error}); make room and try again") from None
    if problems != ["ok"]:
        raise UserError(f"{store.where} is damaged ({problems[0]}); restore an earlier backup")


def _dump_postgresql(store: Store, writing: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise UserError("backup: there is no pg_dump here; install PostgreSQL's client programs")
    url = store.engine.url.set(drivername="postgresql")
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    words = [program, "--format=custom", f"--file={writing}", url.set(password=None).render_as_string()]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **password})
    if done.returncode:
        raise UserError(f"backup: pg_dump failed: {done.stderr.strip()}")
