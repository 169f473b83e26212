"""Writes an SQLite file: one transaction after the other, and one sync of the disk for many of them."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial

import structlog
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from app.store.db.connection import AsyncConnection
from app.store.db.sqlite import BUSY_SECONDS, QUESTIONS, WRITING, InPlace, in_thread

_MANY_ROWS = 300  # a megabyte or two of the write-ahead log; more at once would hold up who waits for the disk
LONG_LOG_BYTES = 16 * 1024 * 1024
_LOOK_SECONDS = 0.25
_SLOW_SECONDS = 0.02  # for a sync, which takes some milliseconds
PATIENCE_SECONDS, _PAUSE_SECONDS = 10.0, 0.25  # with a disk that refuses
log = structlog.get_logger()
_HARMLESS = (DataError, IntegrityError, ProgrammingError)  # undo their statement and nothing else


class Writer:
    """The one connection that writes: its transactions take turns, and wait for the disk together, afterwards.

    A commit leaves the log to the system (`synchronous=NORMAL`), and a caller that has to be sure waits until the disk
    has all of it. So no writer stands behind another one that waits for the disk.
    """

    def __init__(self, engine: Engine, file: str, written: asyncio.Event) -> None:
        self._engine, self._file, self._written = engine, file, written
        self._turn = asyncio.Lock()
        self._connection: InPlace | None = None  # without writers
        self._disk = _Disk(file)
        self._unmoved = 0  # rows that were written since the log was moved
        self._is_moving = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that others see at its end; raises errors of SQLAlchemy and of the driver."""
        async with self._turn:
            connection = await self._take()
            try:
                await connection.begin_to_write()
                before = connection.driver.total_changes
                yield connection
            except BaseException as error:
                if connection.in_transaction() and _is_harmless(error):
                    await connection.rollback()
                    self._connection = connection
                else:
                    await _drop(connection)
                raise
            try:
                await self._commit(connection, connection.driver.total_changes - before)
            except BaseException:
                await _drop(connection)
                raise
            self._connection = connection

    async def _commit(self, connection: InPlace, rows: int) -> None:
        """Commit in place, unless that may wait for the disk.

        SQLite waits for it where the log begins anew, which only the first commit after all of the log was moved can do
        (sqlite3WalFrames in https://sqlite.org/src/file/src/wal.c). The system makes a writer wait while the disk is
        still busy with the same page.
        """
        if not rows:
            connection.commit_in_place()
            return
        may_wait = self._is_moving or self._disk.is_moved or self._disk.is_slow
        try:
            if may_wait:
                with self._disk.written():
                    await in_thread(WRITING, connection.commit_in_place)
            else:
                connection.commit_in_place()
        finally:  # a caller that is cancelled in the thread may have committed
            self._unmoved += rows
            self._disk.is_behind = True
            self._written.set()

    async def _take(self) -> InPlace:
        connection, self._connection = self._connection, None
        if connection is None:
            connection = await InPlace.open(self._engine)
        return connection

    async def sync(self) -> None:
        """Return when the disk has all earlier commits; raises sqlite3.Error."""
        await self._disk.sync()

    async def move_log_forever(self) -> None:
        """Move pages from the log to their place in the file, beside the writers, until cancelled.

        By default SQLite does this within a commit, and all later commits wait for it.
        """
        while True:
            await self._written.wait()
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                size = self._disk.log_bytes
                if self._unmoved > _MANY_ROWS or size > LONG_LOG_BYTES:
                    self._unmoved = 0
                    await self._move(QUESTIONS)
                if size > LONG_LOG_BYTES:
                    async with self._turn:  # steady writers keep it from ever beginning again
                        await self._move(WRITING)
            except FileNotFoundError:
                continue  # there is nothing to move
            except (OSError, sqlite3.Error) as error:  # the disk is full, say: writers hear of that
                log.debug("the write-ahead log could not be moved", error=str(error))
                self._disk.doubt(error)

    async def _move(self, pool: Executor) -> None:
        self._is_moving = True
        try:
            await in_thread(pool, partial(_move_log, self._file))
        finally:
            self._is_moving, self._disk.is_moved = False, True

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _is_harmless(error: BaseException) -> bool:
    """Whether it has ended its statement and nothing else, or is not the database's at all."""
    return isinstance(error, _HARMLESS) or not isinstance(error, DBAPIError | sqlite3.Error)


