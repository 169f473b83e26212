"""Messages that are due are found channel by channel."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waits = sa.text("sent_at IS NULL AND given_up_at IS NULL")
    op.create_index(
        "ix_message_channel_due",
        "message",
        ["channel", "not_before"],
        unique=False,
        sqlite_where=waits,
        postgresql_where=waits,
    )
    op.drop_index("ix_message_due", table_name="message")
