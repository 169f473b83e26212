"""Keep the shift of the store's times for all replicas, and which pauses were given as a length."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("shifted", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )
    op.add_column("hold", sa.Column("is_length", sa.Boolean(), server_default=sa.false(), nullable=False))
