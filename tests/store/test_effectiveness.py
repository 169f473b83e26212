"""Whether runs help: what a resolve, and the end of `effective_within`, do to run, breaker, standing and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.backends.connections import Connections
from app.backends.notify.backend import NotifyChannel
from app.backends.secrets import SecretSource
from app.domain.obstacles import Breaker
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.outcomes.effectiveness import judge
from app.store.db.schema import message
from app.store.gates import breakers
from app.store.gates.breakers import Ended
from tests.support.aio import run
from tests.support.engine import Engine, engine
from tests.support.entries import asked, ok, poke, request
from tests.support.web import WebServer

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NO_LIMITS = {"cooldown": "0s", "rate": "1000/1h", "target_rate": "1000/1h"}
Body = Callable[[Engine], Awaitable[None]]


@pytest.fixture
def replica(store: str, tmp_path: Path) -> Callable[..., None]:
    """Runs a test's body on a replica with these remediations."""

    def use(body: Body, *remediations: dict[str, Any], **policy: Any) -> None:
        async def whole() -> None:
            async with engine(store, tmp_path, *remediations, **policy) as one:
                await body(one)

        run(whole())

    return use


async def breaker(one: Engine, name: str = "poke") -> Breaker:
    """The state of a remediation's breaker."""
    async with one.database.read() as tx:
        return await breakers.get(tx, name)


def counted(one: Engine, metric: str, name: str = "poke") -> float:
    """The value of a counter of one remediation."""
    return one.parts.metrics.registry.get_sample_value(metric, {"remediation": name}) or 0.0


def test_an_alert_that_resolves_in_time_makes_its_run_effective(replica: Callable[..., None], sink: WebServer) -> None:
    """The breaker forgets the failures before, and nothing is judged later."""

    async def body(one: Engine) -> None:
        await one.fire(alertname="Down", number="1")
        await one.ended(count=1)
        one.forward(HOUR + MINUTE)
        assert 1 == await judge(one.parts)
        assert 1 == (await breaker(one)).failures

        await one.fire(alertname="Down", number="2")
        await one.ended(count=2)
        one.forward(30 * MINUTE)
        await one.resolve(alertname="Down", number="2")

        second = (await one.runs())[1]
        assert (True, None) == (second.effective, second.judge_at)
        assert second.resolved_at is not None
        assert Breaker() == await breaker(one)
        one.forward(2 * HOUR)
        assert 0 == await judge(one.parts)
        assert 1 == counted(one, "remediator_runs_effective_total")

    replica(body, poke(sink, limits=NO_LIMITS))


def test_an_alert_that_goes_on_makes_its_run_ineffective(replica: Callable[..., None], sink: WebServer) -> None:
    """Once, with an event and a count; the run itself stays as it ended, and is not judged too early."""

    async def body(one: Engine) -> None:
        await one.fire(alertname="Down")
        (ended,) = await one.ended(count=1)
        assert (RunState.SUCCEEDED, None) == (ended.state, ended.effective)
        one.forward(29 * MINUTE)
        assert 0 == await judge(one.parts)
        one.forward(2 * MINUTE)
        assert 1 == await judge(one.parts)
        assert 0 == await judge(one.parts)

        (judged,) = await one.runs()
        assert (RunState.SUCCEEDED, False, None) == (judged.state, judged.effective, judged.judge_at)
        assert "ineffective" == (await one.kinds(judged.id))[-1]
        assert 1 == (await breaker(one)).failures
        assert 1 == counted(one, "remediator_runs_ineffective_total")

    replica(body, poke(sink, effective_within="30m"))


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it
def test_runs_that_only_tell_are_not_judged(replica: Callable[..., None], sink: WebServer) -> None:
    """Else the page whose alert goes on would open the breaker, and the next one would not be sent."""
    url = SecretSource(value=SecretStr(sink.url.replace("http://", "json://")))
    page = {"action": "notify.send", "with": {"channel": "ops", "title": "page", "body": "look"}}

    async def body(one: Engine) -> None:
        for number in ("1", "2", "3", "4"):
            await one.fire(alertname="Down", number=number)
            await one.ended()
            one.forward(2 * HOUR)
            assert 0 == await judge(one.parts)
        ended = await one.ended(count=4)
        assert [(RunState.SUCCEEDED, None)] * 4 == [(row.state, row.effective) for row in ended]
        assert Breaker() == await breaker(one)

        await one.resolve(alertname="Down", number="1")
        first = (await one.runs())[0]
        assert (None, "resolved") == (first.effective, (await one.kinds(first.id))[-1])
        assert first.resolved_at is not None
        for judged in ("effective", "ineffective"):
            assert 0 == counted(one, f"remediator_runs_{judged}_total")

    channels = Connections(notify={"ops": NotifyChannel(urls=(url,))})
    replica(body, poke(sink, steps=[page], limits=NO_LIMITS), connections=channels)


