"""The database connection: opening, migrating, and transactions with one writer at a time.

Every function of this package is one transaction, in `store.write()`, `store.read()` or, for a single statement, in
`store.read_one()`. On SQLite a writing transaction begins with BEGIN IMMEDIATE; on PostgreSQL its first statement takes
an advisory lock. So both have one writer at a time, which sees everything committed before it, and both behave alike.
The annotators' frequent calls share that lock on PostgreSQL and lock rows instead (`store.shared_write`). A reader sees
one state of the database and never waits.
"""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, Executable, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InvalidatePoolError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from align.errors import UserError
from apps.store.errors import Unavailable
from apps.store.write_lock import BUSY, WAIT_S, WriteLock

WRITER_LOCK = 0x616C69676E  # the advisory lock of PostgreSQL: "align" in ASCII
CHAIN_LOCK = WRITER_LOCK + 1
NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "sshfs", "glusterfs", "lustre", "ceph", "beegfs", "davfs", "webdav")
IDLE_S = 5.0  # an idle connection is pinged before it is used again
CONNECT = (
    f"-c lock_timeout={WAIT_S:.0f}s -c idle_in_transaction_session_timeout=60s -c synchronous_commit=on -c timezone=UTC"
)

Clock = Callable[[], float]
Result = TypeVar("Result")


class WriteSession(Session):
    """A session that keeps its rows alive until it ends; otherwise unreferenced rows would be queried again."""


class NeedsExclusive(Exception):
    """The operation must run as the only writer."""


def is_shared(session: Session) -> bool:
    """Whether others may write at the same time, to rows that are not locked."""
    return "shared" in session.info


def require_exclusive(session: Session) -> None:
    """Raises `NeedsExclusive` unless this transaction is the only writer."""
    if is_shared(session):
        raise NeedsExclusive


@event.listens_for(WriteSession, "loaded_as_persistent")
@event.listens_for(WriteSession, "pending_to_persistent")
def _hold(session: Session, row: object) -> None:
    session.info.setdefault("held", []).append(row)


