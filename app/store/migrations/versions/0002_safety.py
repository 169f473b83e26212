"""Pauses, breakers, storms, earned modes, messages to people; runs that take others back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The previous release goes on writing runs while this one is rolled out, so new columns have a default or no value.
    op.add_column("run", sa.Column("purpose", sa.String(length=10), server_default="remedy", nullable=False))
    op.add_column("run", sa.Column("undoes", sa.String(length=36), nullable=True))
    op.add_column("run", sa.Column("judge_at", sa.BigInteger(), nullable=True))
    _partial_index("ix_run_judge_at", "run", ["judge_at"], "judge_at IS NOT NULL")
    _partial_index("ix_run_undoes", "run", ["undoes"], "undoes IS NOT NULL")
    op.create_table(
        "hold",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("scope", sa.String(length=12), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
    )
    _partial_index("uq_hold_standing", "hold", ["scope", "subject", "holder"], "ended_at IS NULL", unique=True)
    op.create_table(
        "breaker",
        sa.Column("remediation", sa.String(length=63), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.Column("trial_at", sa.BigInteger(), nullable=True),
        sa.Column("trial", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("remediation", name=op.f("pk_breaker")),
    )
    op.create_table(
        "storm",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("remediation", sa.String(length=63), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_storm")),
    )
    op.create_index("ix_storm_remediation", "storm", ["remediation", "until"], unique=False)
    op.create_table(
        "standing",
        sa.Column("remediation", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("good", sa.Integer(), nullable=False),
        sa.Column("bad", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("remediation", name=op.f("pk_standing")),
    )
    _create_message()


def _create_message() -> None:
    op.create_table(
        "message",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("given_up_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
        sa.UniqueConstraint("key", name=op.f("uq_message_key")),
    )
    _partial_index("ix_message_due", "message", ["not_before"], "sent_at IS NULL AND given_up_at IS NULL")


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
