"""Backing up the database while people work: `align label backup project.yaml FILE`.

For SQLite the copy is a database file, ready for `database:`; for PostgreSQL it is an archive for `pg_restore`. Do not
copy a SQLite file in use by other means: the changes in its write-ahead log would be missing.
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
    """Writes and checks the copy; the file appears when it is complete. Returns its bytes. Raises `UserError`."""
    if path.exists():
        raise UserError(f"{path} exists; give a new file name")
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
        session.execute(text("SELECT count(*) FROM event"))  # fixes the state to copy
        source = session.connection().connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        try:
            with closing(sqlite3.connect(writing)) as target:
                source.backup(target)
                problems = [row[0] for row in target.execute("PRAGMA integrity_check")]
        except sqlite3.Error as error:
            raise UserError(f"{writing}: cannot write the backup ({error}); free disk space and try again") from None
    if problems != ["ok"]:
        raise UserError(f"{store.where} is damaged ({problems[0]}); restore an earlier backup")


def _dump_postgresql(store: Store, writing: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise UserError("backup: pg_dump is not installed; install PostgreSQL's client programs")
    url = store.engine.url.set(drivername="postgresql")
    password = {"PGPASSWORD": str(url.password)} if url.password else {}
    words = [program, "--format=custom", f"--file={writing}", url.set(password=None).render_as_string()]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **password})
    if done.returncode:
        raise UserError(f"backup: pg_dump failed: {done.stderr.strip()}")
