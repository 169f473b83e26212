"""Read the track record of remediations from an index."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    columns = ["remediation", "id", "purpose", "state", "effective", "resolved_at", "alert_starts_at"]
    op.create_index("ix_run_record", "run", columns, unique=False)