class Store:
    """An open database. Threads can share it."""

    def __init__(self, engine: Engine, clock: Clock = time.time) -> None:
        self.engine = engine
        self.clock = clock
        is_sqlite = engine.dialect.name == "sqlite"
        self._write_lock = WriteLock(Path(f"{engine.url.database}-turn") if is_sqlite else None)
        self._writing = engine.execution_options(begin="IMMEDIATE" if is_sqlite else "LOCK")
        self._sharing = engine.execution_options(begin="SHARE")
        self._reading = engine if is_sqlite else engine.execution_options(isolation_level="REPEATABLE READ")
        self._looking = engine if is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(cls, url: str, create: bool = True, clock: Clock = time.time) -> Store:
        """Opens the store at a path (SQLite) or a postgresql:// URL and creates or migrates its tables.

        Raises `UserError` for a URL that names no database, a missing database (unless `create`), one on a network file
        system, and one written by a newer version; `Unavailable` if it cannot be reached.
        """
        from apps.store.migrate import is_current, migrate

        parsed = _parsed(url)
        if parsed.get_backend_name() == "sqlite":
            _prepare_file(Path(parsed.database or ""), create)
        store = cls(_engine(parsed), clock)
        try:
            with translate_errors():
                with store.read() as session:
                    current = is_current(session.connection())
                if not current:  # if another process migrates meanwhile, `migrate` finds nothing to do
                    with store.write() as session:
                        migrate(session.connection(), store.where, create)
        except BaseException:
            store.close()
            raise
        return store

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def where(self) -> str:
        """The database's address without its password, for messages."""
        url = self.engine.url
        return str(url.database) if self.is_sqlite else url.render_as_string(hide_password=True)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A writing transaction; committed at the end of the block, rolled back by any exception.

        Keep it short. Raises `Unavailable` if the database is busy for `WAIT_S`, cannot be reached, or its disk is
        full.
        """
        with (
            self._write_lock.among_threads(),
            translate_errors(),
            WriteSession(self._writing) as session,
            session.begin(),
        ):
            with self._write_lock.among_processes():
                session.connection()  # begins now, so that everything below is read under the lock
            yield session

    def shared_write(self, act: Callable[[Session], Result]) -> Result:
        """Runs `act` in a writing transaction that excludes `write` but not others of its kind; returns its result.

        For the annotators' frequent calls. On PostgreSQL `act` locks the rows that it relies on and changes. If that is
        not enough (`NeedsExclusive`), and on SQLite, it runs as the only writer.
        """
        if not self.is_sqlite:
            with (
                suppress(NeedsExclusive, IntegrityError),
                translate_errors(),
                WriteSession(self._sharing) as own,
                own.begin(),
            ):
                own.info["shared"] = True
                return act(own)
        with self.write() as session:
            return act(session)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A reading transaction that sees one state of the database throughout."""
        with translate_errors(), Session(self._reading, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read_one(self) -> Iterator[Connection]:
        """A connection for one reading statement; on PostgreSQL without a transaction, so in one round trip."""
        with translate_errors(), self._looking.connect() as connection:
            yield connection

    def write_one(self, statement: Executable, values: dict[str, Any]) -> int:
        """Runs one writing statement that is correct whatever others write at the same time. Returns the rows written.

        On PostgreSQL it does not wait for other writers.
        """
        if self.is_sqlite:
            with self.write() as session:
                return session.connection().execute(statement, values).rowcount
        with self.read_one() as connection:
            return connection.execute(statement, values).rowcount

    def analyze(self) -> None:
        """Updates the database's planner statistics, after many rows were added."""
        with self.write() as session:
            session.execute(text("ANALYZE"))

    def vacuum(self) -> None:
        """Rewrites a SQLite file and empties its log, so that no deleted data remains in them.

        All others wait meanwhile. Raises `Unavailable` if somebody reads for too long, or the disk has no room for a
        second copy. PostgreSQL vacuums by itself in time.
        """
        if not self.is_sqlite:
            return
        with (
            self._write_lock.among_threads(),
            self._write_lock.among_processes(),
            closing(self.engine.raw_connection()) as raw,
        ):
            connection = raw.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            try:
                connection.execute("VACUUM")
                (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError as error:
                raise Unavailable("the database's file cannot be rewritten; try again later", str(error)) from error
            if is_busy:
                raise Unavailable(BUSY)

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()
        self._write_lock.close()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turns database errors that users can act on into `Unavailable`."""
    try:
        yield
    except PoolTimeout:
        raise Unavailable(BUSY) from None
    except DBAPIError as error:
        if reason := _reason(error):
            raise Unavailable(*reason) from error
        raise


def _reason(error: DBAPIError) -> tuple[str, ...]:
    """The message for a database error that is no bug, and the database's own words; empty for all others."""
    words = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
    code = _code(error)
    if code in FULL:
        return ("the database's disk is full; nothing was saved, make room and try again",)
    if code == "SQLITE_IOERR":  # over a quota too
        return "the database's disk is full or fails; nothing was saved, check its space, quota and health", words
    if code in BUSY_CODES:
        return (BUSY,)
    if code in READ_ONLY:
        return ("the database cannot be written to; nothing was saved, check the file's permissions and its disk",)
    if code in DAMAGED:
        return "the database file is damaged; restore a backup", words
    if code == "42501":
        return "the database denies access; give its user the right to create and change tables", words
    if error.connection_invalidated or code in UNREACHABLE or code[:2] in ("08", "53", "57"):
        return "the database cannot be reached; nothing was saved, try again later", words
    return ()


# SQLite's error names and PostgreSQL's SQLSTATEs; "-" stands for a server that was not reached and gave none.
FULL = ("SQLITE_FULL", "53100")
BUSY_CODES = ("SQLITE_BUSY", "SQLITE_LOCKED", "55P03", "40P01", "40001", "25P03")
READ_ONLY = ("SQLITE_READONLY", "SQLITE_PERM", "25006")
DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
UNREACHABLE = ("SQLITE_CANTOPEN", "-")


def _code(error: DBAPIError) -> str:
    if isinstance(error.orig, sqlite3.Error):
        name = getattr(error.orig, "sqlite_errorname", "")
        return "_".join(name.split("_")[:2])  # SQLITE_IOERR_WRITE is one of SQLITE_IOERR
    is_operational = type(error.orig).__name__ == "OperationalError"
    return getattr(error.orig, "sqlstate", None) or ("-" if is_operational else "")


def _parsed(url: str) -> URL:
    """The URL; a plain path means SQLite. Raises `UserError` for anything else."""
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser()))
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        backend = ""
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    raise UserError(
        f"database: {url.partition('://')[0]}://… is not a supported database; "
        "give a path (SQLite), or postgresql://user:password@host:port/name"
    )


