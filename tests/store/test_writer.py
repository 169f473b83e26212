"""Writers of an SQLite file: each undone alone, and nobody returns before the disk has what must be there."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, event, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError

from app.domain.errors import StoreUnavailableError
from app.store.db import writer
from app.store.db.database import Database
from app.store.db.pace import work_in_background
from app.store.db.schema import breaker, run
from app.store.db.sqlite import QUESTIONS, InPlace, in_thread
from app.store.db.writer import LONG_LOG_BYTES
from tests.support.ledger import opened
from tests.support.pacing import work

WAIT = 10


def _in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run_it(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run_it


@asynccontextmanager
async def _store(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(f"sqlite:///{tmp_path / 'store.db'}") as database:
        yield database


async def _write(
    database: Database,
    name: str,
    *,
    fails: bool = False,
    synced: bool = True,
    committed: asyncio.Event | None = None,
) -> None:
    async with database.write(synced=synced, committed=committed) as tx:
        await tx.execute(insert(breaker).values(remediation=name, failures=1))
        if fails:
            raise ValueError(name)


async def _names(database: Database) -> set[str]:
    async with database.read() as tx:
        return set((await tx.execute(select(breaker.c.remediation))).scalars())


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """What waits for the disk."""
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk)
    return disk


@pytest.fixture
def committers(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Grows by the thread of each commit."""
    threads: list[threading.Thread] = []
    plain = InPlace.commit_in_place

    def commit(connection: InPlace) -> None:
        threads.append(threading.current_thread())
        plain(connection)

    monkeypatch.setattr(InPlace, "commit_in_place", commit)
    return threads


class Disk:
    """Counts the syncs and does them, as soon as it is `free`; with an `error` it fails instead."""

    def __init__(self) -> None:
        self.syncs = 0
        self.error: OSError | None = None
        self.free = threading.Event()
        self.free.set()
        self._sync = os.fdatasync

    def doubt(self, database: Database, error: Exception) -> None:
        """As whoever moves the log does."""
        database._writer._disk.doubt(error)

    async def begins(self, times: int = 1) -> None:
        """Wait until it was asked so often."""
        while self.syncs < times:
            await asyncio.sleep(0.001)

    def __call__(self, handle: int) -> None:
        """Sync a file."""
        self.syncs += 1
        assert self.free.wait(WAIT)
        if self.error is not None:
            raise self.error
        self._sync(handle)


@_in_a_loop
async def test_only_who_asks_waits_for_the_disk(tmp_path: Path, disk: Disk) -> None:
    """And nobody who writes stands behind who does; what was committed before is on the disk with it."""
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        disk.syncs = 0
        await _write(database, "a", synced=False)
        assert 0 == disk.syncs
        disk.free.clear()
        seen = asyncio.Event()
        waits = asyncio.create_task(_write(database, "b", committed=seen))
        await seen.wait()
        await _write(database, "c", synced=False)
        assert {"a", "b", "c"} == await _names(database)
        assert not waits.done()
        disk.free.set()
        await waits
        assert 1 == disk.syncs


@_in_a_loop
async def test_those_that_come_while_the_disk_works_wait_for_it_together(tmp_path: Path, disk: Disk) -> None:
    """Once more: what is under way may have begun before their rows were there."""
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        disk.syncs = 0
        disk.free.clear()
        first = asyncio.create_task(_write(database, "a"))
        await disk.begins()
        seen = [asyncio.Event() for _ in range(20)]
        others = [asyncio.create_task(_write(database, f"r{n}", committed=one)) for n, one in enumerate(seen)]
        for one in seen:
            await one.wait()
        disk.free.set()
        await asyncio.gather(first, *others)
        assert 2 == disk.syncs


@_in_a_loop
async def test_what_did_not_change_anything_does_not_wait(tmp_path: Path, disk: Disk) -> None:
    """The disk has it all."""
    async with _store(tmp_path) as database:
        await _write(database, "a")
        disk.syncs = 0
        async with database.write() as tx:
            assert {"a"} == set((await tx.execute(select(breaker.c.remediation))).scalars())
        assert 0 == disk.syncs


