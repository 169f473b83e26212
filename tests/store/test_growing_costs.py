"""What each decision asks costs the same, however many runs were only observed on its target before."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, and_, insert, text, update
from sqlalchemy.event import listen

from app.domain.durations import Rate
from app.domain.ids import new_id
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.stages.intake import pending_run
from app.store.audit import seals, stream
from app.store.audit.seals import Cursor
from app.store.audit.stream import Wanted
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.schema import REFUSED_BY_PEOPLE, event
from app.store.db.schema import run as run_table
from app.store.gates import facts
from app.store.gates.facts import FactsQuery
from app.store.ledger import effectiveness, episodes, runs
from tests.support.aio import run
from tests.support.alerts import NOW
from tests.support.engine import read
from tests.support.ledger import new_episode, opened

KEY, IDENTITY = "redis:cache/0", "a1"
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
FEW, MANY = 20, 3000
Question = Callable[[AsyncConnection], Awaitable[Any]]


async def _observe(database: Database, count: int) -> None:
    """Runs that were observed on one target, each for an episode of the same alert, the last ones a moment ago."""
    entry = read()
    old = [NOW - number * SECOND for number in range(2, count + 2)]
    ended = [
        replace(new_episode(IDENTITY), id=new_id(at), first_seen_at=at, closed_at=at, resolved_at=at, firing={})
        for at in old
    ]
    made = [replace(pending_run(entry, "digest", one, NOW), id=new_id(one.first_seen_at)) for one in ended]
    async with database.write() as tx:
        await episodes.create(tx, ended)
        await runs.create(tx, made)
        await episodes.link(tx, [(new.id, one.id) for new, one in zip(made, ended, strict=True)])
        observed = {"state": RunState.OBSERVED, "active": False, "target_key": KEY, "finished_at": NOW - SECOND}
        await tx.execute(update(run_table).values(observed))


async def _cost(database: Database, ask: Question) -> int:
    """Rows that PostgreSQL reads for a question; on SQLite the steps of its virtual machine, in tens."""
    async with database.read() as tx:
        if database.is_sqlite:
            return await _steps(tx, ask)
        asked: list[tuple[str, Any]] = []

        def remember(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            asked.append((statement, values))

        listen(database.engine, "before_cursor_execute", remember)
        await ask(tx)
        found = 0
        for statement, values in asked[:]:
            query = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
            rows = (await tx.run_sync(Connection.exec_driver_sql, query, values)).scalar_one()
            found += _rows((rows if isinstance(rows, list) else json.loads(rows))[0]["Plan"])
        return found


async def _steps(tx: AsyncConnection, ask: Question) -> int:
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def watch(connection: Connection, handler: Callable[[], int] | None) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(handler, 10)

    await tx.run_sync(watch, count)
    await ask(tx)
    await tx.run_sync(watch, None)
    return counted


def _rows(plan: dict[str, Any]) -> int:
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
    return int(own * plan["Actual Loops"]) + sum(map(_rows, plan.get("Plans", ())))


async def _last_outcome(tx: AsyncConnection) -> None:
    assert await facts.last_outcome(tx, KEY, "another") is None


async def _glance(tx: AsyncConnection) -> None:
    rates = (Rate(3, HOUR), Rate(7, 24 * HOUR))
    asked = FactsQuery(NOW, "another", "poke", KEY, rates, rates, rates, (), ())
    seen = await facts.probe(tx, asked)
    assert (False, False, False) == (seen.last_outcome, seen.target_rate, seen.rate)


async def _target_rate(tx: AsyncConnection) -> None:
    assert await facts.rate_free_at(tx, (Rate(1, HOUR),), NOW, facts.on_target(KEY)) is None


async def _recurring(tx: AsyncConnection) -> None:
    assert [] == await effectiveness.recurring(tx, [("another", IDENTITY)], NOW)


@pytest.mark.parametrize("ask", [_last_outcome, _glance, _target_rate, _recurring])
def test_observed_runs_are_not_read(store: str, ask: Question) -> None:
    """Neither for the cooldown, nor for the rate of the target, nor to see that an alert is back."""

    async def scenario() -> tuple[int, int]:
        costs = []
        async with opened(store) as database:
            for count in (FEW, MANY):
                await _observe(database, count)
                async with database.write() as tx:
                    await tx.execute(text("ANALYZE" if not database.is_sqlite else "SELECT 1"))
                costs.append(await _cost(database, ask))
        return costs[0], costs[1]

    few, many = run(scenario())
    assert many < 3 * few + 30


async def _audit(database: Database, count: int) -> None:
    row = {"run_id": "service", "at": NOW, "kind": "noise", "state": "", "message": "", "actor": "us", "data": {}}
    async with database.write() as tx:
        await tx.execute(insert(event), [row | {"tx": int(not database.is_sqlite)}] * count)


def test_a_filtered_stream_looks_at_each_event_once(store: str) -> None:
    """It passes by what is not wanted, a bounded number at a time, and does not come back to it each second."""

    async def scenario() -> None:
        async with opened(store) as database:
            await _audit(database, 2 * stream._LOOKED_AT + 10)
            async with database.write() as tx:
                await tx.execute(text("ANALYZE" if not database.is_sqlite else "SELECT 1"))
            place, pages = Cursor(int(not database.is_sqlite)), []
            for _ in range(4):
                pages.append(await stream.page(database, place, Wanted(kinds=("paused",))))
                place = pages[-1].end
            assert [True, True, False, False] == [one.has_more for one in pages]
            assert pages[2].end == pages[3].end

            async def look(tx: AsyncConnection) -> None:
                end, _ = await stream._end(tx, and_(seals.after(tx, place), await seals.settled(tx)))
                assert end is None

            assert await _cost(database, look) < 20
            wanted = Wanted(kinds=("noise",), remediation="poke")
            assert [] == [row async for row in stream.read(database, Cursor(place.tx), wanted)]
            told = [row.id async for row in stream.read(database, Cursor(place.tx), Wanted(kinds=("noise",)))]
            assert 2 * stream._LOOKED_AT + 10 == len(told) == len(set(told))

    run(scenario())


def test_the_last_outcome_is_the_newest_of_what_acted_and_what_people_refused(store: str) -> None:
    """Observed runs that ended later do not count, and neither does the run that asks."""

    async def scenario() -> None:
        async with opened(store) as database:
            await _observe(database, 5)
            ids = [row.id for row in await _all(database)]
            acted = {"admitted_at": NOW - HOUR, "finished_at": NOW - HOUR + SECOND}
            refused = {"reason": Reason.APPROVAL_REJECTED, "finished_at": NOW - HOUR + 2 * SECOND}
            for run_id, values in zip(ids, (acted, refused), strict=False):
                async with database.write() as tx:
                    await tx.execute(update(run_table).where(run_table.c.id == run_id).values(values))
            async with database.read() as tx:
                assert (NOW - HOUR + 2 * SECOND, ids[1]) == await facts.last_outcome(tx, KEY, ids[4])
                assert (NOW - HOUR + SECOND, ids[0]) == await facts.last_outcome(tx, KEY, ids[1])
                assert await facts.last_outcome(tx, "redis:cache/1", "") is None

    run(scenario())


async def _all(database: Database) -> list[Any]:
    async with database.read() as tx:
        return list(await tx.execute(run_table.select().order_by(run_table.c.id)))


def test_what_people_refused_is_named_by_its_reasons() -> None:
    """The index knows them as words only."""
    refused = (Reason.APPROVAL_EXPIRED, Reason.APPROVAL_REJECTED, Reason.CANCELLED_BY_PERSON)
    assert f"reason IN {tuple(reason.value for reason in refused)}" == str(REFUSED_BY_PEOPLE)
