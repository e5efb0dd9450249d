"""Brings a database's tables up to date with Alembic's migrations in `migrations/versions`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from align.errors import UserError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def is_current(connection: Connection) -> bool:
    """Whether the tables are those of the newest migration."""
    return _version(connection) == _scripts().get_current_head()


def migrate(connection: Connection, where: str, create: bool = True) -> None:
    """Creates or upgrades the tables inside the connection's transaction. `where` names the database in messages.

    Raises `UserError` for a database that a newer version wrote, one of another program, and, unless `create`, for an
    empty one.
    """
    version, scripts = _version(connection), _scripts()
    if version is not None and version not in {script.revision for script in scripts.walk_revisions()}:
        raise UserError(
            f"database: {where} was written by a newer version (tables {version}, the newest known here "
            f"are {scripts.get_current_head()}); update this program, or restore an older backup"
        )
    if version is None:
        _check_empty(connection, where, create)
    _upgrade(connection)


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())


def _version(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _check_empty(connection: Connection, where: str, create: bool) -> None:
    if tables := [name for name in inspect(connection).get_table_names() if name != "alembic_version"]:
        raise UserError(
            f"database: {where} holds tables of another program ({', '.join(sorted(tables)[:3])}); give a new one"
        )
    if not create:
        raise UserError(f"database: {where} is empty; `serve` or `import` fills it")
    if connection.dialect.name != "sqlite" and connection.scalar(text("SHOW server_encoding")) != "UTF8":
        raise UserError(f"database: {where} does not keep UTF-8; create it with ENCODING 'UTF8'")


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config():  # type: ignore[no-untyped-def]
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
