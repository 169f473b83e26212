"""What guards decide on, read (and its budget taken) in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.durations import Rate
from app.store.schema import run


async def last_outcome(tx: AsyncConnection, target_key: str, but: str) -> tuple[datetime, str] | None:
    """When the last run that acted on the target ended, however, and which it was."""
    query = select(run.c.finished_at, run.c.id).where(
        run.c.target_key == target_key, run.c.finished_at.is_not(None), run.c.admitted_at.is_not(None), run.c.id != but
    )
    row = (await tx.execute(query.order_by(run.c.finished_at.desc()).limit(1))).one_or_none()
    return None if row is None else (row.finished_at, row.id)


async def rate_free_at(
    tx: AsyncConnection, rates: Sequence[Rate], now: datetime, remediation: str | None
) -> tuple[Rate, datetime] | None:
    """The first rate whose window is full, with the time when it has room again; None when all have room."""
    for rate in rates:
        query = select(run.c.admitted_at).where(run.c.admitted_at > now - rate.window)
        if remediation is not None:
            query = query.where(run.c.remediation == remediation)
        # The count-th newest admission is the one that must leave the window.
        query = query.order_by(run.c.admitted_at.desc()).offset(rate.count - 1).limit(1)
        oldest: datetime | None = (await tx.execute(query)).scalar_one_or_none()
        if oldest is not None:
            return rate, oldest + rate.window + timedelta(milliseconds=1)
    return None


async def holder(tx: AsyncConnection, target_key: str, but: str) -> tuple[str, str] | None:
    """The run (id, remediation) that works on the target now, or None."""
    query = select(run.c.id, run.c.remediation).where(
        run.c.target_key == target_key, run.c.holds_target, run.c.id != but
    )
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else (row.id, row.remediation)


async def targets_in_work(tx: AsyncConnection, remediation: str, but: str) -> int:
    """How many targets runs of this remediation hold now."""
    query = select(func.count()).select_from(run)
    query = query.where(run.c.remediation == remediation, run.c.active, run.c.holds_target, run.c.id != but)
    return int((await tx.execute(query)).scalar_one())
