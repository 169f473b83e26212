"""The time of the store, which all replicas share, and the move of every time in it when that clock is set.

The table `clock` counts by how much the times of the store have been moved so far. A replica that knows another count
goes by a clock that the store no longer has, and begins no transaction of the engine (`is_known`) before it compares.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Table,
    and_,
    func,
    literal,
    or_,
    select,
    text,
    type_coerce,
    update,
)

from app.store.audit import chain
from app.store.audit.chain import SERVICE, Entry, Event
from app.store.db.connection import AsyncConnection
from app.store.db.dialects import insert_missing
from app.store.db.schema import breaker, catalog, clock, episode, hold, message, notification, run, standing, storm

LOCK = "clock"
_APART = timedelta(seconds=10)  # the times of replicas that follow one clock differ by less
_RECENT = timedelta(days=2)  # older ends stay as recorded: cooldowns and rates are shorter
_MICROSECOND = timedelta(microseconds=1)
_IS_KNOWN = text("SELECT pg_try_advisory_xact_lock_shared(:key) AND shifted = :shifted FROM clock")
_KEY = zlib.crc32(LOCK.encode())


@dataclass(frozen=True, slots=True)
class Reading:
    """The store's clock; on SQLite the host's, which the caller has."""

    now: datetime | None
    shifted: timedelta  # by which the store's times were moved so far
    seen_at: datetime | None  # when a replica last compared, by the clock of that time


def steady() -> float:
    """Seconds that go on while the machine sleeps, and that no clock setting changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def begin(tx: AsyncConnection) -> None:
    """Make the row of the clock where there is none."""
    await tx.execute(insert_missing(tx.dialect, clock).values(id=1, shifted=0))


async def read(tx: AsyncConnection) -> Reading:
    """Read the clock, and the store's knowledge of it, in one statement."""
    now = func.clock_timestamp() if tx.dialect.name == "postgresql" else literal(None)
    row = (await tx.execute(select(clock.c.shifted, clock.c.seen_at, now.label("now")))).one()
    return Reading(row.now, row.shifted * _MICROSECOND, row.seen_at)


async def is_known(tx: AsyncConnection, shifted: timedelta) -> bool:
    """Whether the store's times were moved by so much and no more; they are not moved until the transaction ends."""
    asked = {"key": _KEY, "shifted": shifted // _MICROSECOND}
    return bool((await tx.execute(_IS_KNOWN, asked)).scalar_one())


async def note_seen(tx: AsyncConnection, now: datetime, shifted: timedelta) -> None:
    """Write down that a replica lives at this moment and found no step, unless another one has found a step since."""
    await tx.execute(update(clock).where(clock.c.shifted == shifted // _MICROSECOND).values(seen_at=now))


async def newest_change(tx: AsyncConnection) -> datetime | None:
    """When a run that has not ended was last changed, by the clock of that time."""
    value: datetime | None = (await tx.execute(select(func.max(run.c.updated_at)).where(run.c.active))).scalar_one()
    return value


async def others_lived(tx: AsyncConnection, before: datetime, lease: timedelta) -> bool:
    """Whether another replica has written in the time that a step forwards would have left out."""
    seen_at = (await tx.execute(select(clock.c.seen_at))).scalar_one()
    if seen_at is not None and seen_at > before + _APART:
        return True
    there = or_(run.c.updated_at > before + _APART, run.c.lease_until > before + lease + _APART)
    return (await tx.execute(select(run.c.id).where(run.c.active, there).limit(1))).first() is not None


async def follow_step(tx: AsyncConnection, now: datetime, by: timedelta, lease: timedelta) -> None:
    """Move every stored time with the clock, which was set by so much and says `now`.

    Everything lasts as long as it would have. The caller holds the lock, and has seen that no replica did this before.
    """
    before = now - by
    for table, where, columns in moved(before, by):
        await tx.execute(update(table).where(where).values({column: _plus(column, by) for column in columns}))
    await tx.execute(update(run).where(run.c.active, run.c.lease_until.is_not(None)).values(lease_until=now + lease))
    # The step is known only nearly after a start: what would wait too long is looked at, and put off again.
    await tx.execute(update(run).where(run.c.active, run.c.not_before > now).values(not_before=now))
    await tx.execute(update(clock).values(shifted=clock.c.shifted + by // _MICROSECOND, seen_at=now))
    seconds = round(by.total_seconds())
    entry = Entry(f"the clock was set by {seconds} s; waiting times were moved with it", data={"seconds": seconds})
    await chain.append(tx, [Event(SERVICE, now, "clock_set", "", entry)])


def moved(before: datetime, by: timedelta) -> list[tuple[Table, ColumnElement[bool], list[Column[datetime]]]]:
    """Every time of ours that something still depends on; those of alerts are by other clocks."""
    recent = before - _RECENT
    runs = or_(run.c.active, run.c.judge_at.is_not(None), run.c.finished_at > recent)
    episodes = or_(episode.c.closed_at.is_(None), episode.c.closed_at > recent)
    stands = hold.c.ended_at.is_(None)
    # A pause until a time of the day ends then; but a clock that jumps ahead ends none.
    lasts = stands if by > timedelta() else and_(stands, hold.c.is_length)
    waiting = and_(message.c.sent_at.is_(None), message.c.given_up_at.is_(None))
    return [
        (run, runs, [run.c[name] for name in _OF_RUN]),
        (episode, episodes, [episode.c.first_seen_at, episode.c.last_seen_at, episode.c.closed_at]),
        (notification, notification.c.taken_in_at.is_(None), [notification.c.received_at]),
        (hold, lasts, [hold.c.since, hold.c.until]),
        (breaker, breaker.c.opened_at.is_not(None), [breaker.c.opened_at, breaker.c.trial_at]),
        (storm, storm.c.until > before, [storm.c.began_at, storm.c.until]),
        (catalog, catalog.c.served_at.is_not(None), [catalog.c.served_at]),
        (standing, standing.c.since.is_not(None), [standing.c.since]),
        (message, waiting, [message.c.created_at, message.c.not_before]),
    ]


_OF_RUN = (
    "received_at",
    "created_at",
    "updated_at",
    "not_before",
    "admitted_at",
    "started_at",
    "settle_until",
    "finished_at",
    "judge_at",
    "tell_at",
    "unreachable_since",
)


def _plus(column: Column[datetime], by: timedelta) -> ColumnElement[int]:
    """A time moved; in the store both are microseconds."""
    return type_coerce(column, BigInteger) + literal(by // _MICROSECOND, BigInteger)
