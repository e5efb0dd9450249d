"""The database itself: opened, migrated, and written by one transaction at a time.

Every function of this package is one transaction, in `store.write()`, `store.read()` or, for one statement, in
`store.look()`. On SQLite a writing transaction begins with BEGIN IMMEDIATE; on PostgreSQL its first statement takes one
advisory lock. So on both there is one writer at a time, each sees all that was committed before it, and what is true on
one is true on the other. What annotators do all day shares that lock on PostgreSQL (`store.beside`), and locks rows
instead. A reader sees one state of the database and waits for nobody.
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
from apps.store.write_lock import BUSY, WAIT_S, Turn

WRITER_LOCK = 0x616C69676E  # the advisory lock of PostgreSQL: "align" in ASCII
CHAIN_LOCK = WRITER_LOCK + 1
NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "sshfs", "glusterfs", "lustre", "ceph", "beegfs", "davfs", "webdav")
RESTED_S = 5.0  # after which a connection is asked whether it still is one
CONNECT = (
    f"-c lock_timeout={WAIT_S:.0f}s -c idle_in_transaction_session_timeout=60s -c synchronous_commit=on -c timezone=UTC"
)

Clock = Callable[[], float]
Result = TypeVar("Result")


class Writing(Session):
    """Holds what it read or added until its end; else what no variable holds is asked of the database again."""


class Alone(Exception):
    """What is to be done needs to be done by the one writer."""


def is_beside(session: Session) -> bool:
    """Whether others may write meanwhile, to rows that are not locked."""
    return "beside" in session.info


def alone(session: Session) -> None:
    """Raises `Alone` unless this transaction is the one writer."""
    if is_beside(session):
        raise Alone


@event.listens_for(Writing, "loaded_as_persistent")
@event.listens_for(Writing, "pending_to_persistent")
def _hold(session: Session, row: object) -> None:
    session.info.setdefault("held", []).append(row)


class Store:
    """An open database. Safe to share among threads."""

    def __init__(self, engine: Engine, clock: Clock = time.time) -> None:
        self.engine = engine
        self.clock = clock
        is_sqlite = engine.dialect.name == "sqlite"
        self._turn = Turn(Path(f"{engine.url.database}-turn") if is_sqlite else None)
        self._writing = engine.execution_options(begin="IMMEDIATE" if is_sqlite else "LOCK")
        self._beside = engine.execution_options(begin="SHARE")
        self._reading = engine if is_sqlite else engine.execution_options(isolation_level="REPEATABLE READ")
        self._looking = engine if is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(cls, url: str, create: bool = True, clock: Clock = time.time) -> Store:
        """The store at a path (SQLite) or a postgresql:// URL, its tables made or brought up to date.

        Raises `UserError` for a URL that names no database, a database that is not there (unless `create`), one on a
        network file system, and one written by a newer version; `Unavailable` where it cannot be reached.
        """
        from apps.store.migrate import is_current, migrate

        parsed = _parsed(url)
        if parsed.get_backend_name() == "sqlite":
            _prepare_file(Path(parsed.database or ""), create)
        store = cls(_engine(parsed), clock)
        try:
            with translated():
                with store.read() as session:
                    current = is_current(session.connection())
                if not current:  # another process may bring them up to date meanwhile: `migrate` then has nothing to do
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
        """The database without its password, for messages."""
        url = self.engine.url
        return str(url.database) if self.is_sqlite else url.render_as_string(hide_password=True)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; committed at the end of the block, rolled back by any exception.

        Keep it short. Raises `Unavailable` if the database is busy for `WAIT_S` or cannot be reached, or its disk is
        full.
        """
        with self._turn.of_this_thread(), translated(), Writing(self._writing) as session, session.begin():
            with self._turn.of_this_process():
                session.connection()  # begins now, so that everything below is read after the lock is had
            yield session

    def beside(self, act: Callable[[Session], Result]) -> Result:
        """What `act` returns: a transaction that may write, beside others of this kind but never beside `write`.

        For what people do all day. On PostgreSQL it locks the rows that it goes by and changes; where that is not
        enough (`Alone`), and on SQLite, it is done as the one writer.
        """
        if not self.is_sqlite:
            with suppress(Alone, IntegrityError), translated(), Writing(self._beside) as own, own.begin():
                own.info["beside"] = True
                return act(own)
        with self.write() as session:
            return act(session)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one state of the database throughout."""
        with translated(), Session(self._reading, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """For one statement that reads: on PostgreSQL it goes without a transaction around it, so in one round trip."""
        with translated(), self._looking.connect() as connection:
            yield connection

    def put(self, statement: Executable, values: dict[str, Any]) -> int:
        """One statement that writes, and is right whatever others write at the same moment; how many rows it wrote.

        On PostgreSQL it waits for nobody.
        """
        if self.is_sqlite:
            with self.write() as session:
                return session.connection().execute(statement, values).rowcount
        with self.look() as connection:
            return connection.execute(statement, values).rowcount

    def analyze(self) -> None:
        """Brings the statistics up to date that the database plans by, after many rows came at once."""
        with self.write() as session:
            session.execute(text("ANALYZE"))

    def sweep(self) -> None:
        """Writes a SQLite file anew and empties its log, so that nothing is left in them of what was deleted.

        All others wait meanwhile. Raises `Unavailable` where somebody reads for too long, or the disk has no room for
        a second copy. PostgreSQL does the like by itself, in time.
        """
        if not self.is_sqlite:
            return
        with self._turn.of_this_thread(), self._turn.of_this_process(), closing(self.engine.raw_connection()) as raw:
            connection = raw.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            try:
                connection.execute("VACUUM")
                (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError as error:
                raise Unavailable("the database's file cannot be written anew; try again later", str(error)) from error
            if is_busy:
                raise Unavailable(BUSY)

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()
        self._turn.close()


@contextmanager
def translated() -> Iterator[None]:
    """What the database cannot do, as `Unavailable` in words."""
    try:
        yield
    except PoolTimeout:
        raise Unavailable(BUSY) from None
    except DBAPIError as error:
        if reason := _reason(error):
            raise Unavailable(*reason) from error
        raise


def _reason(error: DBAPIError) -> tuple[str, ...]:
    """What to tell of a database error that is nobody's mistake in a program, and its words; empty for all others."""
    said = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
    code = _code(error)
    if code in FULL:
        return ("the database's disk is full; nothing was saved, make room and try again",)
    if code == "SQLITE_IOERR":  # over a quota too
        return "the database's disk takes no more, or fails; nothing was saved, look for room, quotas and faults", said
    if code in BUSY_CODES:
        return (BUSY,)
    if code in READ_ONLY:
        return ("the database cannot be written to; nothing was saved, check the file's permissions and its disk",)
    if code in DAMAGED:
        return "the database file is damaged; restore a backup", said
    if code == "42501":
        return "the database refuses this; give its user the right to make and change tables", said
    if error.connection_invalidated or code in UNREACHABLE or code[:2] in ("08", "53", "57"):
        return "the database cannot be reached; nothing was saved, try again later", said
    return ()


