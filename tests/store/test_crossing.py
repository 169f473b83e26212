"""What two replicas do at the same moment on PostgreSQL: the one that comes second waits and sees what the first did.

SQLite has one writer at a time, so there is nothing to cross.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

import pytest
from sqlalchemy import text

from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.scope import Scope
from app.catalog.catalog import Catalog
from app.domain.plans import Plan, Target
from app.domain.states import RunState
from app.engine.context import EngineContext, Policy
from app.engine.stages.admission import DecisionInput, gather
from app.store.audit.chain import Entry
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.gates import facts
from app.store.ledger import episodes, runs
from app.telemetry.metrics import Metrics
from tests.support.aio import run
from tests.support.alerts import NOW
from tests.support.engine import until
from tests.support.ledger import claim, fetch, opened, seed, seed_claimed

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def blocked(database: Database, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Start something and return once the server says that it waits for a lock."""
    task = asyncio.create_task(coroutine)

    async def waits() -> bool:
        assert not task.done(), "it did not wait"
        async with database.read() as tx:
            return bool((await tx.execute(text(WAITING))).scalar_one())

    await until(waits, 10, "a lock to be waited for")
    return task


def test_a_resolve_waits_for_a_decision_that_relies_on_firing(postgres_database: str) -> None:
    """Otherwise the run that is just ending would never learn that its alert is over."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            held = await seed_claimed(database)
            async with database.read() as tx:
                (firing,) = await episodes.of_run(tx, held.id)

            async def resolve() -> None:
                async with database.write() as tx:
                    await episodes.change(tx, [replace(firing, closed_at=NOW, resolved_at=NOW)])

            async with database.write() as tx:
                assert await episodes.keep_open(tx, held.id)
                resolving = await blocked(database, resolve())
            await resolving
            async with database.write() as tx:
                assert not await episodes.keep_open(tx, held.id)

    run(scenario())


def test_a_decision_waits_for_a_resolve_that_is_being_written(postgres_database: str) -> None:
    """It sees the alert as ended, and not as it was a moment ago."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            held = await seed_claimed(database)
            seen = []

            async def decide() -> None:
                async with database.write() as tx:
                    seen.append(await episodes.keep_open(tx, held.id))

            async with database.write() as tx:
                (firing,) = await episodes.of_run(tx, held.id)
                await episodes.change(tx, [replace(firing, closed_at=NOW, resolved_at=NOW)])
                deciding = await blocked(database, decide())
            await deciding
            assert [False] == seen

    run(scenario())


def test_nothing_is_folded_into_a_run_that_is_ending(postgres_database: str) -> None:
    """The alert would share a decision that is over; it gets its own."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            await seed(database, 2)
            ending, candidate = await claim(database)
            async with database.write() as tx:
                changes = {"target_key": "redis:cache/0", "holds_target": True}
                ending = await runs.move(tx, ending, RunState.RUNNING, NOW, Entry("admitted"), **changes)
            found = []

            async def look() -> None:
                async with database.write() as tx:
                    found.append(await runs.sharing(tx, candidate, "redis:cache/0"))

            async with database.write() as tx:
                await runs.move(tx, ending, RunState.FAILED, NOW, Entry("over"))
                looking = await blocked(database, look())
            await looking
            assert [None] == found

    run(scenario())


def test_an_end_waits_for_who_is_being_folded_in(postgres_database: str) -> None:
    """A run that ends knows of every alert that it ends for."""

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            await seed(database, 2)
            into, folded = await claim(database)
            async with database.write() as tx:
                into = await runs.move(tx, into, RunState.DEFERRED, NOW, Entry("later"), target_key="redis:cache/0")
            linked = []

            async def end() -> None:
                async with database.write() as tx:
                    await runs.check_lease(tx, into)
                    linked.append(len(await episodes.of_run(tx, into.id)))

            async with database.write() as tx:
                shared = await runs.sharing(tx, folded, "redis:cache/0")
                assert shared is not None
                await runs.fold(tx, folded, shared, NOW)
                ending = await blocked(database, end())
            await ending
            assert [2] == linked
            assert into.id == (await fetch(database, into.id)).id

    run(scenario())


def test_a_target_that_comes_free_is_found_as_one_that_was_just_worked_on(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two questions of one decision: it was held at the first, and has a cooldown at the second."""
    key = "redis:cache/0"

    async def scenario() -> None:
        async with opened(postgres_database) as database:
            await seed(database, 2)
            acting, candidate = await claim(database)
            async with database.write() as tx:
                changes = {"target_key": key, "holds_target": True, "admitted_at": NOW}
                acting = await runs.move(tx, acting, RunState.RUNNING, NOW, Entry("admitted"), **changes)
            looked_at = facts.probe

            async def probe(tx: AsyncConnection, asked: facts.FactsQuery) -> facts.Probe:
                seen = await looked_at(tx, asked)
                async with database.write() as other:
                    await runs.move(other, acting, RunState.FAILED, NOW, Entry("over"))
                return seen

            monkeypatch.setattr(facts, "probe", probe)
            plan = Plan(rung=0, target=Target(backend="redis", key=key), steps=())
            catalog = Catalog.of([], seen=(), warnings=(), loaded_at=NOW)
            clients = Clients(Connections(), Scope())
            parts = EngineContext(database, lambda: catalog, clients, Metrics("0"), Policy(), lambda: NOW, "me")
            async with database.read() as tx:
                known = await gather(tx, parts, DecisionInput(candidate, plan), NOW)
            assert (None, (NOW, acting.id)) == (known.holder, known.last_outcome)

    run(scenario())
