"""Open episodes, leases and seals with leaves have indexes; pages of one remediation share the index of its record."""

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
    with_leaves = sa.text("leaves IS NOT NULL")
    op.create_index(
        "ix_seal_leaves", "seal", ["id"], unique=False, sqlite_where=with_leaves, postgresql_where=with_leaves
    )
    op.drop_index("ix_run_remediation_id", table_name="run")
    leased = sa.text("lease_until IS NOT NULL")
    op.create_index(
        "ix_run_lease_until", "run", ["lease_until"], unique=False, sqlite_where=leased, postgresql_where=leased
    )
