"""What guards decide on, read (and its budget taken) in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.durations import Rate
from app.domain.ids import lowest_id
from app.domain.obstacles import Busy
from app.domain.reasons import Reason
from app.domain.remediation import Purpose, Risk
from app.store.schema import episode, run, run_episode

# People said no, or nothing: asking again at once would only teach them to say yes without looking.
_ANSWERS = (Reason.APPROVAL_EXPIRED, Reason.APPROVAL_REJECTED, Reason.CANCELLED_BY_PERSON)


async def last_outcome(tx: AsyncConnection, target_key: str, but: str) -> tuple[datetime, str] | None:
    """When the last run ended that acted on the target or that people refused, and which it was."""
    counts = or_(run.c.admitted_at.is_not(None), run.c.reason.in_(_ANSWERS))
    query = select(run.c.finished_at, run.c.id).where(
        run.c.target_key == target_key, run.c.finished_at.is_not(None), counts, run.c.id != but
    )
    row = (await tx.execute(query.order_by(run.c.finished_at.desc()).limit(1))).one_or_none()
    return None if row is None else (row.finished_at, row.id)


async def rate_free_at(
    tx: AsyncConnection, rates: Sequence[Rate], now: datetime, *among: ColumnElement[bool]
) -> tuple[Rate, datetime] | None:
    """The first rate whose window is full, with the time when it has room again; None when all have room.

    Counted are admissions that answered an alert, `among` the runs for which these conditions hold.
    """
    for rate in rates:
        query = select(run.c.admitted_at).where(
            run.c.admitted_at > now - rate.window, run.c.purpose == Purpose.REMEDY, *among
        )
        # The count-th newest admission is the one that must leave the window.
        query = query.order_by(run.c.admitted_at.desc()).offset(rate.count - 1).limit(1)
        oldest: datetime | None = (await tx.execute(query)).scalar_one_or_none()
        if oldest is not None:
            return rate, oldest + rate.window + timedelta(milliseconds=1)
    return None


def of_remediation(name: str) -> ColumnElement[bool]:
    """Runs of one remediation."""
    return run.c.remediation == name


def on_target(target_key: str) -> ColumnElement[bool]:
    """Runs on one target."""
    return run.c.target_key == target_key


async def holder(tx: AsyncConnection, target_key: str, but: str) -> Busy | None:
    """The run that works on the target now, or None."""
    query = select(run.c.id, run.c.remediation, run.c.plan).where(
        run.c.target_key == target_key, run.c.holds_target, run.c.id != but
    )
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    risks = [Risk(step["risk"]) for step in (row.plan or {}).get("steps", ())]
    return Busy(row.id, row.remediation, max(risks, key=lambda risk: risk.rank, default=Risk.LOW))


async def targets_in_work(tx: AsyncConnection, but: str, *among: ColumnElement[bool]) -> int:
    """How many targets runs hold now, `among` those for which these conditions hold."""
    query = select(func.count()).select_from(run).where(run.c.holds_target, run.c.id != but, *among)
    return int((await tx.execute(query)).scalar_one())


async def held_targets(tx: AsyncConnection, but: str) -> frozenset[str]:
    """The keys of all targets that other runs work on now."""
    query = select(run.c.target_key).where(run.c.holds_target, run.c.id != but)
    return frozenset((await tx.execute(query)).scalars())


async def rate_exceeded(
    tx: AsyncConnection, rates: Sequence[Rate], now: datetime, remediation: str | None = None
) -> Rate | None:
    """The first rate that newly firing alerts exceed: those that triggered one remediation, or any (None)."""
    for rate in rates:
        since = now - rate.window
        triggered = and_(run_episode.c.episode_id == episode.c.id, run_episode.c.run_id == run.c.id)
        if remediation is not None:
            triggered = and_(triggered, run.c.remediation == remediation)
        fresh = and_(episode.c.id >= lowest_id(since), episode.c.first_seen_at > since)
        query = select(episode.c.id).where(fresh, exists().where(triggered))
        # Only whether there is one alert more than the rate allows is asked, not how many there are.
        if (await tx.execute(query.offset(rate.count).limit(1))).first() is not None:
            return rate
    return None
