"""An index on all events except annotations, so that leads' decisions are found without reading every event."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the index; no row changes."""
    where = sa.text("verb <> 'say'")
    op.create_index("event_of_leads", "event", ["verb", "subject", "seq"], sqlite_where=where, postgresql_where=where)
