"""Runs say since when their target does not answer, and when people are told that they wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("tell_at", sa.BigInteger(), nullable=True))
    op.add_column("run", sa.Column("unreachable_since", sa.BigInteger(), nullable=True))
    waits = sa.text("tell_at IS NOT NULL")
    op.create_index("ix_run_tell_at", "run", ["tell_at"], unique=False, sqlite_where=waits, postgresql_where=waits)