# SQLite's names of errors, and PostgreSQL's SQLSTATEs; "-" is a server that gave none, since it was not there.
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
    """A URL; a plain path is SQLite's. Raises `UserError` for anything that is neither."""
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
        f"database: {url.partition('://')[0]}://… names no database that is known here; "
        "give a path (SQLite), or postgresql://user:password@host:port/name"
    )


def _prepare_file(path: Path, create: bool) -> None:
    """Makes an empty file that only its owner can read, or checks what is there. Raises `UserError`."""
    if not path.exists() and not create:
        raise UserError(f"database: {path} does not exist; `serve` or `import` make it")
    if path.is_dir():
        raise UserError(f"database: {path} is a folder; name a file in it, as {path / 'labels.db'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never one that is there: who closes a file lets go of all locks that the process has on it, SQLite's too, and
        # the next command to end would take the log away under a server that has two projects open.
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
    """The network file system that a path lies on, or "". SQLite's WAL needs memory that processes share."""
    import psutil

    mounts = {Path(part.mountpoint): part.fstype.lower() for part in psutil.disk_partitions(all=True)}
    real = path.resolve()
    kind = next((mounts[folder] for folder in (real, *real.parents) if folder in mounts), "")
    return kind if any(name in kind for name in NETWORK) else ""


def _engine(url: URL) -> Engine:
    # A connection beyond `pool_size` is closed after each use, and opening one costs PostgreSQL a process.
    pool: dict[str, Any] = {"pool_size": 20, "max_overflow": 44, "pool_timeout": WAIT_S, "hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        # autocommit: the driver begins nothing by itself, `_begin_sqlite` does
        connect: dict[str, Any] = {"timeout": WAIT_S, "check_same_thread": False, "isolation_level": None}
        engine = create_engine(url, connect_args=connect, **pool)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(url, connect_args={"connect_timeout": 5, "options": CONNECT}, **pool)
        event.listen(engine, "begin", _begin_postgresql)
        event.listen(engine, "checkin", _note_use)
        event.listen(engine, "checkout", partial(_ask_after_a_rest, engine.dialect))
    return engine


def _configure_sqlite(connection: Any, record: Any) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "journal_size_limit = 67108864"):
        connection.execute(f"PRAGMA {pragma}").close()


def _note_use(connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ask_after_a_rest(dialect: Any, connection: Any, record: Any, proxy: Any) -> None:
    """Whether a connection that rested still is one; else the pool opens others. To ask each time is a round trip."""
    if time.monotonic() - record.info.get("used", math.inf) > RESTED_S:
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
    """Waits until all who added an event before have committed. It comes last: whoever has it waits for nobody."""
    if is_beside(session):
        session.connection().exec_driver_sql(f"SELECT pg_advisory_xact_lock({CHAIN_LOCK})")
