"""The time of the store, which all replicas share, and what becomes of what waits when that is set."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import func, or_, select, text, update

from app.domain.durations import Duration
from app.domain.remediation import Purpose, Remediation
from app.domain.states import RunState
from app.store.connection import AsyncConnection
from app.store.schema import run

_APART = timedelta(seconds=10)  # the times of replicas that follow one clock differ by less
_DURATION: TypeAdapter[timedelta] = TypeAdapter(Duration)


def steady() -> float:
    """Seconds that go on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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

    Doing it again, as every replica does, changes nothing more. A replica that stood still sees a step where there was
    none: the others have lived on, and what they wrote is as it should be.
    """
    if by > timedelta() and await _others_lived(tx, now - by, lease):
        return
    leased = update(run).where(run.c.active, run.c.lease_until.is_not(None))
    await tx.execute(leased.values(lease_until=now + lease))
    waits = or_(run.c.state == RunState.VERIFYING, run.c.purpose == Purpose.REVERT)
    columns = (run.c.id, run.c.purpose, run.c.plan, run.c.spec, run.c.updated_at, run.c.settle_until)
    for row in (await tx.execute(select(*columns).where(run.c.active, waits, run.c.settle_until.is_not(None)))).all():
        settle = _settle(row)
        if by > timedelta():
            until = max(row.settle_until, row.updated_at + settle + by)
        else:
            until = min(row.settle_until, now + settle)
        await tx.execute(update(run).where(run.c.id == row.id).values(settle_until=until))
    # What is looked at too early is put off again.
    await tx.execute(update(run).where(run.c.active, run.c.not_before > now).values(not_before=now))


async def _others_lived(tx: AsyncConnection, before: datetime, lease: timedelta) -> bool:
    """Whether somebody has written in the time that a step forwards would have left out."""
    there = or_(run.c.updated_at > before + _APART, run.c.lease_until > before + lease + _APART)
    return (await tx.execute(select(run.c.id).where(run.c.active, there).limit(1))).first() is not None


def _settle(row: Any) -> timedelta:
    """How long a run waits for its alert, or a revert for its alert to stay away; nothing where it cannot be read."""
    name, within = ("revert_after", row.spec) if row.purpose == Purpose.REVERT else ("settle", row.plan or {})
    default = Remediation.model_fields["revert_after"].default if row.purpose == Purpose.REVERT else timedelta()
    try:
        return _DURATION.validate_python(within.get(name) or default)
    except ValidationError:
        return timedelta()
