"""The audit beside what goes on meanwhile: folds, retention, other databases, another server, a crash of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, select, text, update

from app.domain.states import RunState
from app.store.audit import chain, seals, stream
from app.store.audit import verify as verifying
from app.store.audit.chain import Entry, Event, catalog_chain
from app.store.audit.seals import Cursor
from app.store.audit.stream import Wanted
from app.store.audit.verify import verify
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.schema import episode, event, run, run_episode, seal
from app.store.ledger import effectiveness, retention, runs, undos
from tests.conftest import StartPostgres
from tests.support.aio import run as run_loop
from tests.support.alerts import NOW
from tests.support.ledger import claim, opened, seed
from tests.support.postgres import PostgresServer

DAY = timedelta(days=1)


async def append(database: Database, *, synced: bool = True) -> None:
    """One more event."""
    async with database.write(synced=synced) as tx:
        await chain.append(tx, [Event(catalog_chain("other"), NOW, "paused", "", Entry("paused", actor="ann"))])


async def streamed(database: Database, after: Cursor = Cursor()) -> list[int]:  # noqa: B008 - a value
    """The ids of all events that are given out."""
    return [row.id async for row in stream.read(database, after, Wanted())]


async def sealed(database: Database) -> int:
    """Seal everything; how many events that were."""
    async with database.write(lock="seal") as tx:
        return (await seals.seal_next(tx, NOW, 1000)).events


def test_a_run_that_is_folded_while_it_is_verified_is_not_missed(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events were read before, its row is looked for after."""
    check = verifying._check_row
    waiting = list[Callable[[], Awaitable[None]]]()

    async def late(*given: Any) -> None:
        if waiting:
            await waiting.pop()()
        await check(*given)

    async def scenario() -> None:
        async with opened(store) as database:
            await seed(database, 2)
            first, second = await claim(database)

            async def fold() -> None:
                async with database.write() as tx:
                    await runs.fold(tx, first, second, NOW)

            waiting.append(fold)
            assert [] == (await verify(database)).findings
            assert [] == (await verify(database)).findings

    monkeypatch.setattr(verifying, "_check_row", late)
    run_loop(scenario())


async def ended(database: Database) -> str:
    """A run that has succeeded, whose alert resolves only now; the id of its episode."""
    await seed(database)
    async with database.write() as tx:
        (held,) = (await tx.execute(select(run.c.id))).one()
        over = {"state": RunState.SUCCEEDED, "finished_at": NOW, "active": False, "admitted_at": NOW, "judge_at": NOW}
        await tx.execute(update(run).values(over))
        await chain.append(tx, [Event(held, NOW, "succeeded", RunState.SUCCEEDED, Entry())])
        await tx.execute(update(episode).values(closed_at=NOW, resolved_at=NOW))
        return str((await tx.execute(select(run_episode.c.episode_id))).scalar_one())


async def resolve(tx: AsyncConnection, episode_id: str) -> None:
    """What taking the resolve in does to the run."""
    await effectiveness.record_resolution(tx, NOW + DAY, [episode_id])


async def judge(tx: AsyncConnection, _episode_id: str) -> None:
    """What judging does to a run whose alert had its time."""
    (held,) = (await tx.execute(select(run.c.id))).one_or_none() or ("",)
    await effectiveness.judge(tx, held, NOW + DAY)


async def borrow(tx: AsyncConnection, _episode_id: str) -> None:
    """What a revert does to the runs that it is to take back."""
    for one in await undos.borrowed(tx, "poke", "key"):
        await runs.note(tx, one, NOW + DAY, "revert_recorded", Entry())


@pytest.mark.parametrize("late", [resolve, judge, borrow])
@pytest.mark.parametrize("first", ["prune", "late"])
def test_what_is_appended_beside_retention_leaves_no_orphan(
    postgres_database: str, first: str, late: Callable[[AsyncConnection, str], Awaitable[None]]
) -> None:
    """Whichever has the run's row first, the other one sees what became of it."""

    async def scenario() -> None:
        async with opened(postgres_database) as database, opened(postgres_database) as another:
            of = await ended(database)
            if late is borrow:
                async with database.write() as tx:
                    (spec,) = (await tx.execute(select(run.c.spec))).one()
                    await tx.execute(update(run).values(target_key="key", spec=spec | {"revert": "on_resolved"}))
            await sealed(database)

            async def prune(tx: AsyncConnection) -> None:
                await retention.prune_runs(tx, NOW + DAY, 10)

            async def append_late(tx: AsyncConnection) -> None:
                await late(tx, of)

            begun = asyncio.Event()
            one, other = (prune, append_late) if first == "prune" else (append_late, prune)

            async def beside() -> None:
                await begun.wait()
                async with another.write() as tx:
                    await other(tx)

            task = asyncio.create_task(beside())
            async with database.write() as tx:
                await retention.announce_pass(tx, NOW + 2 * DAY, NOW + DAY)
                await one(tx)
                begun.set()
                await asyncio.wait([task], timeout=0.5)
            await task
            assert [] == (await verify(database)).findings

    run_loop(scenario())


