"""Find the runs for a cooldown, a rate and a recurrence count without reading observed runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_REFUSED_BY_PEOPLE = "reason IN ('approval_expired', 'approval_rejected', 'cancelled_by_person')"
_INDEXES = (
    ("ix_run_target_acted", ["target_key", "finished_at"], "admitted_at IS NOT NULL"),
    ("ix_run_target_admitted", ["target_key", "admitted_at"], "admitted_at IS NOT NULL"),
    ("ix_run_target_answered", ["target_key", "finished_at"], _REFUSED_BY_PEOPLE),
    ("ix_run_helped", ["resolved_at"], "effective"),
)


def upgrade() -> None:
    for name, columns, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, "run", columns, unique=False, sqlite_where=where, postgresql_where=where)
