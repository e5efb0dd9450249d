"""Brings a database's tables up to date with Alembic's migrations in `migrations/versions`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import inspect, text

from align.errors import UserError
from apps.store.engine import Store


def migrate(store: Store, create: bool = True) -> None:
    """Makes or upgrades the tables, in one writing transaction. Does nothing where they are up to date.

    Raises `UserError` for a database that a newer version wrote, one of another program, and, unless `create`, for an
    empty one.
    """
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    with store.read() as session:
        if _version(store, session.connection()) == scripts.get_current_head():
            return
    with store.write() as session:
        connection = session.connection()
        version = _version(store, connection)
        known = {script.revision for script in scripts.walk_revisions()}
        if version is not None and version not in known:
            raise UserError(
                f"database: {store.where} was written by a newer version (tables {version}, the newest known here "
                f"are {scripts.get_current_head()}); update this program, or restore an older backup"
            )
        if version is None:
            _check_empty(store, connection, create)
        _upgrade(connection)


def _version(store: Store, connection: object) -> str | None:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    assert isinstance(connection, Connection)
    return MigrationContext.configure(connection).get_current_revision()


def _check_empty(store: Store, connection: object, create: bool) -> None:
    from sqlalchemy import Connection

    assert isinstance(connection, Connection)
    if tables := [name for name in inspect(connection).get_table_names() if name != "alembic_version"]:
        raise UserError(
            f"database: {store.where} holds tables of another program ({', '.join(sorted(tables)[:3])}); give a new one"
        )
    if not create:
        raise UserError(f"database: {store.where} is empty; `serve` or `import` fill it")
    if not store.is_sqlite and connection.scalar(text("SHOW server_encoding")) != "UTF8":
        raise UserError(f"database: {store.where} does not keep UTF-8; create it with ENCODING 'UTF8'")


def _upgrade(connection: object) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config():  # type: ignore[no-untyped-def]
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
