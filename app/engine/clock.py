"""The time that the engine goes by: the store's, carried on by a clock that cannot be set.

On PostgreSQL that is the time of the database, so that a replica whose own clock is wrong, or is set while it runs,
agrees with the others on leases, limits and deadlines. On SQLite, where there is one process, it is its host's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.domain.errors import StoreUnavailableError
from app.store.db import clock
from app.store.db.clock import steady
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.rerun import rerun

__all__ = ["Timekeeper", "steady"]
_COMPARE_SECONDS = 5.0
_SLOW_SECONDS = 1.0  # an answer that took longer says too little about the time
_STEP = timedelta(seconds=5)  # less than this is drift, or two clocks that differ a little
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Compared:
    """The store's clock at a moment of the steady one."""

    now: datetime
    at: float
    shifted: timedelta
    seen_at: datetime | None


class Timekeeper:
    """A clock to be called; `start` before it is first asked in earnest, `keep_forever` beside the engine."""

    def __init__(self, database: Database, wall: Callable[[], datetime], lease: timedelta) -> None:
        self._database = database
        self._wall = wall
        self._lease = lease
        self._read, self._read_at = wall(), steady()
        self._shifted = timedelta()  # by which the store's times had been moved when the clock was read

    def __call__(self) -> datetime:
        """The time now."""
        return self._at(steady())

    def _at(self, moment: float) -> datetime:
        return self._read + timedelta(seconds=moment - self._read_at)

    async def start(self) -> None:
        """Read the time; times in the future, after the clock was set back while no replica ran, are due now."""
        async with self._following() as tx:
            await clock.begin(tx)
            compared = await self._compare(tx)
            last = [await clock.newest_change(tx), compared.seen_at]
            ahead = max((one - compared.now for one in last if one is not None), default=timedelta())
            if ahead > _STEP:
                await self._follow(tx, compared, -ahead)
            else:
                self._adopt(compared, compared.shifted)

    async def keep_forever(self) -> None:
        """Compare with the store's time again and again, until cancelled."""
        while True:
            await asyncio.sleep(_COMPARE_SECONDS)
            try:
                await self.compare()
            except StoreUnavailableError as error:
                log.debug("the time cannot be compared with the store's", error=error.message)
            except Exception:  # the loop: it goes on by the time that it has
                log.exception("the time could not be compared with the store's")

    async def compare(self) -> None:
        """Follow the store's time; if it was set, move the stored times first."""
        async with self._database.read() as tx:
            compared = await self._compare(tx)
        if steady() - compared.at > _SLOW_SECONDS:
            return
        if self._is_step(compared, self._unfollowed(compared)):
            await self._step()
            return
        self._adopt(compared, compared.shifted)
        if not self._database.is_sqlite:
            async with self._database.write(synced=False) as tx:
                await clock.note_seen(tx, compared.now, compared.shifted)

    async def is_timely(self, tx: AsyncConnection) -> bool:
        """Whether this clock goes by the times that the store has, until the transaction ends; else compare."""
        return self._database.is_sqlite or await clock.is_known(tx, self._shifted)

    @rerun
    async def _step(self) -> None:
        """Follow a change that no other replica has followed before; the lock keeps other transactions out."""
        async with self._following() as tx:
            compared = await self._compare(tx)
            by = self._unfollowed(compared)
            stood_still = by > timedelta() and await clock.others_lived(tx, compared.now - by, self._lease)
            if self._is_step(compared, by) and not stood_still:
                await self._follow(tx, compared, by)
            else:
                self._adopt(compared, compared.shifted)

    def _unfollowed(self, compared: _Compared) -> timedelta:
        """By how much the clock was set since this replica last compared, but for the steps that others followed."""
        return compared.now - self._at(compared.at) - (compared.shifted - self._shifted)

    def _is_step(self, compared: _Compared, by: timedelta) -> bool:
        """Say whether it is more than drift; a small step for other replicas may be drift here."""
        return abs(by) > (_STEP if compared.shifted == self._shifted else 2 * _STEP)

    @asynccontextmanager
    async def _following(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that none of the engine is beside; where it fails, the time is the one before it."""
        before = self._read, self._read_at, self._shifted
        try:
            async with self._database.write(clock.LOCK) as tx:
                yield tx
        except BaseException:
            self._read, self._read_at, self._shifted = before
            raise

    async def _compare(self, tx: AsyncConnection) -> _Compared:
        begun = steady()
        found = await clock.read(tx)
        if found.now is None:
            return _Compared(self._wall(), steady(), found.shifted, found.seen_at)
        return _Compared(found.now, (begun + steady()) / 2, found.shifted, found.seen_at)

    async def _follow(self, tx: AsyncConnection, compared: _Compared, by: timedelta) -> None:
        log.warning("the clock was set", seconds=round(by.total_seconds()))
        await clock.follow_step(tx, compared.now, by, self._lease)
        self._adopt(compared, compared.shifted + by)

    def _adopt(self, compared: _Compared, shifted: timedelta) -> None:
        self._read, self._read_at, self._shifted = compared.now, compared.at, shifted
