"""The time that the engine goes by: the store's, carried on by a clock that nobody can set.

On PostgreSQL that is the time of the database, so that a replica whose own clock is wrong, or is set while it runs,
agrees with the others on leases, limits and deadlines. On SQLite, where there is one process, it is its host's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from app.domain.errors import StoreUnavailableError
from app.store import clock
from app.store.clock import steady
from app.store.database import Database
from app.store.rerun import rerun

__all__ = ["Timekeeper", "steady"]
_COMPARE_SECONDS = 5.0
_SLOW_SECONDS = 1.0  # an answer that took longer says too little about the time
_STEP = timedelta(seconds=5)  # less than this is drift, or two clocks that differ a little
log = structlog.get_logger()


class Timekeeper:
    """A clock to be called; `start` before it is first asked in earnest, `keep_forever` beside the engine."""

    def __init__(self, database: Database, wall: Callable[[], datetime], lease: timedelta) -> None:
        self._database = database
        self._wall = wall
        self._lease = lease
        self._read, self._read_at = wall(), steady()

    def __call__(self) -> datetime:
        """The time now."""
        return self._at(steady())

    def _at(self, moment: float) -> datetime:
        return self._read + timedelta(seconds=moment - self._read_at)

    async def start(self) -> None:
        """Read the time; what waits for a time that was set back while nobody ran is looked at now."""
        self._read, self._read_at = await self._compare()
        async with self._database.read() as tx:
            newest = await clock.newest_change(tx)
        now = self()
        if newest is not None and newest - now > _STEP:
            await self._follow(now, now - newest)

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
        """Follow the store's time; where it was set, what waits follows first."""
        read, at = await self._compare()
        if steady() - at > _SLOW_SECONDS:
            return
        step = read - self._at(at)
        if abs(step) > _STEP:
            await self._follow(read, step)
        self._read, self._read_at = read, at

    async def _compare(self) -> tuple[datetime, float]:
        """The store's time, and when by our own clock that was."""
        if self._database.is_sqlite:
            return self._wall(), steady()
        async with self._database.read() as tx:
            begun = steady()
            read = await clock.database_time(tx)
            return read, (begun + steady()) / 2

    @rerun
    async def _follow(self, now: datetime, step: timedelta) -> None:
        log.warning("the clock was set", seconds=round(step.total_seconds()))
        async with self._database.write() as tx:
            await clock.follow_step(tx, now, step, self._lease)
