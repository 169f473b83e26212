"""Pages of open episodes have an index; pages of one remediation share the one of its record."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_open = sa.text("closed_at IS NULL")
    op.create_index("ix_episode_open", "episode", ["id"], unique=False, sqlite_where=is_open, postgresql_where=is_open)
    op.drop_index("ix_run_remediation_id", table_name="run")
