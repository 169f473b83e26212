"""One replica at a time for work that several need not do: a lease in the store, with an end, by its clock.

The leader renews its lease. A leader that is frozen or dead loses the lease at its end, and another replica takes it. A
leader that was frozen and wakes finds at its next write (`Leadership.check`) that it leads no more. SQLite has one
replica, which leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import BigInteger, select, text

from app.domain.errors import LeaseLostError, StoreUnavailableError
from app.store.db.clock import steady
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.schema import Timestamp, leadership

HOUSEKEEPING, LOOKUP = MATTERS = ("housekeeping", "lookup")
Fence = Callable[[AsyncConnection], Awaitable[None]]  # raises LeaseLostError where its replica leads no more
_TRIES = 4  # to renew a lease while it stands
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# A lease from the future is of a clock that was set back since: it would never end.
_APART = timedelta(seconds=10)
_TAKE = text(f"""
    INSERT INTO leadership AS held (matter, holder, since, renewed_at, until)
    SELECT :matter, :holder, t, t, t + :lease FROM (SELECT {_NOW} AS t) AS clock
    ON CONFLICT (matter) DO UPDATE SET
        holder = excluded.holder,
        since = CASE WHEN held.holder = excluded.holder AND held.until > excluded.renewed_at
                     THEN held.since ELSE excluded.since END,
        renewed_at = excluded.renewed_at,
        until = excluded.until
    WHERE held.holder = excluded.holder
       OR held.until <= excluded.renewed_at
       OR held.renewed_at > excluded.renewed_at + {_APART // timedelta(microseconds=1)}
    RETURNING since
""").columns(since=BigInteger)  # noqa: S608 - nothing of it is given
_STANDS = text(f"""
    SELECT 1 FROM leadership WHERE matter = :matter AND holder = :holder AND since = :since AND until > {_NOW} FOR SHARE
""")  # noqa: S608
_GIVE_BACK = text("UPDATE leadership SET until = renewed_at WHERE matter = :matter AND holder = :holder")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Leader:
    """The leader in a matter, and the end of its lease unless it renews."""

    matter: str
    holder: str
    until: datetime


async def alone(_tx: AsyncConnection) -> None:
    """The fence of a replica that leads even if no other replica knows it."""


async def leaders(tx: AsyncConnection) -> Sequence[Leader]:
    """Every lease that stands, by matter."""
    if tx.dialect.name != "postgresql":
        return []
    now = text(_NOW).columns(now=Timestamp).scalar_subquery()
    standing = select(leadership.c.matter, leadership.c.holder, leadership.c.until).where(leadership.c.until > now)
    return [Leader(*row) for row in await tx.execute(standing.order_by(leadership.c.matter))]


class Leadership:
    """A replica's claim to lead in one matter."""

    def __init__(self, database: Database, matter: str, holder: str, lease: timedelta) -> None:
        self._database = database
        self._who = {"matter": matter, "holder": holder}
        self._lease = lease
        self._since: int | None = None
        self._until = 0.0  # by the steady clock

    @property
    def is_held(self) -> bool:
        """Whether this replica leads, by its last look."""
        return self._database.is_sqlite or (self._since is not None and steady() < self._until)

    @property
    def pause(self) -> float:
        """Seconds between two looks that see every change of the lead in time."""
        return self._lease.total_seconds() / _TRIES

    @asynccontextmanager
    async def sought(self) -> AsyncIterator[None]:
        """Take the lead wherever it is free and keep it; give it back at the end."""
        await self._try()
        seeking = asyncio.create_task(self._seek_forever())
        try:
            yield
        finally:
            seeking.cancel()
            await asyncio.gather(seeking, return_exceptions=True)
            await self.give_back()

    async def _seek_forever(self) -> None:
        while not self._database.is_sqlite:
            await asyncio.sleep(self.pause)
            await self._try()

    async def _try(self) -> None:
        try:
            await self.seek()
        except StoreUnavailableError as error:
            log.debug("the leader is not known", error=error.message, **self._who)
        except Exception:  # the loop: the next try may go well
            log.exception("the lead could not be taken", **self._who)

    async def seek(self) -> bool:
        """Take the lead, or renew it; whether this replica leads."""
        if self._database.is_sqlite:
            return True
        begun, was_held = steady(), self.is_held
        given = self._who | {"lease": self._lease // timedelta(microseconds=1)}
        async with self._database.write(synced=False) as tx:
            self._since = (await tx.execute(_TAKE, given)).scalar_one_or_none()
        self._until = begun + self._lease.total_seconds()
        if self.is_held != was_held:
            log.info("this replica leads now" if self.is_held else "another replica leads now", **self._who)
        return self.is_held

    async def check(self, tx: AsyncConnection) -> None:
        """Raise LeaseLostError unless this replica leads until the transaction ends."""
        if self._database.is_sqlite:
            return
        if (await tx.execute(_STANDS, self._who | {"since": self._since})).first() is None:
            self._since = None
            raise LeaseLostError(f"another replica leads in {self._who['matter']} now")

    async def give_back(self) -> None:
        """Let another replica lead at once."""
        if self._since is None:
            return
        self._since = None
        with suppress(StoreUnavailableError):
            async with self._database.write(synced=False) as tx:
                await tx.execute(_GIVE_BACK, self._who)
