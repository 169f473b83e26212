"""Lets transactions that come at the same time share one commit, as what a disk is slow at is to be sure.

What fails in one of them is undone alone, and each returns when all of them are committed. For SQLite only, where
writers wait for each other anyway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_MOST = 16  # that share a commit
_LONGEST_SECONDS = 0.02  # after which the next one has to begin another
_HARMLESS = (DataError, IntegrityError, ProgrammingError)  # undo their statement and nothing else


@dataclass
class _Open:
    """A transaction that is not committed yet."""

    connection: AsyncConnection
    synced: bool  # its commit waits for the disk
    ended: asyncio.Future[None]  # when it is committed; fails with what went wrong for all of them
    begun: float = field(default_factory=time.monotonic)
    members: int = 0
    written: int = 0

    @property
    def is_full(self) -> bool:
        return self.members >= _MOST or time.monotonic() - self.begun > _LONGEST_SECONDS


class GroupCommit:
    """The writers of one database file."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._lock, self._queue = asyncio.Lock(), asyncio.Lock()
        self._waiting: dict[bool, int] = {True: 0, False: 0}  # by whether their commit waits for the disk
        self._open: _Open | None = None
        self._works: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def transaction(self, *, synced: bool, urgent: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed at the end; raises what the database raises.

        One that is not synced is on the disk when the next synced one is. One that is urgent waits for the writer of
        this moment and for no other, and is committed at once.
        """
        await self._enter(synced=synced, urgent=urgent)
        group: _Open | None = None
        try:
            if self._open is not None and synced and not self._open.synced:
                await self._commit(self._open)
            group = self._open = self._open or await self._begin(synced=synced or self._waiting[True] > 0)
            async with self._member(group) as connection:
                yield connection
        finally:
            try:
                nobody_waits = sum(self._waiting.values()) == 0
                if self._open is not None and (urgent or nobody_waits or self._open.is_full):
                    await self._commit(self._open)
            finally:
                self._lock.release()
        await asyncio.shield(group.ended)

    async def _enter(self, *, synced: bool, urgent: bool) -> None:
        self._waiting[synced] += 1
        try:
            if urgent:
                await self._lock.acquire()
            else:
                async with self._queue:  # so that only the first of them stands in the way of what is urgent
                    await self._lock.acquire()
        except asyncio.CancelledError:
            # Whoever left the commit to us must not wait for it for ever.
            flush = asyncio.create_task(self._flush())
            self._works.add(flush)
            flush.add_done_callback(self._works.discard)
            raise
        finally:
            self._waiting[synced] -= 1

    async def _flush(self) -> None:
        async with self._lock:
            if self._open is not None and sum(self._waiting.values()) == 0:
                await self._commit(self._open)

    async def _begin(self, *, synced: bool) -> _Open:
        connection = await (await self._engine.connect()).execution_options(immediate=True, synced=synced)
        try:
            await connection.begin()
        except BaseException:
            await connection.close()
            raise
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended.add_done_callback(_looked_at)
        return _Open(connection, synced, ended)

    @asynccontextmanager
    async def _member(self, group: _Open) -> AsyncIterator[AsyncConnection]:
        """What goes wrong within is undone alone; what may have ended the transaction ends it for all."""
        connection, is_first = group.connection, group.written == 0
        group.members += 1
        if not is_first:
            async with self._failing_all(group):
                await connection.exec_driver_sql("SAVEPOINT member")
        try:
            yield connection
        except BaseException as error:
            async with self._failing_all(group):
                if is_first or _may_have_ended(connection, error):
                    raise
                await connection.exec_driver_sql("ROLLBACK TO member")
                await connection.exec_driver_sql("RELEASE member")
            raise
        if not is_first:
            async with self._failing_all(group):
                await connection.exec_driver_sql("RELEASE member")
        group.written += 1

    @asynccontextmanager
    async def _failing_all(self, group: _Open) -> AsyncIterator[None]:
        """Nothing of a transaction is kept when this goes wrong; everybody who waits for its commit hears why."""
        try:
            yield
        except BaseException as error:
            if self._open is group:
                self._open = None
            if not group.ended.done():
                interrupted = OperationalError(None, None, InterruptedError("interrupted"))
                group.ended.set_exception(error if isinstance(error, Exception) else interrupted)
            with suppress(DBAPIError):
                await group.connection.invalidate()  # nobody knows what state it is in
                await group.connection.close()
            raise

    async def _commit(self, group: _Open) -> None:
        """To its end, also when who began it is cancelled: the others wait for it."""
        self._open = None
        work = asyncio.create_task(self._commit_to_the_end(group))
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        await asyncio.shield(work)

    async def _commit_to_the_end(self, group: _Open) -> None:
        with suppress(Exception):  # everybody who has written hears of it
            async with self._failing_all(group):
                await group.connection.commit()
                await group.connection.close()
            group.ended.set_result(None)


def _may_have_ended(connection: AsyncConnection, error: BaseException) -> bool:
    """Whether the whole transaction may be gone: SQLite ends it by itself when the disk is full, for one."""
    if connection.closed or connection.invalidated:
        return True
    return isinstance(error, DBAPIError) and not isinstance(error, _HARMLESS)


def _looked_at(ended: asyncio.Future[None]) -> None:
    """Who failed has its own error already: nobody may be left to wait for this one."""
    if not ended.cancelled():
        ended.exception()