def _prepare_file(path: Path, create: bool) -> None:
    """Makes an empty file that only its owner can read, or checks the existing one. Raises `UserError`."""
    if not path.exists() and not create:
        raise UserError(f"database: {path} does not exist; `serve` or `import` creates it")
    if path.is_dir():
        raise UserError(f"database: {path} is a folder; name a file in it, such as {path / 'labels.db'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never open an existing file: closing it would release all locks that the process has on it, SQLite's too, and
        # the next command to end would remove the log under a server that has two projects open.
        with suppress(FileExistsError):
            os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"database: cannot open {path} ({error.strerror}); check the folder's permissions") from None
    if kind := network_filesystem(path):
        raise UserError(
            f"database: {path} lies on a network file system ({kind}), where SQLite loses data; "
            "put it on a local disk, or give a postgresql:// URL"
        )


def network_filesystem(path: Path) -> str:
    """The network file system that holds a path, or "". SQLite's WAL needs memory shared between processes."""
    import psutil

    mounts = {Path(part.mountpoint): part.fstype.lower() for part in psutil.disk_partitions(all=True)}
    real = path.resolve()
    kind = next((mounts[folder] for folder in (real, *real.parents) if folder in mounts), "")
    return kind if any(name in kind for name in NETWORK) else ""


def _engine(url: URL) -> Engine:
    # A connection beyond `pool_size` is closed after each use, and each new one costs PostgreSQL a process.
    pool: dict[str, Any] = {"pool_size": 20, "max_overflow": 44, "pool_timeout": WAIT_S, "hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        # isolation_level None: the driver begins no transaction by itself, `_begin_sqlite` does
        connect: dict[str, Any] = {"timeout": WAIT_S, "check_same_thread": False, "isolation_level": None}
        engine = create_engine(url, connect_args=connect, **pool)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(url, connect_args={"connect_timeout": 5, "options": CONNECT}, **pool)
        event.listen(engine, "begin", _begin_postgresql)
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", partial(_ping_if_idle, engine.dialect))
    return engine


def _configure_sqlite(connection: Any, record: Any) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "journal_size_limit = 67108864"):
        connection.execute(f"PRAGMA {pragma}").close()


def _note_use(connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_if_idle(dialect: Any, connection: Any, record: Any, proxy: Any) -> None:
    """Pings a connection that was idle; if it is dead, the pool opens others. Pinging every time costs a round trip."""
    if time.monotonic() - record.info.get("used", math.inf) > IDLE_S:
        try:
            dialect.do_ping(connection)
        except dialect.dbapi.Error as error:
            raise InvalidatePoolError from error


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")


def _begin_postgresql(connection: Connection) -> None:
    kind = connection.get_execution_options().get("begin")
    if kind is not None:
        shared = "_shared" if kind == "SHARE" else ""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{shared}({WRITER_LOCK})")


def lock_chain(session: Session) -> None:
    """Waits until every transaction that added an earlier event has committed. Taken last: its holder never waits."""
    if is_shared(session):
        session.connection().exec_driver_sql(f"SELECT pg_advisory_xact_lock({CHAIN_LOCK})")
