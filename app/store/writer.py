"""Writes an SQLite file: one transaction after the other, and one sync of the disk for many of them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from functools import partial

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from app.store.connection import AsyncConnection
from app.store.sqlite import BUSY_SECONDS, QUESTIONS, WRITING, InPlace, in_thread

_LOG_BYTES = 4 * 1024 * 1024  # of the write-ahead log; SQLite's own default
LONG_LOG_BYTES = 4 * _LOG_BYTES
_LOOK_SECONDS = 0.25
_HARMLESS = (DataError, IntegrityError, ProgrammingError)  # undo their statement and nothing else


class Writer:
    """The one connection that writes: its transactions take turns, and wait for the disk together, afterwards.

    A commit leaves the log to the system (`synchronous=NORMAL`), and whoever has to be sure waits until the disk has
    all of it. So nobody who writes stands behind somebody who waits for the disk.
    """

    def __init__(self, engine: Engine, file: str, written: asyncio.Event) -> None:
        self._engine, self._file, self._written = engine, file, written
        self._turn = asyncio.Lock()
        self._connection: InPlace | None = None  # while nobody writes
        self._disk = _Disk(file)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that others see at the end; raises what SQLAlchemy and, where it begins, the driver raise."""
        async with self._turn:
            connection = await self._take()
            try:
                await connection.begin_to_write()
                before = connection.driver.total_changes
                yield connection
                has_changed = connection.driver.total_changes != before
                connection.commit_in_place()
            except BaseException as error:
                if connection.in_transaction() and _is_harmless(error):
                    await connection.rollback()
                    self._connection = connection
                else:  # nobody knows what state it is in
                    await connection.invalidate()
                    await connection.close()
                raise
            self._connection = connection
        if has_changed:
            self._disk.is_behind = True
            self._written.set()

    async def _take(self) -> InPlace:
        connection, self._connection = self._connection, None
        if connection is None:
            connection = await InPlace.open(self._engine)
        return connection

    async def sync(self) -> None:
        """Return when the disk has what was committed before; raises sqlite3.Error."""
        await self._disk.sync()

    async def move_log_forever(self) -> None:
        """Move what was written from the log to its place in the file, beside the writers, until cancelled.

        SQLite has whoever commits do it by default, and everybody who commits after that waits for it.
        """
        while True:
            await self._written.wait()
            await asyncio.sleep(_LOOK_SECONDS)
            with suppress(FileNotFoundError, sqlite3.OperationalError):  # the disk is full, say: writers hear of that
                if self._disk.log_bytes > _LOG_BYTES:
                    await in_thread(QUESTIONS, partial(_move_log, self._file))
                if self._disk.log_bytes > LONG_LOG_BYTES:
                    async with self._turn:  # who goes on writing keeps it from ever beginning anew
                        await in_thread(WRITING, partial(_move_log, self._file))

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def _is_harmless(error: BaseException) -> bool:
    """Whether it has ended its statement and nothing else, or is not the database's at all."""
    return isinstance(error, _HARMLESS) or not isinstance(error, DBAPIError | sqlite3.Error)


class _Disk:
    """Has the disk keep the log, once for all who ask at the same time.

    To sync the log's file is what SQLite itself does for a commit with `synchronous=FULL`, through a handle of its own;
    what has left the log since was synced where it went (https://sqlite.org/wal.html#performance_considerations).
    """

    def __init__(self, file: str) -> None:
        self._file, self._log = file, f"{file}-wal"
        self.is_behind = False
        self._is_doubtful = False
        self._waiting: list[asyncio.Future[None]] = []
        self._under_way: asyncio.Future[None] | None = None

    @property
    def log_bytes(self) -> int:
        """How long the log is; raises FileNotFoundError."""
        return os.path.getsize(self._log)  # noqa: PTH202 - one look at what the system has in memory

    async def sync(self) -> None:
        """Return when what was committed before is on the disk; raises sqlite3.Error."""
        if not self.is_behind and self._under_way is None:
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(ended)
        if self._under_way is None:
            self._begin()
        await ended

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.is_behind = False
        self._under_way = asyncio.get_running_loop().run_in_executor(WRITING, self._sync)
        self._under_way.add_done_callback(partial(self._end, waiting))

    def _end(self, waiting: list[asyncio.Future[None]], work: asyncio.Future[None]) -> None:
        error = None if work.cancelled() else work.exception()
        self.is_behind = self.is_behind or work.cancelled() or error is not None
        for ended in waiting:
            if work.cancelled():
                ended.cancel()
            elif ended.done():
                continue  # nobody waits any more
            elif error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)
        self._under_way = None
        if self._waiting:
            self._begin()

    def _sync(self) -> None:
        if not self._is_doubtful:
            try:
                self._sync_log()
            except OSError:
                # The system may take for written what it could not write, so that to ask it again tells nothing.
                self._is_doubtful = True
        if self._is_doubtful:
            _move_log(self._file, "FULL")
            self._is_doubtful = False

    def _sync_log(self) -> None:
        try:
            log = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # the last connection was closed, and with that all of the log moved
        try:
            os.fdatasync(log)
        finally:
            os.close(log)


def _move_log(file: str, how: str = "PASSIVE") -> None:
    """Raises sqlite3.OperationalError, also where FULL leaves something in the log."""
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
        (is_busy, _, _) = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    if how == "FULL" and is_busy:
        raise sqlite3.OperationalError("the log could not be moved, as somebody reads what is older")
