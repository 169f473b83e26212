"""The inbox: notifications as they came, one row each, committed in groups.

An HTTP request waits for `record`; nothing here parses, matches or touches the network.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
import zstandard
from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import StoreUnavailableError
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.notify import announce
from app.store.db.rerun import rerun
from app.store.db.schema import notification

# The receiver of alerts that a look at Alertmanager's API found.
LOOKUP = "look-up at Alertmanager"
_GROUP = 256
_GATHER_SECONDS = 0.005  # present callers do not wait longer
_RECENT = 1000  # notifications; which receivers lead here changes rarely
# The alerts of a group have most of their text in common, and every byte is written three times.
_PACKER, _UNPACKER = zstandard.ZstdCompressor(level=-1), zstandard.ZstdDecompressor()
_INSERT = insert(notification)
_WAITING = (
    select(notification.c.id, notification.c.received_at, notification.c.alerts, notification.c.body)
    .where(notification.c.taken_in_at.is_(None))
    .order_by(notification.c.id)
    .limit(bindparam("most"))
)
_MARK = (
    update(notification)
    .where(notification.c.id.in_(bindparam("ids", expanding=True)))
    .values(taken_in_at=bindparam("now"), set_aside=bindparam("why"))
)
COUNT_WAITING = select(func.count()).select_from(notification).where(notification.c.taken_in_at.is_(None))
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Received:
    """A notification to be recorded."""

    received_at: datetime
    receiver: str
    group_key: str
    alerts: int
    truncated: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recorded notification that is not taken in yet; the body in its stored form, see `unpacked`."""

    id: int
    received_at: datetime
    body: bytes


class Inbox:
    """Commits the notifications of concurrent requests in one transaction (group commit)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[tuple[Received, asyncio.Future[None]]] = []
        self._filled = asyncio.Event()
        self.recorded = asyncio.Event()  # set after each commit; take-in waits for it

    async def record(self, received: Received, timeout_seconds: float) -> None:
        """Return after the commit; raises StoreUnavailableError, and then it may be recorded or not."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        entry = (received, future)
        self._queue.append(entry)
        self._filled.set()
        expires = loop.call_later(timeout_seconds, _refuse, [entry], "the store did not commit in time")
        try:
            with self._database.pace.urgent():
                await future
        except BaseException:
            with suppress(ValueError):  # no caller waits for it any more
                self._queue.remove(entry)
            raise
        finally:
            expires.cancel()

    async def commit_forever(self) -> None:
        """Write the waiting notifications, group by group, until cancelled."""
        while True:
            await self._filled.wait()
            await self._gather()
            group, self._queue = self._queue[:_GROUP], self._queue[_GROUP:]
            if not self._queue:
                self._filled.clear()
            group = [(received, future) for received, future in group if not future.done()]
            if group:
                await self._commit(group)

    async def _gather(self) -> None:
        """Wait for requests that are being read at this moment, since each commit costs as much as several rows."""
        before, until = 0, time.monotonic() + _GATHER_SECONDS
        while before < len(self._queue) < _GROUP and time.monotonic() < until:
            before = len(self._queue)
            await asyncio.sleep(0)

    async def _commit(self, group: Sequence[tuple[Received, asyncio.Future[None]]]) -> None:
        try:
            # Other replicas are not told: this one takes them in, and should it die, the others find them by looking.
            await self._write(group)
        except StoreUnavailableError as error:
            _refuse(group, error.message)
            return
        except SQLAlchemyError:
            if len(group) > 1:  # one of them cannot be stored; the others can
                for one in group:
                    await self._commit([one])
                return
            log.exception("a notification cannot be stored")
            _refuse(group, "the store cannot hold this notification")
            return
        for _, future in group:
            if not future.done():
                future.set_result(None)

    @rerun
    async def _write(self, group: Sequence[tuple[Received, asyncio.Future[None]]]) -> None:
        async with self._database.write(committed=self.recorded) as tx:
            await tx.execute(_INSERT, [_columns(tx, received) for received, _ in group])


def _refuse(group: Sequence[tuple[Received, asyncio.Future[None]]], message: str) -> None:
    for _, future in group:
        if not future.done():
            future.set_exception(StoreUnavailableError(message))


def _columns(tx: AsyncConnection, received: Received) -> dict[str, Any]:
    given = {name: getattr(received, name) for name in Received.__slots__}
    # PostgreSQL packs by itself, and a replica of the release before this one could not unpack.
    return given | ({"body": _PACKER.compress(received.body)} if tx.dialect.name == "sqlite" else {})


def unpacked(body: bytes) -> bytes:
    """A body as it came; raises ValueError when it is damaged."""
    if not body.startswith(zstandard.FRAME_HEADER):
        return body
    try:
        return _UNPACKER.decompress(body)
    except zstandard.ZstdError as error:
        raise ValueError("the packed body is damaged") from error


async def add(tx: AsyncConnection, received: Received) -> None:
    """Record a notification in the caller's transaction."""
    await tx.execute(_INSERT, [_columns(tx, received)])
    await announce(tx)


async def receivers(tx: AsyncConnection) -> list[str]:
    """The receivers that recent notifications named, as they named them."""
    recent = select(notification.c.receiver).order_by(notification.c.id.desc()).limit(_RECENT).subquery()
    query = select(recent.c.receiver).where(recent.c.receiver != LOOKUP).distinct()
    return sorted((await tx.execute(query)).scalars())


async def waiting(tx: AsyncConnection, limit: int, most_alerts: int | None = None) -> tuple[list[Waiting], bool]:
    """Return the oldest notifications that are not taken in; no more than with so many alerts, but at least one.

    Also return whether more may wait.
    """
    found: list[Waiting] = []
    alerts = 0
    for row in await tx.execute(_WAITING, {"most": limit}):
        alerts += row.alerts
        if found and most_alerts is not None and alerts > most_alerts:
            return found, True
        found.append(Waiting(row.id, row.received_at, row.body))
    return found, len(found) == limit


async def mark_taken_in(tx: AsyncConnection, ids: Sequence[int], now: datetime, set_aside: str | None = None) -> None:
    """Take notifications out of the waiting ones, for good."""
    await tx.execute(_MARK, {"ids": ids, "now": now, "why": set_aside})


async def count_waiting(tx: AsyncConnection) -> int:
    """How many notifications wait."""
    return int((await tx.execute(COUNT_WAITING)).scalar_one())
