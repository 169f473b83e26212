"""One replica at a time leads under a lease that ends, and who leads no more knows it before it writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from app.domain.errors import LeaseLostError, StoreUnavailableError
from app.store.db.database import Database
from app.store.db.leadership import Leadership, leaders
from tests.support.aio import run
from tests.support.engine import sqlite, until
from tests.support.ledger import opened

LEASE = timedelta(seconds=1)
LONG = timedelta(hours=1)


@asynccontextmanager
async def two(store: str, lease: timedelta = LONG) -> AsyncIterator[tuple[Database, Leadership, Leadership]]:
    """Two replicas that would lead in one matter."""
    async with opened(store) as database, opened(store) as another:
        yield database, Leadership(database, "matter", "one", lease), Leadership(another, "matter", "other", lease)


async def check(lead: Leadership, database: Database) -> None:
    """Begin a transaction as the leader does."""
    async with database.write() as tx:
        await lead.check(tx)


def test_one_of_two_leads_and_renews(postgres_database: str) -> None:
    """The store says which, and until when; another matter is led by itself."""

    async def scenario() -> None:
        async with two(postgres_database) as (database, one, other):
            elsewhere = Leadership(database, "another matter", "other", LONG)
            asked = [await lead.seek() for lead in (one, one, other, elsewhere)]
            assert [True, True, False, True] == asked
            await check(one, database)
            with pytest.raises(LeaseLostError, match="matter"):
                await check(other, database)
            async with database.read() as tx:
                assert [("another matter", "other"), ("matter", "one")] == [
                    (led.matter, led.holder) for led in await leaders(tx)
                ]
            await one.give_back()
            assert await other.seek()

    run(scenario())


def test_a_leader_that_stood_still_is_replaced_and_knows_it(postgres_database: str) -> None:
    """Its lease ends by itself; a write that it had begun to think of is refused, also once it leads anew."""

    async def scenario() -> None:
        async with two(postgres_database, LEASE) as (database, one, other):
            assert await one.seek()
            stale = Leadership(database, "matter", "one", LEASE)
            stale.__dict__.update(one.__dict__)
            await until(other.seek, 10, "the other to lead")
            assert not one.is_held
            with pytest.raises(LeaseLostError):
                await check(stale, database)
            await other.give_back()
            assert await one.seek()
            with pytest.raises(LeaseLostError):
                await check(stale, database)
            await check(one, database)

    run(scenario())


def test_the_lead_is_kept_while_it_is_sought(postgres_database: str) -> None:
    """Longer than the lease, and given to the other at the end."""

    async def scenario() -> None:
        async with two(postgres_database, LEASE) as (database, one, other):
            async with one.sought(), other.sought():
                assert one.is_held
                async with database.read() as tx:
                    (first,) = await leaders(tx)

                async def renewed() -> bool:
                    async with database.read() as tx:
                        led = await leaders(tx)
                    return [led_by.holder for led_by in led] == ["one"] and led[0].until > first.until + 2 * LEASE

                await until(renewed, 10, "the lease to be renewed over and over")
                assert (True, False) == (one.is_held, other.is_held)
            assert await Leadership(database, "matter", "third", LEASE).seek()

    run(scenario())


@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(minutes=1)])
def test_a_lease_of_a_clock_that_was_set_back_is_none(postgres_database: str, back: timedelta) -> None:
    """A dead leader's would else stand for as long as the clock was set back."""

    async def scenario() -> None:
        async with two(postgres_database) as (database, one, other):
            assert await one.seek()
            assert not await other.seek()
            moved = "since = since + :by, renewed_at = renewed_at + :by, until = until + :by"
            async with database.write() as tx:
                await tx.execute(text(f"UPDATE leadership SET {moved}"), {"by": back // timedelta(microseconds=1)})
            assert await other.seek()
            with pytest.raises(LeaseLostError):
                await check(one, database)

    run(scenario())


def test_nobody_leads_without_the_database(postgres_database: str) -> None:
    """It is not known who does, so nobody acts; and it is tried again."""

    async def scenario() -> None:
        gone = Database(postgres_database.rpartition("/")[0] + "/there_is_no_such_database")
        lead = Leadership(gone, "matter", "one", LEASE)
        with pytest.raises(StoreUnavailableError):
            await lead.seek()
        async with lead.sought():
            assert not lead.is_held
        await gone.close()

    run(scenario())


def test_the_only_replica_leads(tmp_path: Path) -> None:
    """On SQLite there is no other."""

    async def scenario() -> None:
        async with opened(sqlite(tmp_path)) as database:
            lead = Leadership(database, "matter", "one", LEASE)
            async with lead.sought():
                assert lead.is_held
                await check(lead, database)
            async with database.read() as tx:
                assert [] == await leaders(tx)

    run(scenario())
