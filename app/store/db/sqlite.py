"""SQLite without a thread for each statement: one takes microseconds, the way to a thread and back ten times that.

Long work goes to a thread all the same: statements with the execution option `threaded` here, and the waits of
`app.store.db.writer`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar, cast

from sqlalchemy import CursorResult, Executable
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util import await_only

from app.store.db.connection import AsyncConnection

DRIVER = "sqlite+inline"
THREADED = "threaded"  # the execution option
# Writers must not wait for people's questions, or for other parts of the process in threads.
WRITING = ThreadPoolExecutor(2, "writing")
QUESTIONS = ThreadPoolExecutor(4, "question")
BUSY_SECONDS = 5  # that another process may hold up a writer
_AGAIN_SECONDS = 0.1
T = TypeVar("T")
registry.register("sqlite.inline", __name__, "Dialect")


class _Cursor(sqlite3.Cursor):
    """A cursor that may hold its rows already, since to read them is to work on the query."""

    _rows: Iterator[Any] | None = None

    def execute_at_once(self, sql: str, parameters: Any) -> None:
        """Execute, and read all rows; to be called in a thread."""
        self.execute(sql, parameters)
        self._rows = iter(super().fetchall()) if self.description else None

    def fetchone(self) -> Any:
        """The next row, or None."""
        if self._rows is None:
            return super().fetchone()
        return next(self._rows, None)

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        """The next rows."""
        if self._rows is None:
            return super().fetchmany(size)
        return list(islice(self._rows, size))

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        if self._rows is None:
            return super().fetchall()
        return list(self._rows)


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        """A cursor of ours."""
        return super().cursor(factory)

    def begin_at_once(self) -> bool:
        """Begin to write; False when another process does."""
        self.execute("PRAGMA busy_timeout=0")
        try:
            self.begin()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        finally:
            self.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        return True

    def begin(self) -> None:
        """Begin to write, after others; to be called in a thread."""
        self.execute("BEGIN IMMEDIATE")


class _Compiler(SQLiteCompiler):
    def visit_is_true_unary_operator(self, element: Any, operator: Any, **kw: Any) -> str:  # noqa: ARG002 - SQLAlchemy's
        """`active`, not `active = 1`: a partial index serves only those conditions that it was made with."""
        return self.process(element.element, **kw)

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """`INDEXED BY`, which SQLAlchemy leaves out."""
        return text


class Dialect(SQLiteDialect_pysqlite):
    """The work of SQLAlchemy's own driver, for an `AsyncConnection`."""

    is_async = True
    statement_compiler = _Compiler
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:  # noqa: ARG003 - SQLAlchemy's
        """One that waits without a thread."""
        return AsyncAdaptedQueuePool

    def create_connect_args(self, url: URL) -> Any:
        """With connections that any thread may use, one at a time."""
        arguments, options = super().create_connect_args(url)
        return arguments, {**options, "check_same_thread": False, "factory": _Connection}

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Run a statement."""
        if context is not None and context.execution_options.get(THREADED, False):
            run = partial(cursor.execute_at_once, statement, parameters)
            await_only(in_thread(QUESTIONS, run, cursor.connection.interrupt))
        else:
            cursor.execute(statement, parameters)


class InPlace(AsyncConnection):
    """One that runs statements where they are called: none of them waits."""

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement."""
        return self._connection.execute(statement, parameters)

    @property
    def driver(self) -> _Connection:
        """The connection of SQLite's own driver."""
        return cast("_Connection", self._connection.connection.driver_connection)

    async def begin_to_write(self) -> None:
        """Begin a transaction, after a transaction of another process; raises sqlite3.Error."""
        if not self.driver.begin_at_once():
            await in_thread(WRITING, self.driver.begin, self.driver.interrupt)
        self._connection.begin()

    def commit_in_place(self) -> None:
        """Commit, which waits for the disk only where it begins the log anew."""
        self._connection.commit()


async def in_thread(pool: Executor, call: Callable[[], T], interrupt: Callable[[], None] = lambda: None) -> T:
    """Call in a thread; a cancelled caller leaves when the thread is done, since it uses the connection."""
    job = pool.submit(call)
    work = asyncio.wrap_future(job)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work], timeout=None if cancelled is None else _AGAIN_SECONDS)
        except asyncio.CancelledError as error:
            cancelled = error
        if cancelled is not None and not job.cancel():  # it may have begun so recently that there is nothing to stop
            interrupt()
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # no caller is left to hear of it
        raise cancelled
    return work.result()
