"""SQLite without a thread for each statement: those of the engine take microseconds, a thread and back ten times that.

What may take long goes to a thread all the same: to wait for another process that writes, a commit that waits for the
disk, and statements with the execution option `threaded`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util import await_only

DRIVER = "sqlite+inline"
THREADED = "threaded"  # the execution option
BEGIN = "BEGIN IMMEDIATE"
# Nobody who writes may have to wait for what people ask, or for what other parts of the process do in threads.
_COMMITS = ThreadPoolExecutor(2, "commit")
_QUESTIONS = ThreadPoolExecutor(4, "question")
BUSY_SECONDS = 5  # that another process may hold up a writer
_PAGES = 16_000  # of the log
_LOG_BYTES = 4 * 1024 * 1024  # of the write-ahead log; SQLite's own default
_LOOK_SECONDS = 0.25
T = TypeVar("T")
registry.register("sqlite.inline", __name__, "Dialect")


class _Cursor(sqlite3.Cursor):
    """A cursor that may hold its rows already, since to read them is to work on the query."""

    _rows: list[Any] | None = None

    def execute_at_once(self, sql: str, parameters: Any) -> None:
        """Execute, and read all rows; to be called in a thread."""
        self.execute(sql, parameters)
        self._rows = super().fetchall() if self.description else None

    def fetchone(self) -> Any:
        """The next row, or None."""
        if self._rows is None:
            return super().fetchone()
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        """The next rows."""
        if self._rows is None:
            return super().fetchmany(size)
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        if self._rows is None:
            return super().fetchall()
        taken, self._rows = self._rows, []
        return taken

    async def _async_soft_close(self) -> None:
        """SQLAlchemy's, for cursors that hold on to something on a server."""


class _Connection(sqlite3.Connection):
    synced: bool | None = None  # whether its commits wait for the disk

    def cursor(self, factory: Any = _Cursor) -> Any:
        """A cursor of ours."""
        return super().cursor(factory)

    def begin(self, *, synced: bool) -> bool:
        """Begin to write; False when somebody else does, and then `wait` is to be called in a thread."""
        if synced is not self.synced:
            self.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            # The log has another to move it; should that be too slow, a commit that is in a thread anyway does it.
            self.execute(f"PRAGMA wal_autocheckpoint={_PAGES if synced else 0}")
            self.synced = synced
        self.execute("PRAGMA busy_timeout=0")
        try:
            self.execute(BEGIN)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        finally:
            self.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        return True


class _Compiler(SQLiteCompiler):
    def visit_is_true_unary_operator(self, element: Any, operator: Any, **kw: Any) -> str:  # noqa: ARG002 - SQLAlchemy's
        """`active`, not `active = 1`: a partial index serves only those conditions that it was made with."""
        return self.process(element.element, **kw)


class Dialect(SQLiteDialect_pysqlite):
    """What SQLAlchemy's own drivers do, for an AsyncEngine; it insists that something is awaited for each statement."""

    is_async = True
    statement_compiler = _Compiler
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:  # noqa: ARG003 - SQLAlchemy's
        """The pool of an AsyncEngine."""
        return AsyncAdaptedQueuePool

    def create_connect_args(self, url: URL) -> Any:
        """With connections that any thread may use, one at a time."""
        arguments, options = super().create_connect_args(url)
        return arguments, {**options, "check_same_thread": False, "factory": _Connection}

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Run a statement."""
        if context is not None and context.execution_options.get(THREADED, False):
            pool = _COMMITS if statement == BEGIN else _QUESTIONS
            run = partial(cursor.execute_at_once, statement, parameters)
            await_only(_in_thread(pool, run, cursor.connection.interrupt))
            return
        cursor.execute(statement, parameters)
        await_only(_nothing())

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:  # noqa: ARG002 - SQLAlchemy's
        """Run a statement for each of these rows."""
        cursor.executemany(statement, parameters)
        await_only(_nothing())

    def do_commit(self, dbapi_connection: Any) -> None:
        """Write, and wait for the disk where that was asked for."""
        if dbapi_connection.synced is False:
            dbapi_connection.commit()
            await_only(_nothing())
        else:
            await_only(_in_thread(_COMMITS, dbapi_connection.commit))


async def move_log_forever(file: str, written: asyncio.Event) -> None:
    """Move what was written from the log to its place in the file, beside the writers, until cancelled.

    SQLite has whoever commits do it by default, and everybody who commits after that waits for it.
    """
    log = f"{file}-wal"
    while True:
        await written.wait()
        await asyncio.sleep(_LOOK_SECONDS)
        with suppress(FileNotFoundError, sqlite3.OperationalError):  # the disk is full, say: writers hear of that too
            if os.path.getsize(log) > _LOG_BYTES:  # noqa: ASYNC240, PTH202 - one look at what the system has in memory
                await _in_thread(_QUESTIONS, partial(_move_log, file))


def _move_log(file: str) -> None:
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


async def _nothing() -> None:
    pass


async def _in_thread(pool: Executor, call: Callable[[], T], interrupt: Callable[[], None] = lambda: None) -> T:
    """Call in a thread; who is cancelled leaves when the thread is done, since nobody may use the connection before."""
    work = asyncio.get_running_loop().run_in_executor(pool, call)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
            interrupt()
    if cancelled is not None:
        with suppress(sqlite3.Error):
            work.result()
        raise cancelled
    return work.result()
