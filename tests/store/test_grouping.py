"""Writers of an SQLite file share commits: what fails is undone alone, and nobody returns before the disk has it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, event, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from app.domain.errors import StoreUnavailableError
from app.store.database import Database
from app.store.schema import breaker, run
from tests.support.ledger import opened

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


async def _write(database: Database, name: str, *, fails: bool = False, synced: bool = True) -> None:
    async with database.write(synced=synced) as tx:
        await tx.execute(insert(breaker).values(remediation=name, failures=1))
        if fails:
            raise ValueError(name)


async def _names(database: Database) -> set[str]:
    async with database.read() as tx:
        return set((await tx.execute(select(breaker.c.remediation))).scalars())


@contextmanager
def _commits(database: Database) -> Iterator[list[bool]]:
    """What is committed, and whether it waits for the disk."""
    seen: list[bool] = []

    def commit(connection: object) -> None:
        seen.append(connection.connection.driver_connection.synced)  # type: ignore[attr-defined]

    event.listen(database.engine.sync_engine, "commit", commit)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "commit", commit)


@_in_a_loop
async def test_those_that_come_together_share_a_commit(tmp_path: Path) -> None:
    """Twenty writers, a commit or two, everything there."""
    async with _store(tmp_path) as database:
        with _commits(database) as commits:
            await asyncio.gather(*(_write(database, f"r{number}") for number in range(20)))
        assert {f"r{number}" for number in range(20)} == await _names(database)
        assert len(commits) <= 3


@pytest.mark.parametrize("place", [0, 3, 9])
@_in_a_loop
async def test_what_fails_is_undone_alone(tmp_path: Path, place: int) -> None:
    """Whichever of those that share a commit it is."""
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

        event.listen(database.engine.sync_engine, "commit", refuse)
        done = await asyncio.gather(*(_write(database, f"r{number}") for number in range(5)), return_exceptions=True)
        event.remove(database.engine.sync_engine, "commit", refuse)
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
async def test_a_commit_waits_for_the_disk_unless_nobody_asked(tmp_path: Path) -> None:
    """One that must be on the disk never shares a commit that does not wait for it."""
    async with _store(tmp_path) as database:
        with _commits(database) as commits:
            await _write(database, "a", synced=False)
            await _write(database, "b")
            await asyncio.gather(*(_write(database, f"c{number}", synced=number % 2 == 0) for number in range(6)))
        assert commits[:2] == [False, True]
        assert commits[-1] is True
        assert {"a", "b", *(f"c{number}" for number in range(6))} == await _names(database)


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
async def test_a_long_question_can_be_given_up(tmp_path: Path) -> None:
    """What runs in a thread is interrupted, and its connection serves others afterwards."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    async with _store(tmp_path) as database, asyncio.timeout(WAIT):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), database.browse() as tx:
                await tx.execute(text(endless))
        assert set() == await _names(database)


@pytest.mark.parametrize(
    ("condition", "index"), [(run.c.active, "ix_run_due"), (run.c.holds_target, "uq_run_holds_target")]
)
@_in_a_loop
async def test_conditions_are_written_as_the_partial_indexes_are(
    tmp_path: Path, condition: ColumnElement[bool], index: str
) -> None:
    """As `active = 1` none of them would serve, and every look would read the whole audit."""
    async with _store(tmp_path) as database, database.read() as tx:
        ours = str(select(run.c.not_before).where(condition).compile(database.engine.sync_engine))
        plan = (await tx.execute(text(f"EXPLAIN QUERY PLAN {ours}"))).all()
        assert any(index in row[3] for row in plan), plan
