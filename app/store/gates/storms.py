"""Storms: that too many alerts came at once, and until when nothing is touched for it."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import insert, select, update

from app.domain.ids import new_id
from app.domain.obstacles import Storm
from app.store.db.connection import AsyncConnection
from app.store.db.schema import storm

OVER_ALL = ""
_WORTH_WRITING = timedelta(seconds=30)


async def standing(tx: AsyncConnection, remediation: str, now: datetime) -> tuple[Storm, ...]:
    """The storms that keep a remediation from acting: its own and the one over all."""
    query = select(storm).where(storm.c.remediation.in_((OVER_ALL, remediation)), storm.c.until > now)
    rows = await tx.execute(query.order_by(storm.c.until))
    return tuple(Storm(row.remediation, row.message, row.until) for row in rows)


async def keep(tx: AsyncConnection, found: Storm, now: datetime) -> str | None:
    """Record a storm, or let the one that stands last longer; its id when it is new, None else.

    The caller holds the lock `admission`, so that one storm is not recorded twice.
    """
    query = select(storm.c.id, storm.c.until).where(storm.c.remediation == found.remediation, storm.c.until > now)
    row = (await tx.execute(query.limit(1))).one_or_none()
    if row is None:
        new = new_id(now)
        values = {"id": new, "remediation": found.remediation, "message": found.message}
        await tx.execute(insert(storm), [values | {"began_at": now, "until": found.until}])
        return new
    if found.until - row.until > _WORTH_WRITING:
        await tx.execute(update(storm).where(storm.c.id == row.id).values(until=found.until))
    return None
