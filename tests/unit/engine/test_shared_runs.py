"""Runs that alerts share, rungs that only tell people, and catalogs that change while runs wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from app.backends.connections import Connections
from app.backends.notify.backend import NotifyChannel
from app.backends.redis.backend import RedisConnection
from app.backends.secrets import SecretSource
from app.domain.errors import ConflictError
from app.domain.obstacles import Hold
from app.domain.plans import Target
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.outcomes.effectiveness import follow
from app.engine.outcomes.retry import decide_again
from app.engine.stages import folding
from app.engine.stages.intake import pending_run
from app.store.audit.chain import Entry
from app.store.db.schema import run as ledger
from app.store.db.schema import run_episode
from app.store.gates import pauses
from app.store.gates.pauses import Held
from app.store.ledger.runs import Run
from tests.support.aio import run
from tests.support.alerts import NOW
from tests.support.engine import Engine, engine, read, sqlite, until
from tests.support.entries import asked, cache, flush, poke, request
from tests.support.ledger import new_episode
from tests.support.redis import RedisServer
from tests.support.web import WebServer

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
HOUR = timedelta(hours=1)
ON = Held("target", "redis:cache/0")


async def pause(one: Engine) -> None:
    """Hold the target, which has to be found first."""
    async with one.database.write() as tx:
        await pauses.put(tx, ON, Hold("target", "ann", "because", None), one.clock())


async def resume(one: Engine) -> None:
    """Let it go on."""
    async with one.database.write() as tx:
        await pauses.take(tx, ON, "ann", "ann", one.clock())
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


def _tenants(sink: WebServer, **fields: Any) -> dict[str, Any]:
    """What is done for one tenant of a shared database."""
    step = request(sink, "/flush/{{ labels.tenant }}")
    return flush("0", **({"steps": [step]} | fields))


@pytest.mark.parametrize("way", ["url", "pattern", "verify", "next rung", "words only"])
def test_alerts_whose_plans_differ_do_not_share_a_run(
    tmp_path: Path, redis_server: RedisServer, sink: WebServer, way: str
) -> None:
    """The second waits for the target, and is then done, too."""

    async def scenario() -> None:
        here = "/of/{{ labels.tenant }}"
        entry = {
            "url": _tenants(sink),
            "pattern": flush(
                steps=[{"action": "redis.delete_matching", "with": {"pattern": "tenant:{{ labels.tenant }}:*"}}]
            ),
            "verify": flush(verify=[{"check": "http.ok", "with": {"url": f"{sink.url}{here}"}}]),
            "next rung": flush(escalate=[{"steps": [request(sink, here)]}]),
            "words only": flush(steps=[_page("{{ labels.tenant }}")]),
        }[way]
        with redis_server.client() as client:
            client.mset({"tenant:a:1": "x", "tenant:b:1": "x"})
        connections = cache(redis_server).model_copy(update={"notify": _channel(sink)})
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections) as one:
            await pause(one)
            await one.fire(tenant="a")
            await one.reached(RunState.DEFERRED, count=1)
            await one.fire(tenant="b")
            await one.reached(RunState.DEFERRED, count=2)
            await resume(one)
            rows = await one.ended(count=2)
            assert {RunState.SUCCEEDED} == {row.state for row in rows}
            assert {"a", "b"} == {row.labels["tenant"] for row in rows}
            with redis_server.client() as client:
                assert way != "pattern" or client.keys("tenant:*") == []
            if way == "url":
                assert (1, 1) == (asked(sink, "/flush/a"), asked(sink, "/flush/b"))

    run(scenario())


@pytest.mark.parametrize("way", ["label of no use", "words of a page"])
def test_alerts_that_one_plan_answers_share_a_run(
    tmp_path: Path, redis_server: RedisServer, sink: WebServer, way: str
) -> None:
    """Labels that nothing is made of do not count, nor do the words of a page of the last rung."""

    async def scenario() -> None:
        page = _page("{{ labels.pod }} since {{ alert.starts_at }}")
        entry = flush() if way == "label of no use" else flush(escalate=[{"steps": [page]}])
        connections = cache(redis_server).model_copy(update={"notify": _channel(sink)})
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections) as one:
            await pause(one)
            for pod in "abc":
                await one.fire(pod=pod)
                await one.reached(RunState.DEFERRED, count=1)
            await resume(one)
            await one.ended(count=1)

    run(scenario())


@pytest.mark.parametrize("way", ["plans differ", "targets differ", "one no longer matches", "one plan"])
def test_a_shared_run_whose_remediation_changes(
    tmp_path: Path, redis_server: RedisServer, sink: WebServer, way: str
) -> None:
    """What is done now may be another thing for each alert: none is lost in the run that they shared."""

    async def scenario() -> None:
        entry = {
            "plans differ": _tenants(sink),
            "targets differ": flush("{{ labels.database }}"),
            "one no longer matches": flush(matchers=['alertname="Down"', 'tenant!="a"']),
            "one plan": flush(max_age="2h"),
        }[way]
        async with engine(sqlite(tmp_path), tmp_path, flush(), connections=cache(redis_server)) as one:
            await pause(one)
            for database, tenant in enumerate("abc"):
                await one.fire(tenant=tenant, database=str(database))
                await one.reached(RunState.DEFERRED, count=1)
            one.catalog.put(entry)
            await resume(one)
            rows = await one.ended(count={"one no longer matches": 2, "one plan": 1}.get(way, 3))
            denied = {row.labels["tenant"] for row in rows if row.state == RunState.DENIED}
            assert ({"a"} if way == "one no longer matches" else set()) == denied
            assert all(row.state == RunState.SUCCEEDED for row in rows if row.labels["tenant"] not in denied)
            if way == "targets differ":
                assert {"redis:cache/0", "redis:cache/1", "redis:cache/2"} == {row.target_key for row in rows}
            if way == "plans differ":
                assert {"/flush/a", "/flush/b", "/flush/c"} == {one.path for one in sink.requests}

    run(scenario())


@pytest.mark.parametrize("way", ["next attempt", "asked for"])
def test_another_attempt_of_a_shared_run_whose_remediation_has_changed(
    tmp_path: Path, redis_server: RedisServer, sink: WebServer, way: str
) -> None:
    """Each alert gets what the catalog says by now, also where the attempt before was one for all."""

    async def scenario() -> None:
        sink.status = 404
        limits = {"cooldown": "0s", "rate": "1000/1h", "attempts": 2 if way == "next attempt" else 1}
        before = flush(steps=[request(sink, "/all")], limits=limits)
        async with engine(sqlite(tmp_path), tmp_path, before, connections=cache(redis_server)) as one:
            await pause(one)
            for tenant in "ab":
                await one.fire(tenant=tenant)
                await one.reached(RunState.DEFERRED, count=1)
            sink.answering.clear()
            await resume(one)
            await until(lambda: has_called(sink), 10, "the first attempt")
            if way == "asked for":
                sink.answering.set()
                await one.ended(count=1)
            step = request(sink, "/flush/{{ labels.tenant }}", expect_status=[404])
            one.catalog.put(flush(steps=[step], limits=limits))
            sink.answering.set()
            if way == "asked for":
                (row,) = await one.runs()
                async with one.database.write(lock="intake") as tx:
                    await decide_again(tx, row.id, one.catalog(), Entry("again", actor="ann"), one.clock())
                one.parts.work.set()
            await one.ended(count=3)
            assert {"/all", "/flush/a", "/flush/b"} == {seen.path for seen in sink.requests}

    run(scenario())


def test_each_alert_is_tried_as_often_as_it_may_be(tmp_path: Path, redis_server: RedisServer, sink: WebServer) -> None:
    """The second alert begins while the first one's second attempt waits: neither shares in the other's count."""

    async def scenario() -> None:
        sink.status = 404
        limits = {"cooldown": "0s", "rate": "1000/1h", "attempts": 2, "breaker": 9}
        entry = flush(steps=[request(sink, "/all")], limits=limits)
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=cache(redis_server)) as one:
            sink.answering.clear()
            await one.fire(pod="a")
            await until(lambda: has_called(sink), 10, "the first attempt")
            await pause(one)
            sink.answering.set()
            await one.reached(RunState.FAILED, RunState.DEFERRED, count=2)
            await one.fire(pod="b")
            await one.reached(RunState.FAILED, RunState.DEFERRED, count=3)
            await resume(one)
            await one.ended()
            tried = select(run_episode.c.episode_id).join(ledger).where(ledger.c.admitted_at.is_not(None))
            async with one.database.read() as tx:
                counted = Counter((await tx.execute(tried)).scalars())
            assert [2, 2] == list(counted.values())

    run(scenario())


def test_a_second_attempt_that_alerts_share_stays_one(
    tmp_path: Path, redis_server: RedisServer, sink: WebServer
) -> None:
    """Its remediation changes while it waits, and one plan answers both as before."""

    async def scenario() -> None:
        sink.status = 404
        limits = {"cooldown": "0s", "rate": "1000/1h", "attempts": 2}
        entry = flush(steps=[request(sink, "/all")], limits=limits)
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=cache(redis_server)) as one:
            await pause(one)
            for pod in "ab":
                await one.fire(pod=pod)
                await one.reached(RunState.DEFERRED, count=1)
            sink.answering.clear()
            await resume(one)
            await until(lambda: has_called(sink), 10, "the first attempt")
            await pause(one)
            sink.answering.set()
            await one.reached(RunState.FAILED, RunState.DEFERRED, count=2)
            one.catalog.put(entry | {"max_age": "2h"})
            await resume(one)
            _, second = await one.ended(count=2)
            assert "parted" not in await one.kinds(second.id)

    run(scenario())


async def has_called(sink: WebServer) -> bool:
    """Whether the step for all was called."""
    return bool(asked(sink, "/all"))


def _page(body: str) -> dict[str, Any]:
    return {"action": "notify.send", "with": {"channel": "people", "title": "page", "body": body}}


def _channel(sink: WebServer) -> dict[str, NotifyChannel]:
    url = SecretSource(value=SecretStr(sink.url.replace("http://", "json://")))
    return {"people": NotifyChannel(urls=(url,))}


WHEN = {"check": "http.ok", "with": {"url": "http://127.0.0.1/{{ labels.pod }}"}}


def _run(entry: dict[str, Any] | None = None, **fields: Any) -> Run:
    """A run of this entry for an alert with the label `pod`."""
    remediation = read(**(entry or {}))
    alert = replace(new_episode(), labels={"alertname": "Down", "pod": "a"})
    return replace(pending_run(remediation, "digest", alert, NOW), **fields)


@pytest.mark.parametrize(
    ("other", "candidate", "shares"),
    [
        (_run(), _run(), True),
        (_run(), _run({"summary": "In other words.", "channel": "other"}), True),
        (_run(rung=1, admitted_at=NOW), _run(), False),  # the first rung is over
        (_run(), _run({"mode": "approve"}), False),  # a catalog that was changed
        (_run(), _run(approved_by="ann"), False),  # the yes would be lost
        (_run(attempt=2), _run(), False),  # of the two, one may be tried once more
        (_run(), _run(attempt=2), False),
        (_run(attempt=2), _run(attempt=2), True),
        (_run(approved_by="ann"), _run(), True),
        (_run(admitted_at=NOW), _run(approved_by="ann"), True),
        (_run({"when": [WHEN]}), _run({"when": [WHEN]}, labels={"alertname": "Down", "pod": "b"}), False),
        (_run({"when": [WHEN]}, admitted_at=NOW), _run({"when": [WHEN]}, labels={"pod": "b"}), True),  # it did hold
    ],
)
def test_which_run_answers_another_alert(other: Run, candidate: Run, *, shares: bool) -> None:
    """Where one plan does for both what each would do by itself."""
    assert shares == folding.answers(other, candidate, Target(backend="none", key="none:here"))
