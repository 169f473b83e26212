"""Runs that alerts share, rungs that only tell people, and catalogs that change while runs wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.clients.connections import Connections, RedisConnection, SecretSource
from app.domain.errors import ConflictError
from app.domain.obstacles import Hold
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.again import decide_again
from app.engine.judging import follow
from app.store import holds
from app.store.events import Entry
from app.store.holds import Held
from tests.support.aio import run
from tests.support.engine import Engine, engine, sqlite, until
from tests.support.entries import asked, cache, flush, poke, request
from tests.support.redis import RedisServer
from tests.support.web import WebServer

HOUR = timedelta(hours=1)
ON = Held("target", "redis:cache/0")


async def pause(one: Engine) -> None:
    """Hold the target, which has to be found first."""
    async with one.database.write() as tx:
        await holds.put(tx, ON, Hold("target", "ann", "because", None), one.clock())


async def resume(one: Engine) -> None:
    """Let it go on."""
    async with one.database.write() as tx:
        await holds.take(tx, ON, "ann", "ann", one.clock())
    one.parts.work.set()


@pytest.mark.parametrize("way", ["over", "too old"])
def test_a_shared_run_goes_on_for_the_alert_that_is_left(tmp_path: Path, redis_server: RedisServer, way: str) -> None:
    """It was recorded by one that is over, or too old to be acted on; the other one has just begun."""

    async def scenario() -> None:
        with redis_server.client() as client:
            client.set("key", "value")
        entry = flush(max_age="2h")
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=cache(redis_server)) as one:
            await pause(one)
            first = one.firing(pod="first")
            await one.deliver(first)
            await one.reached(RunState.DEFERRED, count=1)
            one.forward(HOUR + HOUR / 2)
            await one.fire(pod="second")
            await one.reached(RunState.DEFERRED, count=1)
            if way == "over":
                await one.resolve(pod="first")
            else:
                one.forward(HOUR)
            await resume(one)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, "second") == (row.state, row.labels["pod"])
            assert "speaks_for" in await one.kinds(row.id)

    run(scenario())


@contextmanager
def nowhere() -> Iterator[Connections]:
    """A configuration whose Redis exists, for a target that the alert does not name."""
    url = SecretSource(value=SecretStr("redis://127.0.0.1:9"))
    yield Connections(redis={"cache": RedisConnection(url=url)})


def test_a_rung_that_only_tells_people_needs_no_target(tmp_path: Path, sink: WebServer) -> None:
    """The alert lacks the label that names the target: whoever is on call hears of it all the same."""

    async def scenario() -> None:
        entry = flush("{{ labels.database }}", escalate=[{"steps": [request(sink, "/page")]}])
        with nowhere() as connections:
            async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections) as one:
                await one.fire()
                (row,) = await one.ended(count=1)
                assert (RunState.FAILED, 1, 1) == (row.state, row.rung, asked(sink, "/page"))

    run(scenario())


def test_what_no_longer_matches_is_not_tried_again(tmp_path: Path, sink: WebServer) -> None:
    """Neither by itself nor because somebody asks."""

    async def scenario() -> None:
        sink.status = 500
        step = request(sink, timeout="1s")
        limits = {"cooldown": "0s", "rate": "1000/1h", "attempts": 3}
        entry = poke(sink, steps=[step], limits=limits)
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire(namespace="payments")
            await until(lambda: has_asked(sink), 10, "the step to be tried")
            one.catalog.put(entry | {"matchers": ['alertname="Down"', 'namespace!="payments"']})
            (row,) = await one.ended(count=1)
            assert RunState.FAILED == row.state
            with pytest.raises(ConflictError, match="no longer matches"):
                async with one.database.write(lock="intake") as tx:
                    await decide_again(tx, row.id, one.catalog(), Entry("again", actor="ann"), one.clock())
            assert 1 == len(await one.runs())

    run(scenario())


async def has_asked(sink: WebServer) -> bool:
    """Whether the step was called."""
    return bool(asked(sink))


def test_a_freeze_that_is_taken_out_holds_nobody_any_longer(tmp_path: Path, sink: WebServer) -> None:
    """What waits for its end is decided by the catalog of now."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            now = one.clock()
            begins, ends = (now - HOUR).isoformat(), (now + 72 * HOUR).isoformat()
            freeze = {"name": "move", "summary": "We move.", "begins": begins, "ends": ends}
            one.catalog.put(poke(sink), freezes=[freeze])
            followed = await follow(one.parts, None)
            await one.fire()
            (row,) = await one.reached(RunState.DEFERRED, count=1)
            assert Reason.FROZEN == row.reason
            one.catalog.put(poke(sink))
            await follow(one.parts, followed)
            await one.ended(count=1)
            assert 1 == asked(sink)

    run(scenario())


def test_a_run_that_waits_at_a_rung_that_is_gone_begins_anew(tmp_path: Path, sink: WebServer) -> None:
    """The first rung could not be planned, the second was taken out of the catalog meanwhile."""

    async def scenario() -> None:
        entry = flush("{{ labels.database }}", escalate=[{"steps": [request(sink, "/page")]}], mode="approve")
        with nowhere() as connections:
            async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections, recheck=HOUR / 60) as one:
                await one.fire()
                await one.reached(RunState.AWAITING_APPROVAL, count=1)
                one.catalog.put(flush("0", mode="observe"))
                one.forward(2 * HOUR)
                (row,) = await one.ended(count=1)
                assert row.state in {RunState.EXPIRED, RunState.OBSERVED}
                assert Reason.UNEXPECTED != row.reason

    run(scenario())