def test_a_transaction_of_another_database_holds_nothing_up(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    """One of this database does: it may still append an event before the others."""

    async def scenario(elsewhere: str) -> None:
        async with opened(postgres_database) as database:
            await append(database)
            with closing(psycopg.connect(postgres_server.database_url(elsewhere))) as open_long:
                open_long.execute("CREATE TABLE long_open (a int)")
                await append(database)
                assert 2 == len(await streamed(database))
                assert 2 == await sealed(database)
                with closing(psycopg.connect(postgres_database)) as ours:
                    ours.execute("SELECT pg_current_xact_id()")
                    await append(database)
                    assert (2, 0) == (len(await streamed(database)), await sealed(database))
                assert (3, 1) == (len(await streamed(database)), await sealed(database))

    with postgres_server.database() as elsewhere:
        run_loop(scenario(elsewhere))


@pytest.mark.parametrize("unsealed", [True, False])
def test_a_database_that_is_moved_under_living_replicas(postgres_database: str, *, unsealed: bool) -> None:
    """They go on: what they write is sealed, a follower misses nothing, and a run that is taken out is found."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            await seed(database, 2)
            await sealed(database)
            if unsealed:
                await append(database)
            before = await streamed(database)
            async with database.write() as tx:  # as it was on a server that had counted further
                await tx.execute(update(event).values(tx=event.c.tx + (1 << 40)))
                await tx.execute(update(seal).values(to_tx=seal.c.to_tx + (1 << 40)))
                newest = (await tx.execute(select(event.c.tx, event.c.id).order_by(event.c.id.desc()).limit(1))).one()
                place = Cursor(newest.tx, newest.id)
            for _ in range(3):
                await append(database)
            new = await streamed(database, place)
            assert 3 == len(new)
            assert 3 + unsealed == await sealed(database)
            assert sorted([*before, *new]) == sorted(await streamed(database))
            await seed_one_more(database)
            assert 1 == await sealed(database)
            report = await verify(database)
            assert ([], 0) == (report.findings, report.unsealed)
            async with database.write() as tx:
                (last,) = (await tx.execute(select(run.c.id).order_by(run.c.id.desc()).limit(1))).one()
                await tx.execute(delete(event).where(event.c.run_id == last))
                await tx.execute(delete(run).where(run.c.id == last))
            assert not (await verify(database)).is_intact

    run_loop(scenario())


@pytest.mark.parametrize("unsealed", [True, False])
def test_a_move_to_a_server_that_has_counted_nearly_as_far(postgres_database: str, *, unsealed: bool) -> None:
    """It has passed the old one's count before the next seal: all of its events are sealed, none twice."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            await seed(database, 2)
            await sealed(database)
            if unsealed:
                await append(database)
            before = await streamed(database)
            async with database.write() as tx:  # as it was on a server that had counted a little further
                await tx.execute(update(event).values(tx=event.c.tx + 20))
                await tx.execute(update(seal).values(to_tx=seal.c.to_tx + 20))
                newest = (await tx.execute(select(event.c.tx, event.c.id).order_by(event.c.id.desc()).limit(1))).one()
            for _ in range(40):
                await append(database)
            assert 40 + unsealed == await sealed(database)
            assert 0 == await sealed(database)
            new = await streamed(database, Cursor(newest.tx, newest.id))
            assert 40 == len(new)
            assert sorted([*before, *new]) == sorted(await streamed(database))
            assert ([], 0) == ((report := await verify(database)).findings, report.unsealed)

    run_loop(scenario())


def test_the_end_of_a_chain_is_sealed_whichever_transaction_began_first(postgres_database: str) -> None:
    """One that began before the other one, and appended after it, has the smaller number and the end of the chain."""

    async def scenario() -> None:
        async with opened(postgres_database) as database, opened(postgres_database) as another:
            async with database.write() as early:
                await early.execute(text("SELECT pg_current_xact_id()"))
                await append(another)
                await chain.append(early, [Event(catalog_chain("other"), NOW, "resumed", "", Entry("resumed"))])
            assert 2 == await sealed(database)
            assert (0, 2) == (await sealed(database), len(await streamed(database)))
            async with database.write() as tx:
                ((leaves,),) = await tx.execute(select(seal.c.leaves))
                assert [(catalog_chain("other"), 2)] == [(name, seq) for name, seq, _ in leaves]
                await tx.execute(delete(event).where(event.c.seq == 2))
            assert not (await verify(database)).is_intact

    run_loop(scenario())


async def seed_one_more(database: Database) -> None:
    """A run whose chain begins after the move."""
    async with database.write() as tx:
        one = await runs.get(tx, (await tx.execute(select(run.c.id).limit(1))).scalar_one())
        assert one is not None
        last = f"{one.id[:-4]}ffff"
        copied = dict((await tx.execute(select(run).where(run.c.id == one.id))).one()._mapping)
        await tx.execute(run.insert(), [copied | {"id": last}])
        await chain.append(tx, [Event(last, NOW, "recorded", copied["state"], Entry())], are_first=True)


def test_what_is_streamed_survives_a_crash_of_the_server(start_postgres: StartPostgres) -> None:
    """Though it was committed without waiting for the disk; a follower gets every event once, and none that is gone."""

    async def scenario() -> None:
        server = start_postgres({"wal_writer_delay": "10s"})
        async with opened(server.url) as database:
            for _ in range(20):
                await append(database, synced=False)
            told = await streamed(database)
            assert 20 == len(told)
            server.crash()
            server.start()
            async with opened(server.url) as again:
                assert told == await streamed(again)
                place = [row async for row in stream.read(again, Cursor(), Wanted())][-1]
                await append(again)
                assert 1 == len(await streamed(again, Cursor(place.tx, place.id)))
                assert [] == (await verify(again)).findings

    run_loop(scenario())
