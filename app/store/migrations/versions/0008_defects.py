"""An episode says why nothing may be done about its alert."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("episode", sa.Column("defect", sa.Text(), nullable=True))
