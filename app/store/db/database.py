"""The connection to the store: SQLite (a file) or PostgreSQL, behind one small interface.

Writers get an immediate transaction, so that the rows that it reads stay true until it is committed. On SQLite one
writer at a time is the database's own rule; on PostgreSQL `lock` names the decisions that must not run beside each
other.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from pydantic_core import to_json
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidatePoolError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from app.domain.errors import CommitUnknownError, ConfigError, StoreUnavailableError, TransactionLostError
from app.store.db import sessions, sqlite
from app.store.db.connection import AsyncConnection, transaction
from app.store.db.pace import Pace, in_background
from app.store.db.url import store_url
from app.store.db.writer import LONG_LOG_BYTES, Writer

# Two transactions waited for each other and one was given up, or it could not be serialized: that is no outage.
_LOST = {"40P01", "40001"}
# The server went away, or sends the session away, which it may do after a commit.
_CUT_OFF = {"08", "57"}
# Wrong with our statement or its values; the rest (a standby that takes no writes, a damaged file) is the store's.
_OURS = (DataError, IntegrityError, ProgrammingError)
_SOON_SECONDS = 5.0  # that somebody waits who can ask again, behind others who do
_AT_ONCE = 2  # of this process: one that has a lock, and the next
_FRESH_SECONDS = 1.0  # in which a connection is trusted to live on
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
# A commit that waits for the disk, and for standbys; a standby has only what its primary has on the disk.
_FLUSH = text("SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_logical_emit_message(true, 'remediator', '') END")
log = structlog.get_logger()
_READ, _WRITE = "read", "write"
_QUESTIONS = 12  # at once; the other connections of the pool are for the engine
_FOLLOWERS = 4  # at once: they wait for the disk, and for a standby, on connections that the engine writes with


@dataclass(slots=True)
class _Ending:
    """How far a transaction has come to its end."""

    is_asked: bool = False  # the server was told to commit
    is_seen: bool = False  # others see its writes


class Database:
    """Opens transactions on the store."""

    def __init__(self, url: str, on_error: Callable[[], None] = lambda: None, audit_key: bytes = b"") -> None:
        self.url = store_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._audit_key = audit_key
        self._engine = self._make_engine()
        # On PostgreSQL whether a commit waits for the disk is up to the session; SQLite's writers share one.
        self._unsynced = self._engine if self.is_sqlite else self._make_engine(synced=False)
        # PostgreSQL gives each statement the latest state anyway: without a transaction, two messages fewer.
        self._reading = self._engine
        if not self.is_sqlite:
            self._reading = self._unsynced.execution_options(isolation_level="AUTOCOMMIT")
        self._browsing = self._reading.execution_options(**{sqlite.THREADED: True})
        # Set when a commit has changed something, and for good where other replicas do that, too.
        self.written = asyncio.Event()
        if not self.is_sqlite:
            self.written.set()
        self._writer = Writer(self._engine, str(self.url.database), self.written)
        self.pace = Pace()
        self._places = defaultdict[tuple[str, bool], asyncio.Semaphore](partial(asyncio.Semaphore, _AT_ONCE))
        self._questions = asyncio.Semaphore(_QUESTIONS)
        self._followers = asyncio.Semaphore(_FOLLOWERS)
        self._on_error = on_error
        self._failing: set[str] = set()  # out of reading and writing, the ones that failed the last time
        self._away_since = 0.0
        self._file_lock: int | None = None

    def _give_key(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        """Give the key of the hashes to `store.events`, at the place where it looks."""
        record.info["audit_key"] = self._audit_key

    def _prepare_session(self, connection: Any, _record: ConnectionPoolEntry, *, synced: bool) -> None:
        sessions.prepare(connection, self.url, synced=synced)

    def _make_engine(self, *, synced: bool = True) -> Engine:
        if self.is_sqlite:
            engine = self._make_sqlite_engine()
        else:
            engine = create_engine(
                self.url,
                pool_size=10,
                max_overflow=10,
                pool_timeout=5,
                hide_parameters=True,
                json_serializer=_json,
            )
            event.listen(engine, "connect", partial(self._prepare_session, synced=synced), insert=True)
            for used in ("connect", "checkin"):
                event.listen(engine, used, _note_use)
            event.listen(engine, "checkout", partial(_ping_after_rest, engine.dialect))
        event.listen(engine, "connect", self._give_key)
        return engine

    def _make_sqlite_engine(self) -> Engine:
        if not self.url.database or self.url.database == ":memory:":
            raise ConfigError("an SQLite store needs a file, for example sqlite:///data/remediator.db")
        engine = create_engine(
            self.url,
            pool_size=20,
            pool_timeout=5,
            hide_parameters=True,
            json_serializer=_json,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def claim_file(self) -> None:
        """SQLite only: make sure that no second process serves this file; raises ConfigError."""
        if not self.is_sqlite:
            return
        path = Path(str(self.url.database)).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file_lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another process serves {self.url.database}; several replicas need PostgreSQL (--store postgresql://…)"
            ) from error

    @asynccontextmanager
    async def write(
        self,
        lock: str | None = None,
        *,
        synced: bool = True,
        committed: asyncio.Event | None = None,
    ) -> AsyncIterator[AsyncConnection]:
        """Open a transaction and commit it at the end; raises StoreUnavailableError when the database is away or full.

        That is a CommitUnknownError where the commit may have happened or not.

        A transaction that is not `synced` may be lost with the power, though never without all later ones: use it only
        for steps that prepare a synced one and can be done again. `committed` is set as soon as others see its writes,
        which may be before the disk has them; the writes of these others reach the disk after it.
        """
        await self.pace.turn()
        ending = _Ending()
        async with self._told(ending), self._translated(_WRITE):
            if self.is_sqlite:
                async with self._writer.transaction() as connection:
                    yield connection
            else:
                async with (
                    self._place(lock),
                    transaction(self._engine if synced else self._unsynced) as connection,
                ):
                    if lock is not None:
                        await connection.execute(_LOCK, {"key": zlib.crc32(lock.encode())})
                    yield connection
                    ending.is_asked = True
            ending.is_seen = True
            if committed is not None:
                committed.set()
            if self.is_sqlite and synced:
                await self._writer.sync()
                await self.pace.turn(pauses=False)  # all callers that waited for the disk go on at once

    @asynccontextmanager
    async def _told(self, ending: _Ending) -> AsyncIterator[None]:
        """Tell a transaction that was not committed from one whose commit is unknown."""
        try:
            yield
        except TransactionLostError:
            raise
        except StoreUnavailableError as error:
            state = getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)
            is_refused = state is not None and state[:2] not in _CUT_OFF
            if ending.is_seen or (ending.is_asked and not is_refused):
                raise CommitUnknownError(f"it is not known whether this was committed: {error.message}") from error
            raise

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads: a few rows that an index finds."""
        await self.pace.turn()
        async with self._read(sqlite.InPlace if self.is_sqlite else AsyncConnection, self._reading) as connection:
            yield connection

    @asynccontextmanager
    async def browse(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for long reads, such as people's questions: nothing else waits for it."""
        async with self._questions, self._read(AsyncConnection, self._browsing) as connection:
            yield connection

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[AsyncConnection]:
        """Read answers on which a client then relies; before the end, `on_disk` sees to it that the disk has them.

        On PostgreSQL that is one transaction. A server that has crashed since cannot commit it, nor can the next one.
        """
        if self.is_sqlite:
            async with self.browse() as connection:
                yield connection
            return
        async with self._followers, self._translated(_READ), transaction(self._engine) as connection:
            yield connection

    @asynccontextmanager
    async def _read(self, kind: type[AsyncConnection], engine: Engine) -> AsyncIterator[AsyncConnection]:
        async with self._translated(_READ):
            connection = await kind.open(engine)
            try:
                yield connection
            finally:
                await connection.close()

    @asynccontextmanager
    async def _translated(self, what: str) -> AsyncIterator[None]:
        try:
            yield
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in _LOST:
                raise TransactionLostError(f"a transaction is to be run again: {_short(error)}") from error
            if isinstance(error, _OURS) and not error.connection_invalidated:
                self._on_error()
                raise
            raise self._unavailable(what, error) from error
        except (PoolTimeoutError, sqlite3.Error, OSError) as error:
            raise self._unavailable(what, error) from error
        if self._failing:
            self._worked(what)

    def _unavailable(self, what: str, error: Exception) -> StoreUnavailableError:
        """Log an outage once; callers wait meanwhile, and ask again."""
        self._on_error()
        message = f"the store is not available: {_short(error)}"
        if not self._failing:
            self._away_since = time.monotonic()
            log.warning("the store is away; everything waits for it", error=message)
        self._failing.add(what)
        return StoreUnavailableError(message)

    def _worked(self, what: str) -> None:
        """Write something: a full disk can still be read, so only a write proves that it can be written."""
        self._failing -= {_READ, what}
        if not self._failing:
            log.info("the store is back", seconds=round(time.monotonic() - self._away_since, 1))

    @asynccontextmanager
    async def _place(self, lock: str | None) -> AsyncIterator[None]:
        """Holds the callers that want the same lock: they wait without a connection, of which there are few.

        One of them waits in the server, and so has the lock at once. People's requests wait behind none of the runs
        here. Raises StoreUnavailableError.
        """
        if lock is None:
            yield
            return
        is_run = in_background()
        seconds = sessions.LOCK_SECONDS if is_run else _SOON_SECONDS
        place = self._places[lock, is_run]
        try:
            async with asyncio.timeout(seconds):
                await place.acquire()
        except TimeoutError as error:
            raise StoreUnavailableError(f"others wait for the store's lock {lock!r}, for {seconds:g} s now") from error
        try:
            yield
        finally:
            place.release()

    async def on_disk(self, tx: AsyncConnection) -> None:
        """Have the disk keep everything that this reader has seen, even if its writer did not wait for the disk.

        On PostgreSQL the disk has it when the transaction has ended.
        """
        if self.is_sqlite:
            async with self._translated(_WRITE):
                await self._writer.sync()
        else:
            await tx.execute(_FLUSH)

    async def probe(self) -> None:
        """Read something, and where writing failed write something too; raises StoreUnavailableError."""
        if _WRITE not in self._failing:
            async with self.read() as tx:
                await tx.execute(text("SELECT version_num FROM alembic_version"))
            return
        async with self.write() as tx:
            await tx.execute(text("UPDATE alembic_version SET version_num = version_num"))

    @property
    def engine(self) -> Engine:
        """For migrations."""
        return self._engine

    async def move_log_forever(self) -> None:
        """SQLite only: keep the write-ahead log short beside the writers, until cancelled."""
        if self.is_sqlite:
            await self._writer.move_log_forever()

    async def close(self) -> None:
        """Close all connections and give the file free."""
        await self._writer.close()
        for engine in (self._engine, self._unsynced):
            await greenlet_spawn(engine.dispose)
        if self._file_lock is not None:
            os.close(self._file_lock)
            self._file_lock = None


def _json(value: object) -> str:
    return to_json(value).decode()


def _short(error: Exception) -> str:
    """The driver's first line; SQLAlchemy's text would show statements and their values."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return str(original).partition("\n")[0]


def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_after_rest(dialect: Any, connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
    """Connect anew where this has died; `pool_pre_ping` would ask before each transaction, a tenth of its time."""
    if time.monotonic() - record.info["used_at"] < _FRESH_SECONDS:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError(_short(error)) from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us, not by the driver
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"its file system has no write-ahead log for SQLite (journal mode {mode!r})")
    for pragma in (
        "synchronous=NORMAL",  # `Writer.sync` waits for the disk
        "wal_autocheckpoint=0",  # `Writer.move_log_forever` does it
        "cache_spill=OFF",  # the log is written to by commits only, see `Writer`
        f"journal_size_limit={LONG_LOG_BYTES}",
        "foreign_keys=ON",
        f"busy_timeout={sqlite.BUSY_SECONDS * 1000}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    """Begin a reading transaction; the writer has begun already."""
    driver = connection.connection.driver_connection
    if not driver.in_transaction:
        driver.execute("BEGIN")  # reads nothing yet, and so takes no time
