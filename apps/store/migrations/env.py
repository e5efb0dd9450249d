"""Run by Alembic: the migrations go through the connection and transaction that `apps.store.migrate` gives."""

from alembic import context

from apps.store.tables import Table

context.configure(connection=context.config.attributes["connection"], target_metadata=Table.metadata)
context.run_migrations()