@_in_a_loop
async def test_what_a_disk_refused_is_written_elsewhere(
    tmp_path: Path, disk: Disk, committers: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system may take pages for written that it could not write: to sync them again would tell nothing."""
    monkeypatch.setattr(writer, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(writer, "PATIENCE_SECONDS", 0.1)
    async with _store(tmp_path) as database:
        await _write(database, "a")
        disk.error, disk.syncs = OSError(errno.EIO, "Input/output error"), 0
        async with database.read() as tx:  # the log has to be kept for it
            assert 1 == len((await tx.execute(select(breaker))).all())
            for name in "bc":
                with pytest.raises(StoreUnavailableError, match="could not be moved"):
                    await _write(database, name)
        disk.error = None
        await _write(database, "d")
        assert 2 == disk.syncs
        assert 0 == (tmp_path / "store.db-wal").stat().st_size  # what it lacks on the disk cannot be played back
        shutil.copy(tmp_path / "store.db", tmp_path / "without the log.db")
        with closing(sqlite3.connect(tmp_path / "without the log.db")) as copy:
            kept = {name for (name,) in copy.execute("SELECT remediation FROM breaker")}
        assert {"a", "b", "c", "d"} == kept
        await _write(database, "e")
        assert 3 == disk.syncs
        assert threading.main_thread() is not committers[-1]  # the log began anew


@_in_a_loop
async def test_a_disk_that_recovers_is_waited_for(tmp_path: Path, disk: Disk) -> None:
    """Others see the row already: to fail would have it written again."""
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        disk.error, disk.syncs = OSError(errno.EIO, "Input/output error"), 0
        waits = asyncio.create_task(_write(database, "a"))
        await disk.begins(2)
        assert not waits.done()
        disk.error = None
        await waits
        assert {"a"} == await _names(database)


@_in_a_loop
async def test_an_error_that_somebody_else_has_heard_is_not_forgotten(tmp_path: Path, disk: Disk) -> None:
    """The system tells of a failed write once, and that may be to whoever moves the log."""
    async with _store(tmp_path) as database:
        await _write(database, "a")
        log = tmp_path / "store.db-wal"
        assert log.stat().st_size > 0
        heard = sqlite3.OperationalError("disk I/O error")
        heard.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        disk.doubt(database, heard)
        await _write(database, "b")
        assert 0 == log.stat().st_size


@_in_a_loop
async def test_the_log_stays_short_while_somebody_writes_all_the_time(tmp_path: Path) -> None:
    """Who writes is asked to wait for a moment where it would never begin anew."""
    log, size = tmp_path / "store.db-wal", 100_000
    async with _store(tmp_path) as database, asyncio.timeout(6 * WAIT):
        moves = asyncio.create_task(database.move_log_forever())
        written = longest = 0
        while written < 5 * LONG_LOG_BYTES:
            async with database.write(synced=False) as tx:
                await tx.execute(insert(breaker).values(remediation=f"{written:0{size}}", failures=1))
            written += size
            longest = max(longest, log.stat().st_size)
            await asyncio.sleep(0.005)  # what is written is some 250 MB of log
        moves.cancel()
        assert longest < 4 * LONG_LOG_BYTES
        async with asyncio.timeout(WAIT):
            await _write(database, "last")


@_in_a_loop
async def test_the_loop_never_waits_for_a_log_that_begins_anew(
    tmp_path: Path, committers: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has the disk keep the first page of it at once, which may take seconds."""
    monkeypatch.setattr(writer, "_MANY_ROWS", 20)
    monkeypatch.setattr(writer, "_LOOK_SECONDS", 0.01)
    anew: list[threading.Thread] = []
    async with _store(tmp_path) as database, asyncio.timeout(6 * WAIT):
        before, number = _beginning_of_the_log(tmp_path), 0
        moves = asyncio.create_task(database.move_log_forever())
        while len(anew) < 5:
            await _write(database, str(number), synced=False)
            beginning = _beginning_of_the_log(tmp_path)
            if beginning != before:
                anew.append(committers[-1])
            before, number = beginning, number + 1
            await asyncio.sleep(0.001)
        moves.cancel()
    assert threading.main_thread() not in anew
    assert threading.main_thread() in committers  # as most are: they take microseconds


@_in_a_loop
async def test_the_loop_never_waits_for_a_disk_that_is_slow(
    tmp_path: Path, disk: Disk, committers: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has whoever writes wait for the page that the disk is still busy with."""
    monkeypatch.setattr(writer, "_SLOW_SECONDS", 0.0)
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        disk.syncs = 0
        disk.free.clear()
        waits = asyncio.create_task(_write(database, "a"))
        await disk.begins()
        await _write(database, "b", synced=False)
        assert threading.main_thread() is not committers[-1]
        disk.free.set()
        await waits
        await _write(database, "c", synced=False)
        assert threading.main_thread() is committers[-1]


@_in_a_loop
async def test_the_loop_never_waits_for_a_log_that_is_being_moved(
    tmp_path: Path, committers: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether all of it will have been is known at the end only."""
    begun, goes_on = threading.Event(), threading.Event()

    def move(_file: str) -> None:
        begun.set()
        assert goes_on.wait(WAIT)

    monkeypatch.setattr(writer, "_move_log", move)
    monkeypatch.setattr(writer, "_MANY_ROWS", 0)
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        await _write(database, "a")
        moves = asyncio.create_task(database.move_log_forever())
        await asyncio.to_thread(begun.wait, WAIT)
        for name in "bc":
            await _write(database, name)
            assert threading.main_thread() is not committers[-1]
        goes_on.set()
        moves.cancel()


@_in_a_loop
async def test_nothing_is_written_to_the_log_before_a_commit(tmp_path: Path) -> None:
    """However much it is: SQLite would write what does not fit into its cache, and might begin the log anew with it."""
    log, size = tmp_path / "store.db-wal", 100_000
    async with _store(tmp_path) as database:
        before = log.stat().st_size
        async with database.write() as tx:
            for number in range(50):
                await tx.execute(insert(breaker).values(remediation=f"{number:0{size}}", failures=1))
            assert before == log.stat().st_size
        assert log.stat().st_size > before + 50 * size


@pytest.mark.parametrize("what", ["the same", "refused"])
@_in_a_loop
async def test_a_commit_that_writes_nothing_leaves_the_beginning_to_the_next(
    tmp_path: Path, committers: list[threading.Thread], what: str
) -> None:
    """SQLite writes no row that is as it was."""

    def refuse(_connection: object) -> None:
        raise OperationalError(None, None, sqlite3.OperationalError("database or disk is full"))

    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        await _write(database, "a")
        await _write(database, "b")
        assert threading.main_thread() is committers[-1]
        another = sqlite3.connect(tmp_path / "store.db")  # with the last connection the log would go
        another.execute("SELECT 1 FROM breaker").fetchall()
        _move(database)
        before = _beginning_of_the_log(tmp_path)
        if what == "refused":
            event.listen(database.engine, "commit", refuse)
            with pytest.raises(StoreUnavailableError):
                await _write(database, "c")
            event.remove(database.engine, "commit", refuse)
        else:
            async with database.write() as tx:
                await tx.execute(update(breaker).values(failures=1))
        assert before == _beginning_of_the_log(tmp_path)
        for _ in range(2):
            await _write(database, f"d{len(committers)}")
        assert before != _beginning_of_the_log(tmp_path)
        assert [False, False, True] == [one is threading.main_thread() for one in committers[-3:]]
        another.close()


def _move(database: Database) -> None:
    writer._move_log(str(database.url.database))
    database._writer._disk.is_moved = True


def _beginning_of_the_log(home: Path) -> bytes:
    """It has random numbers, new ones each time that it begins (https://sqlite.org/fileformat2.html#walformat)."""
    with (home / "store.db-wal").open("rb") as log:
        return log.read(32)


@_in_a_loop
async def test_who_is_cancelled_while_the_log_begins_anew_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is there, whoever waits for changes hears of it, and the next one writes."""
    begun, goes_on, plain = threading.Event(), threading.Event(), InPlace.commit_in_place

    def commit(connection: InPlace) -> None:
        begun.set()
        assert goes_on.wait(WAIT)
        plain(connection)

    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        monkeypatch.setattr(InPlace, "commit_in_place", commit)
        _move(database)
        database.written.clear()
        waits = asyncio.create_task(_write(database, "a"))
        await asyncio.to_thread(begun.wait, WAIT)
        waits.cancel()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert database.written.is_set()
        await _write(database, "b")
        assert {"a", "b"} == await _names(database)


@pytest.mark.parametrize("place", [0, 3, 9])
@_in_a_loop
async def test_what_fails_is_undone_alone(tmp_path: Path, place: int) -> None:
    """Whichever of those that come together it is."""
    async with _store(tmp_path) as database:
        done = await asyncio.gather(
            *(_write(database, f"r{number}", fails=number == place) for number in range(10)), return_exceptions=True
        )
        assert [place] == [number for number, one in enumerate(done) if isinstance(one, ValueError)]
        assert {f"r{number}" for number in range(10) if number != place} == await _names(database)


@_in_a_loop
async def test_a_refused_row_is_undone_alone(tmp_path: Path) -> None:
    """The database's own refusal, not ours."""
    async with _store(tmp_path) as database:
        await _write(database, "taken")
        done = await asyncio.gather(*(_write(database, name) for name in ("a", "taken", "b")), return_exceptions=True)
        assert isinstance(done[1], IntegrityError)
        assert {"taken", "a", "b"} == await _names(database)


@_in_a_loop
async def test_a_commit_that_fails_fails_for_all(tmp_path: Path) -> None:
    """Nobody is told that something was kept which was not; the next ones go on."""
    async with _store(tmp_path) as database:

        def refuse(_connection: object) -> None:
            raise OperationalError(None, None, sqlite3.OperationalError("database or disk is full"))

        event.listen(database.engine, "commit", refuse)
        done = await asyncio.gather(*(_write(database, f"r{number}") for number in range(5)), return_exceptions=True)
        event.remove(database.engine, "commit", refuse)
        assert all(isinstance(one, StoreUnavailableError) for one in done), done
        assert set() == await _names(database)
        await _write(database, "afterwards")
        assert {"afterwards"} == await _names(database)


@_in_a_loop
async def test_who_waits_and_is_cancelled_leaves_nobody_behind(tmp_path: Path) -> None:
    """The one before left the commit to who comes next, and that one never does."""
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with database.write() as tx:
                await tx.execute(insert(breaker).values(remediation="first", failures=1))
                inside.set()
                await go_on.wait()

        holder = asyncio.create_task(first())
        await inside.wait()
        waiter = asyncio.create_task(_write(database, "second"))
        await asyncio.sleep(0)
        go_on.set()
        waiter.cancel()
        await holder
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert {"first"} == await _names(database)


@_in_a_loop
async def test_who_is_cancelled_within_takes_back_only_its_own(tmp_path: Path) -> None:
    """The others' rows are committed."""
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        inside = asyncio.Event()

        async def stuck() -> None:
            async with database.write() as tx:
                await tx.execute(insert(breaker).values(remediation="stuck", failures=1))
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(stuck())
        await inside.wait()
        others = [asyncio.create_task(_write(database, f"r{number}")) for number in range(3)]
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(*others)
        assert {"r0", "r1", "r2"} == await _names(database)


@_in_a_loop
async def test_another_process_that_writes_is_waited_for(tmp_path: Path) -> None:
    """In a thread: everything else goes on meanwhile."""
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        with sqlite3.connect(tmp_path / "store.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(_write(database, "late"))
            for _ in range(20):
                assert set() == await _names(database)
            assert not writing.done()
            other.execute("ROLLBACK")
        await writing
        assert {"late"} == await _names(database)


@_in_a_loop
async def test_who_gives_up_waiting_for_another_process_has_begun_nothing(tmp_path: Path) -> None:
    """Neither this process nor another one would ever write again."""
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(_write(database, "given up"))
            for _ in range(20):
                assert set() == await _names(database)
            writing.cancel()
            other.execute("ROLLBACK")
            with pytest.raises(asyncio.CancelledError):
                await writing
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
            await _write(database, "afterwards")
        assert {"afterwards"} == await _names(database)


@_in_a_loop
async def test_what_was_read_in_a_thread_is_given_out_in_any_pieces(tmp_path: Path) -> None:
    """Each row once and in its order, like rows that are read in place."""
    numbers = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n")
    async with _store(tmp_path) as database, database.browse() as threaded, database.read() as in_place:
        for tx in (threaded, in_place):
            found = (await tx.execute(numbers)).scalars()
            pieces = [found.fetchmany(2), next(found), found.fetchmany(3), list(found), found.fetchmany(2)]
            assert [[1, 2], 3, [4, 5, 6], [7, 8, 9], []] == pieces
            assert [*range(1, 10)] == [row.i for row in await tx.execute(numbers)]


@_in_a_loop
async def test_a_long_question_can_be_given_up(tmp_path: Path) -> None:
    """What runs in a thread is interrupted, and its connection serves others afterwards."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), database.browse() as tx:
                await tx.execute(text(endless))
        assert set() == await _names(database)


@_in_a_loop
async def test_a_question_that_has_no_thread_yet_can_be_given_up(tmp_path: Path) -> None:
    """Four others have them all; and the engine has its connections however many wait."""
    endless = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")

    async def ask(database: Database) -> None:
        async with database.browse() as tx:
            await tx.execute(endless)

    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        busy = [asyncio.create_task(ask(database)) for _ in range(40)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask(database)
        assert set() == await _names(database)
        await _write(database, "a")
        for one in busy:
            one.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        async with database.browse() as tx:
            assert {"a"} == set((await tx.execute(select(breaker.c.remediation))).scalars())


@_in_a_loop
async def test_who_is_cancelled_is_cancelled_whatever_the_thread_ends_with(tmp_path: Path) -> None:
    """A loop that goes on after a failure would never end otherwise."""
    going_on = threading.Event()

    def fail() -> None:
        going_on.wait(WAIT)
        raise FileNotFoundError(tmp_path)

    waiting = asyncio.create_task(in_thread(QUESTIONS, fail))
    await asyncio.sleep(0)
    waiting.cancel()
    going_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize(
    ("condition", "index"), [(run.c.active, "ix_run_due"), (run.c.holds_target, "uq_run_holds_target")]
)
@_in_a_loop
async def test_conditions_are_written_as_the_partial_indexes_are(
    tmp_path: Path, condition: ColumnElement[bool], index: str
) -> None:
    """As `active = 1` none of them would serve, and every look would read the whole audit."""
    async with _store(tmp_path) as database, database.read() as tx:
        ours = str(select(run.c.not_before).where(condition).compile(database.engine))
        plan = (await tx.execute(text(f"EXPLAIN QUERY PLAN {ours}"))).all()
        assert any(index in row[3] for row in plan), plan


@pytest.mark.usefixtures("worked")
@_in_a_loop
async def test_those_who_waited_for_the_disk_go_on_one_after_the_other(tmp_path: Path, disk: Disk) -> None:
    """Thirty runs that wait for the same sync have something to do when it ends; the loop looks in between."""
    looks, seen = 0, []

    async def go_on(database: Database, name: str) -> None:
        work_in_background()
        await _write(database, name)
        seen.append(looks)
        work(0.005)

    async with _store(tmp_path) as database:
        disk.free.clear()
        workers = [asyncio.create_task(go_on(database, f"poke-{number}")) for number in range(10)]
        while len(await _names(database)) < len(workers):
            await asyncio.sleep(0)
        disk.free.set()
        while not all(worker.done() for worker in workers):
            await asyncio.sleep(0)
            looks += 1
    assert len(set(seen)) == len(seen), seen
