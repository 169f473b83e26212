"""What guards decide on, read (and its budget taken) in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.durations import Rate
from app.domain.states import RunState
from app.store.schema import run

# Outcomes after which the target rests although nothing was done to it: a dry run shows what a real one would have met.
_RESTS_AFTER = (
    RunState.SUCCEEDED,
    RunState.FAILED,
    RunState.INTERRUPTED,
    RunState.OBSERVED,
    RunState.EXPIRED,
)


async def last_outcome_at(tx: AsyncConnection, target_key: str, remediation: str, but: str) -> datetime | None:
    """When the last run on the target ended (of any remediation that acted, or of this one in dry run)."""
    acted = run.c.admitted_at.is_not(None)  # however it ended: also one whose next rung a person refused
    mine = and_(run.c.remediation == remediation, run.c.state.in_(_RESTS_AFTER))
    query = select(func.max(run.c.finished_at)).where(
        run.c.target_key == target_key, run.c.finished_at.is_not(None), or_(acted, mine), run.c.id != but
    )
    value: datetime | None = (await tx.execute(query)).scalar_one_or_none()
    return value


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
