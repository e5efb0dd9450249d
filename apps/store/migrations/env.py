"""Run by Alembic: runs the migrations in the connection and transaction of `apps.store.migrate`."""

from alembic import context

from apps.store.tables import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata)
context.run_migrations()
