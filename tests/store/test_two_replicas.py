"""Two replicas on one store: what holds for one holds for both together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.stages.intake import take_in
from tests.support.aio import run
from tests.support.engine import Clock, Engine, engine, until
from tests.support.entries import asked, cache, flush, poke
from tests.support.redis import RedisServer
from tests.support.web import WebServer

LONG = timedelta(hours=2)


@asynccontextmanager
async def pair(
    store: str, directory: Path, *entries: dict[str, Any], **given: Any
) -> AsyncIterator[tuple[Engine, Engine]]:
    """Two replicas with one catalog and one clock."""
    clock = Clock()
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(
                engine(store, directory, *entries, clock=clock, owner=f"replica-{number}", **given)
            )
            for number in (1, 2)
        ]
        yield one, other


def test_one_alert_at_both_replicas_is_one_effect(store: str, tmp_path: Path, sink: WebServer) -> None:
    """Each member of an Alertmanager pair tells another replica, at the same time and again."""

    async def scenario() -> None:
        async with pair(store, tmp_path, poke(sink)) as (one, other):
            alerts = [one.firing(pod=f"pod-{number}") for number in range(10)]
            for alert in alerts:
                await asyncio.gather(one.deliver(alert), other.deliver(alert))
            await asyncio.gather(one.deliver(*alerts), other.deliver(*alerts))
            await one.ended(count=10)
            assert 10 == asked(sink)
            assert 10 == len({request.headers["Idempotency-Key"] for request in sink.requests})

    run(scenario())


def test_the_rate_holds_over_both(store: str, tmp_path: Path, sink: WebServer) -> None:
    """Twenty runs that are decided at once: three are admitted, and not one more."""

    async def scenario() -> None:
        entry = poke(sink, limits={"cooldown": "0s", "rate": "3/1h"})
        async with pair(store, tmp_path, entry, recheck=LONG) as (one, other):
            await one.record(*(one.firing(pod=f"pod-{number}") for number in range(20)))
            await asyncio.gather(take_in(one.parts), take_in(other.parts))
            other.parts.work.set()
            rows = await one.reached(RunState.SUCCEEDED, RunState.DEFERRED, count=20, seconds=20)
            assert 3 == asked(sink) == sum(row.state == RunState.SUCCEEDED for row in rows)
            assert {Reason.RATE} == {row.reason for row in rows if row.state == RunState.DEFERRED}

    run(scenario())


def test_alerts_of_one_target_are_one_run_over_both(store: str, tmp_path: Path, redis_server: RedisServer) -> None:
    """Whoever decides first acts, the others join."""

    async def scenario() -> None:
        entry = flush(settle="1h")
        async with pair(store, tmp_path, entry, connections=cache(redis_server)) as (one, other):
            with redis_server.client() as client:
                client.set("key", "value")
                client.config_resetstat()
                pods = [f"pod-{number}" for number in range(8)]
                await asyncio.gather(
                    *((one, other)[number % 2].fire(pod=pod) for number, pod in enumerate(pods)),
                )
                (row,) = await one.reached(RunState.VERIFYING, count=1)
                assert 7 == (await one.kinds(row.id)).count("joined")
                await asyncio.gather(
                    *((one, other)[number % 2].resolve(pod=pod) for number, pod in enumerate(pods)),
                )
                (row,) = await one.ended(count=1)
                assert (RunState.SUCCEEDED, True) == (row.state, row.effective)
                assert 1 == client.info("commandstats")["cmdstat_flushdb"]["calls"]

    run(scenario())


def test_a_target_is_worked_on_by_one_at_a_time(store: str, tmp_path: Path, redis_server: RedisServer) -> None:
    """Two remediations on one database, decided by two replicas: one holds it, the other waits for its end."""

    async def scenario() -> None:
        first = flush(name="first", matchers=['pod="a"'], settle="1h")
        second = flush(name="second", matchers=['pod="b"'], settle="1h")
        async with pair(store, tmp_path, first, second, connections=cache(redis_server), recheck=LONG) as both:
            await asyncio.gather(both[0].fire(pod="a"), both[1].fire(pod="b"))
            rows = await both[0].reached(RunState.VERIFYING, RunState.DEFERRED, count=2)
            assert [False, True] == sorted(row.holds_target for row in rows)
            holder = next(row for row in rows if row.holds_target)
            await both[0].resolve(pod="a" if holder.remediation == "first" else "b")

            async def handed_over() -> bool:
                found = {row.id: row for row in await both[0].runs()}
                return found[holder.id].state == RunState.SUCCEEDED and any(row.holds_target for row in found.values())

            await until(handed_over, 10, "the other run to hold the target", both[0].runs)

    run(scenario())


def test_resolves_and_ends_that_cross_lose_nothing(store: str, tmp_path: Path, sink: WebServer) -> None:
    """Alerts that end while their runs do: each run knows in the end that its alert is over."""

    async def scenario() -> None:
        async with pair(store, tmp_path, poke(sink)) as (one, other):
            pods = [f"pod-{number}" for number in range(30)]
            await one.deliver(*(one.firing(pod=pod) for pod in pods))
            await asyncio.gather(*((one, other)[number % 2].resolve(pod=pod) for number, pod in enumerate(pods)))
            rows = await one.ended(count=30, seconds=20)
            unknown = [row for row in rows if row.state == RunState.SUCCEEDED and row.effective is not True]
            assert [] == unknown
            assert {RunState.SUCCEEDED, RunState.CANCELLED} >= {row.state for row in rows}

    run(scenario())


def test_a_replica_that_dies_is_taken_over_from(store: str, tmp_path: Path, sink: WebServer) -> None:
    """Its runs go on elsewhere when their leases run out."""

    async def scenario() -> None:
        lease = timedelta(seconds=1)
        async with pair(store, tmp_path, poke(sink), lease=lease) as (one, other):
            sink.answering.clear()
            await one.fire()

            async def sent() -> bool:
                return asked(sink) == 1

            await until(sent, 10, "the first request", one.runs)
            holder = one if one.worker._tasks else other
            for task in [*holder.loops, *holder.worker._tasks.values()]:
                task.cancel()
            sink.answering.set()
            (row,) = await one.ended(count=1)
            assert RunState.SUCCEEDED == row.state
            assert 1 == len({request.headers["Idempotency-Key"] for request in sink.requests})

    run(scenario())
