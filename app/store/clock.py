"""The time of the store, which all replicas share, and what becomes of what waits when that is set."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.plans import Plan
from app.domain.states import RunState
from app.store.schema import run


async def database_time(tx: AsyncConnection) -> datetime:
    """What PostgreSQL's clock says now."""
    value: datetime = (await tx.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return value


async def newest_change(tx: AsyncConnection) -> datetime | None:
    """When a run that has not ended was last changed, by the clock of that time."""
    value: datetime | None = (await tx.execute(select(func.max(run.c.updated_at)).where(run.c.active))).scalar_one()
    return value


async def follow_step(tx: AsyncConnection, now: datetime, by: timedelta, lease: timedelta) -> None:
    """The clock was set and says `now`: nothing waits for ever, leases are whole, and alerts keep their time to settle.

    Doing it again, as every replica does, changes nothing more.
    """
    leased = update(run).where(run.c.active, run.c.lease_until.is_not(None))
    await tx.execute(leased.values(lease_until=now + lease))
    settling = select(run.c.id, run.c.plan, run.c.updated_at, run.c.settle_until).where(
        run.c.active, run.c.state == RunState.VERIFYING, run.c.settle_until.is_not(None)
    )
    for row in (await tx.execute(settling)).all():
        settle = Plan.model_validate(row.plan).settle or timedelta()
        if by > timedelta():
            until = max(row.settle_until, row.updated_at + settle + by)
        else:
            until = min(row.settle_until, now + settle)
        await tx.execute(update(run).where(run.c.id == row.id).values(settle_until=until))
    # What is looked at too early is put off again.
    await tx.execute(update(run).where(run.c.active, run.c.not_before > now).values(not_before=now))
