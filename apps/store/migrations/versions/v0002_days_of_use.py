"""Public ids of tasks, assignment, pauses and caps, decided tasks, versions of guidelines, tokens, devices, erasing."""

import hashlib
import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

APPEND_ONLY = ("revision", "event")


def upgrade() -> None:
    """Adds to the tables of 0001; no annotation changes."""
    _make_tables()
    _add_columns()
    _draw_public_ids()
    _draw_secrets()
    _keep_first_guidelines()
    for table in APPEND_ONLY:
        _let_erasing_pass(table)


def _make_tables() -> None:
    op.create_table(
        "device",
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_index("ix_device_person_id", "device", ["person_id"])
    op.create_table(
        "api_token",
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_index("ix_api_token_person_id", "api_token", ["person_id"])
    op.create_table(
        "guidelines",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"]),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("project_id", "version"),
    )
    op.create_table(
        "assignment",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["task.id"]),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"]),
        sa.PrimaryKeyConstraint("task_id", "person_id"),
    )
    op.create_index("assignment_of_person", "assignment", ["person_id", "project_id", "place"])
    op.create_table(
        "erasing",
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"]),
        sa.PrimaryKeyConstraint("person_id"),
    )


def _add_columns() -> None:
    op.add_column("person", sa.Column("erased_at", sa.Double(), nullable=True))
    op.add_column("desk", sa.Column("most", sa.Integer(), nullable=True))
    for table, column in (
        ("project", sa.Column("guidelines_file", sa.Text(), nullable=False, server_default="")),
        ("project", sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false())),
        ("project", sa.Column("secret", sa.Text(), nullable=False, server_default="")),
        ("task", sa.Column("public_id", sa.BigInteger(), nullable=False, server_default="0")),
        ("task", sa.Column("assigned", sa.Boolean(), nullable=False, server_default=sa.false())),
        ("lease", sa.Column("began_at", sa.Double(), nullable=False, server_default="0")),
        ("lease", sa.Column("final", sa.Boolean(), nullable=False, server_default=sa.false())),
        ("desk", sa.Column("own_place", sa.BigInteger(), nullable=False, server_default="0")),
        ("desk", sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false())),
        ("annotation", sa.Column("final", sa.Boolean(), nullable=False, server_default=sa.false())),
    ):
        op.add_column(table, column)
    op.drop_index("task_queue", "task")
    op.create_index("task_queue", "task", ["project_id", "kind", "assigned", "status", "place"])


def _draw_public_ids() -> None:
    connection = op.get_bind()
    rows = [{"id": id, "public": secrets.randbelow(2**53 - 1) + 1} for (id,) in connection.execute(_ids())]
    if rows:
        connection.execute(sa.text("UPDATE task SET public_id = :public WHERE id = :id"), rows)
    op.create_index("task_public_id", "task", ["public_id"], unique=True)
    leases = "UPDATE lease SET began_at = COALESCE((SELECT shown_at FROM presentation p WHERE p.task_id = lease.task_id"
    connection.execute(sa.text(f"{leases} AND p.person_id = lease.person_id), 0)"))


def _draw_secrets() -> None:
    connection = op.get_bind()
    for (id,) in connection.execute(sa.text("SELECT id FROM project")).all():
        values = {"secret": secrets.token_urlsafe(16), "id": id}
        connection.execute(sa.text("UPDATE project SET secret = :secret WHERE id = :id"), values)


def _ids() -> sa.TextClause:
    return sa.text("SELECT id FROM task")


def _keep_first_guidelines() -> None:
    """Stores the current guidelines as a version; earlier ones were not kept."""
    connection = op.get_bind()
    for row in connection.execute(sa.text("SELECT id, guidelines, guidelines_version FROM project")).all():
        at = connection.scalar(sa.text("SELECT MAX(at) FROM event WHERE verb = 'project'")) or 0.0
        values = {"project": row.id, "version": row.guidelines_version, "text": row.guidelines, "at": at}
        into = "INSERT INTO guidelines (project_id, version, text, at) VALUES (:project, :version, :text, :at)"
        connection.execute(sa.text(into), values)
        digest = hashlib.sha256(row.guidelines.encode()).hexdigest()
        update = sa.text("UPDATE project SET guidelines_file = :digest WHERE id = :project")
        connection.execute(update, {"digest": digest, "project": row.id})


def _let_erasing_pass(table: str) -> None:
    """Rows of this table are never deleted, and changed only while a person is erased."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"DROP TRIGGER {table}_no_update")
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} WHEN NOT EXISTS (SELECT 1 FROM erasing) "
            f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are never changed'); END"
        )
        return
    op.execute(
        f"CREATE OR REPLACE FUNCTION {table}_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF TG_OP = 'UPDATE' AND EXISTS (SELECT 1 FROM erasing) THEN RETURN NULL; END IF; "
        f"RAISE EXCEPTION 'rows of {table} are never changed'; END $$"
    )