def test_a_late_resolve_changes_the_time_and_not_the_verdict(replica: Callable[..., None], sink: WebServer) -> None:
    """What did not help in time did not help."""

    async def body(one: Engine) -> None:
        await one.fire(alertname="Down")
        await one.ended(count=1)
        one.forward(2 * HOUR)
        await judge(one.parts)
        await one.resolve(alertname="Down")

        (late,) = await one.runs()
        assert late.effective is False
        assert late.resolved_at is not None
        assert ["ineffective", "resolved"] == (await one.kinds(late.id))[-2:]
        assert 1 == (await breaker(one)).failures
        assert 0 == counted(one, "remediator_runs_effective_total")

    replica(body, poke(sink))


def test_ineffective_runs_open_the_breaker_and_people_are_told(replica: Callable[..., None], sink: WebServer) -> None:
    """The next alert waits, and the message names the remediation."""

    async def body(one: Engine) -> None:
        for number in ("1", "2"):
            await one.fire(alertname="Down", number=number)
        await one.ended(count=2)
        one.forward(2 * HOUR)
        await judge(one.parts)

        opened = await breaker(one)
        assert (2, True) == (opened.failures, opened.opened_at is not None)
        async with one.database.read() as tx:
            titles = list((await tx.execute(message.select())).all())
        assert ["Breaker open: remediation poke has stopped"] == [row.title for row in titles]
        await one.fire(alertname="Down", number="3")
        waiting = (await one.reached(RunState.SUCCEEDED, RunState.DEFERRED, count=3))[2]
        assert (RunState.DEFERRED, Reason.BREAKER_OPEN) == (waiting.state, waiting.reason)
        assert 2 == asked(sink)

    replica(body, poke(sink, limits=NO_LIMITS | {"breaker": 2}), channel="oncall")


def test_nothing_acts_on_a_run_that_has_ended(replica: Callable[..., None], sink: WebServer) -> None:
    """Without `settle` the first rung ends the run; rungs that are left stay untried when it turns out not to help."""

    async def body(one: Engine) -> None:
        alert = one.firing(alertname="Down")
        await one.deliver(alert)
        await one.ended(count=1)
        one.forward(2 * HOUR)
        assert 1 == await judge(one.parts)
        one.forward(HOUR)
        await one.deliver(alert)
        (only,) = await one.ended(count=1)
        assert (RunState.SUCCEEDED, 0, False) == (only.state, only.rung, only.effective)
        assert (1, 0) == (asked(sink), asked(sink, "/second"))

    second = {"steps": [request(sink, "/second")], "verify": [ok(sink)]}
    replica(body, poke(sink, escalate=[second]))


def test_replicas_judge_a_run_once(postgres_database: str, tmp_path: Path, sink: WebServer) -> None:
    """However many look at the same moment; an SQLite store has one replica."""

    async def body() -> None:
        entry = poke(sink, limits=NO_LIMITS)
        async with (
            engine(postgres_database, tmp_path, entry) as one,
            engine(postgres_database, tmp_path, entry, clock=one.clock, working=False, owner="replica-2") as two,
        ):
            for number in range(12):
                await one.fire(alertname="Down", number=str(number))
            ended = await one.ended(count=12)
            one.forward(2 * HOUR)
            await asyncio.gather(*(judge(each.parts) for each in (one, two, one, two)))
            for row in ended:
                assert 1 == (await one.kinds(row.id)).count("ineffective")
            total = sum(counted(each, "remediator_runs_ineffective_total") for each in (one, two))
            assert 12 == total

    run(body())


def test_failures_at_the_same_moment_are_all_counted(replica: Callable[..., None], sink: WebServer) -> None:
    """Also the first ones, for which there is no row yet that could be locked."""

    async def body(one: Engine) -> None:
        limits = one.catalog.current.remediations["poke"].limits

        async def fail(number: int) -> None:
            async with one.parts.turn() as turn:
                await breakers.record(turn.tx, Ended("poke", f"run-{number}", helped=False), limits, turn.now)

        await asyncio.gather(*(fail(number) for number in range(8)))
        assert 8 == (await breaker(one)).failures

    replica(body, poke(sink, limits={"breaker": 100}), working=False)


def test_an_alert_that_is_back_within_a_day_is_counted(replica: Callable[..., None], sink: WebServer) -> None:
    """Once for each return, for the remediation that had helped; one that is back later is another story."""

    async def body(one: Engine) -> None:
        for pause, expected in ((HOUR, 0), (30 * HOUR, 1), (HOUR, 1)):
            await one.fire(alertname="Down")
            await one.ended()
            one.forward(MINUTE)
            await one.resolve(alertname="Down")
            assert expected == counted(one, "remediator_recurrences_total")
            one.forward(pause)
        await one.fire(alertname="Down")
        await one.fire(alertname="Down", number="other")
        assert 2 == counted(one, "remediator_recurrences_total")

    replica(body, poke(sink, limits=NO_LIMITS))