async def _drop(connection: InPlace) -> None:
    """Its state is unknown."""
    await connection.invalidate()
    await connection.close()


class _Disk:
    """Makes the disk keep the log, once for all callers that ask at the same time.

    SQLite itself syncs the log's file for a commit with `synchronous=FULL`, through its own handle; pages that have
    left the log since were synced at their new place (https://sqlite.org/wal.html#performance_considerations).
    """

    def __init__(self, file: str) -> None:
        self._file, self._log = file, f"{file}-wal"
        self.is_behind = False
        self.is_moved = True  # all of the log, so that the next who writes to it may begin it anew
        self._is_doubtful = False
        self._waiting: list[asyncio.Future[None]] = []
        self._under_way: asyncio.Future[None] | None = None
        self._begun_at = math.inf  # that which is under way

    @property
    def is_slow(self) -> bool:
        """Say whether the disk takes unusually long by now."""
        return asyncio.get_running_loop().time() - self._begun_at > _SLOW_SECONDS

    @property
    def log_bytes(self) -> int:
        """How long the log is; raises FileNotFoundError."""
        return os.path.getsize(self._log)  # noqa: PTH202 - one look at what the system has in memory

    @contextmanager
    def written(self) -> Iterator[None]:
        """Run a commit, which may fail or have nothing to write: the next one has to know whether it did."""
        was_moved, self.is_moved = self.is_moved, False
        before = self._log_state()
        try:
            yield
        finally:
            if was_moved and self._log_state() == before:
                self.is_moved = True

    def _log_state(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._log)  # noqa: PTH116 - as above
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns

    async def sync(self) -> None:
        """Return when all earlier commits are on the disk; raises sqlite3.Error."""
        if not self.is_behind and self._under_way is None:
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(ended)
        if self._under_way is None:
            self._begin()
        await ended

    def doubt(self, error: Exception) -> None:
        """Another caller has heard that the disk failed, and the system tells this only once."""
        if isinstance(error, OSError) or getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
            self._is_doubtful = self.is_behind = True

    def _begin(self) -> None:
        work = asyncio.get_running_loop().run_in_executor(WRITING, self._sync)
        waiting, self._waiting = self._waiting, []
        self.is_behind = False
        self._under_way, self._begun_at = work, asyncio.get_running_loop().time()
        work.add_done_callback(partial(self._end, waiting))

    def _end(self, waiting: list[asyncio.Future[None]], work: asyncio.Future[None]) -> None:
        error = None if work.cancelled() else work.exception()
        self.is_behind = self.is_behind or work.cancelled() or error is not None
        for ended in waiting:
            if work.cancelled():
                ended.cancel()
            elif ended.done():
                continue  # no caller waits any more
            elif error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)
        self._under_way, self._begun_at = None, math.inf
        if self._waiting:
            self._begin()

    def _sync(self) -> None:
        """Try for long: others already see the written data, and its writer would write it again."""
        for attempt in Retrying(
            retry=retry_if_exception_type((OSError, sqlite3.Error)),
            wait=wait_fixed(_PAUSE_SECONDS),
            stop=stop_after_delay(PATIENCE_SECONDS),
            reraise=True,
        ):
            with attempt:
                self._sync_once()

    def _sync_once(self) -> None:
        if was_doubtful := self._is_doubtful:  # what the disk may lack is written anew, and no log left that lacks it
            _move_log(self._file, "TRUNCATE")
            self.is_moved = True
        try:
            self._sync_log()
        except OSError:
            # The system may take failed pages for written, so asking it again tells nothing.
            self._is_doubtful = True
            raise
        if was_doubtful:
            self._is_doubtful = False

    def _sync_log(self) -> None:
        try:
            handle = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # the last connection was closed, and with that all of the log moved
        try:
            os.fdatasync(handle)
        finally:
            os.close(handle)


def _move_log(file: str, how: str = "PASSIVE") -> None:
    """Raises sqlite3.Error, also where TRUNCATE leaves something in the log."""
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
        (is_busy, _, _) = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    if how == "TRUNCATE" and is_busy:
        raise sqlite3.OperationalError("the log could not be moved, because a reader still needs older data")
