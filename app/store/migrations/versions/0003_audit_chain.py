"""Events are chained by hash, and seals cover all chains."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    # A default of the database, so that the events of the previous release have it too.
    transaction = "(pg_current_xact_id()::text::bigint)" if is_postgresql else "0"
    with op.batch_alter_table("event") as batch:
        batch.alter_column("run_id", existing_type=sa.String(length=36), type_=sa.String(length=80))
        batch.add_column(sa.Column("seq", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("hash", sa.String(length=64), nullable=True))
        # First 0 for present rows, all committed long ago.
        batch.add_column(sa.Column("tx", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
        batch.create_unique_constraint(op.f("uq_event_run_id_seq"), ["run_id", "seq"])
    if is_postgresql:
        op.alter_column("event", "tx", server_default=sa.text(transaction))
    op.create_index("ix_event_tx", "event", ["tx", "id"], unique=False)
    op.create_table(
        "seal",
        sa.Column("id", serial, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("to_tx", sa.BigInteger(), nullable=False),
        sa.Column("to_id", sa.BigInteger(), nullable=False),
        sa.Column("leaves", json, nullable=True),
        sa.Column("leaves_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_seal")),
    )
