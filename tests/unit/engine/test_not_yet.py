"""Nothing to do yet is an outcome of its own: the run waits for that time, and nothing counts it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.engine import Row

from app.backends.action import Action, Context
from app.backends.actions import actions
from app.backends.connections import Connections
from app.backends.redis.backend import RedisConnection
from app.backends.secrets import SecretSource
from app.domain.model import JsonObject, Value
from app.domain.plans import NotYet, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk
from app.domain.states import RunState
from app.store.db.schema import message
from app.store.gates import breakers, facts
from tests.support.aio import run
from tests.support.dial import Dial, Turn, dial, turn
from tests.support.engine import Engine, engine, remediation, sqlite, until
from tests.support.entries import asked, request
from tests.support.web import WebServer

__all__ = ["dial"]
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


class Nothing(Value):
    """No parameters."""


class Pick(Action[Nothing]):
    """Picks what is ripe; applying it is counted."""

    name = "test.pick"
    summary = "Pick what is ripe."
    Params = Nothing
    risk = Risk.LOW
    repeatable = True
    ripe_at: ClassVar[datetime | None] = None  # None: nothing grows here
    picked: ClassVar[list[datetime]] = []

    async def plan(self, context: Context, params: Nothing) -> PlannedStep:
        """What is ripe by now."""
        is_ripe = self.ripe_at is not None and context.now >= self.ripe_at
        waits = None if is_ripe or self.ripe_at is None else NotYet(message="it is green", at=self.ripe_at)
        return self.planned(params, summary="pick", changes=is_ripe, not_yet=waits)

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:  # noqa: ARG002 - the contract's
        """Pick."""
        self.picked.append(context.now)
        return {}


@pytest.fixture(autouse=True)
def _garden(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(actions(), "test.pick", Pick())
    yield
    Pick.ripe_at, Pick.picked = None, []


def pick(**fields: Any) -> dict[str, Any]:
    """A remediation that picks, within the strictest limits."""
    limits = {"cooldown": "1h", "rate": "1/1d", "target_rate": "1/1d", "breaker": 1}
    return remediation(**({"steps": [{"action": "test.pick"}], "limits": limits, "max_age": "6h"} | fields))


async def waiting(one: Engine) -> Row[Any]:
    """The run, once there is nothing to do yet."""

    async def there() -> list[Row[Any]]:
        return [row for row in await one.runs() if row.reason == Reason.NOT_YET and row.lease_owner is None]

    (row,) = await until(there, 10, "a run that waits", one.runs)
    return row


def test_it_is_done_as_soon_as_there_is_something_to_do(tmp_path: Path) -> None:
    """And until then nothing was counted: no rate, no cooldown, no breaker, no attempt."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, pick()) as one:
            Pick.ripe_at = one.clock() + HOUR
            await one.fire()
            row = await waiting(one)
            assert (RunState.DEFERRED, None, "it is green") == (row.state, row.admitted_at, row.message)
            assert Pick.ripe_at <= row.not_before < Pick.ripe_at + MINUTE
            async with one.database.read() as tx:
                assert {} == await breakers.get_all(tx)
                assert None is await facts.last_outcome(tx, row.target_key, "other")
            one.forward(HOUR + MINUTE)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, 1, 1) == (row.state, row.attempt, len(Pick.picked))

    run(scenario())


def test_without_the_word_of_the_action_nothing_to_do_is_done(tmp_path: Path) -> None:
    """As before: the target is as it should be."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, pick()) as one:
            await one.fire()
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, Reason.NOTHING_TO_DO) == (row.state, row.reason)

    run(scenario())


def test_when_the_alert_is_too_old_the_next_rung_is_tried(tmp_path: Path, sink: WebServer) -> None:
    """It may page; the time that the action named is not waited for."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, pick(escalate=[{"steps": [request(sink, "/page")]}])) as one:
            Pick.ripe_at = one.clock() + 48 * HOUR
            await one.fire()
            row = await waiting(one)
            assert row.not_before - one.clock() <= 6 * HOUR + MINUTE
            one.forward(6 * HOUR + MINUTE)
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, Reason.NOT_YET, 1) == (row.state, row.reason, asked(sink, "/page"))

    run(scenario())


def test_without_a_next_rung_it_gives_up(tmp_path: Path) -> None:
    """That is no failure of the remediation; people are told."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, pick(), channel="ops", tell_waiting=timedelta()) as one:
            Pick.ripe_at = one.clock() + 48 * HOUR
            await one.fire()
            await waiting(one)
            one.forward(6 * HOUR + MINUTE)
            (row,) = await one.ended(count=1)
            assert (RunState.DENIED, Reason.MAX_AGE) == (row.state, row.reason)
            async with one.database.read() as tx:
                assert {} == await breakers.get_all(tx)
                (told,) = (await tx.execute(select(message))).all()
            assert "Gave up: poke" == told.title.partition(" on ")[0]
            assert "it is green" in told.body

    run(scenario())


def test_a_further_rung_waits_no_longer(tmp_path: Path, dial: Dial, sink: WebServer) -> None:
    """The first has acted, the second has nothing to do yet: the third follows when the alert is too old."""

    async def scenario() -> None:
        sink.status = 404
        rungs = [{"steps": [{"action": "test.pick"}]}, {"steps": [turn(dial, to=5)]}]
        limits = {"cooldown": "0s", "rate": "1000/1h"}
        async with engine(
            sqlite(tmp_path), tmp_path, pick(steps=[request(sink)], escalate=rungs, limits=limits)
        ) as one:
            Pick.ripe_at = one.clock() + 48 * HOUR
            await one.fire()
            row = await waiting(one)
            assert (1, True) == (row.rung, row.holds_target)
            one.forward(6 * HOUR + MINUTE)
            (row,) = await one.ended(count=1)
            assert (2, 5) == (row.rung, dial.value)

    run(scenario())


@pytest.mark.parametrize("begins", ["waiting", "failing"])
@pytest.mark.parametrize("pages", [True, False])
def test_a_further_rung_of_an_alert_that_is_too_old(
    tmp_path: Path, sink: WebServer, begins: str, *, pages: bool
) -> None:
    """It has nothing to do yet either and is not waited for: the next rung pages, and without one people are told."""

    async def scenario() -> None:
        rungs = [{"steps": [{"action": "test.pick"}]}, {"steps": [request(sink, "/page")]}]
        entry = pick(escalate=rungs if pages else rungs[:1], channel="ops")
        if begins == "failing":  # when the alert is too old already
            entry |= {"steps": [request(sink)]}
            sink.answering.clear()
        async with engine(sqlite(tmp_path), tmp_path, entry, tell_waiting=timedelta()) as one:
            Pick.ripe_at = one.clock() + 48 * HOUR
            await one.fire()
            if begins == "failing":

                async def in_step() -> bool:
                    return asked(sink) == 1

                await until(in_step, 10, "the first step", one.runs)
            else:
                await waiting(one)
            sink.status = 404
            one.forward(6 * HOUR + MINUTE)
            sink.answering.set()
            (row,) = await one.ended(count=1)
            assert (pages, 0) == (asked(sink, "/page") == 1, len(Pick.picked))
            async with one.database.read() as tx:
                ended = select(message.c.title).where(message.c.key == f"ended:{row.id}")
                titles = [title.partition(":")[0] for title in (await tx.execute(ended)).scalars()]
                known = await breakers.get_all(tx)
            if pages or begins == "failing":
                assert (RunState.FAILED, ["Failed"]) == (row.state, titles)
            else:
                assert (RunState.DENIED, Reason.MAX_AGE, ["Gave up"], {}) == (row.state, row.reason, titles, known)
                assert "it is green; the alert is older than max_age (6h)" in row.message

    run(scenario())


def test_a_dry_run_does_not_wait(tmp_path: Path) -> None:
    """It ends at once and shows what it would have waited for."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, pick(mode="observe")) as one:
            Pick.ripe_at = one.clock() + HOUR
            await one.fire()
            (row,) = await one.ended(count=1)
            assert RunState.OBSERVED == row.state
            assert ["defer"] == [said["verdict"] for said in row.decisions if said["guard"] == "not_yet"]

    run(scenario())


def test_nobody_is_asked_before_there_is_something_to_do(tmp_path: Path) -> None:
    """The question is put when the plan changes something."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, pick(mode="approve")) as one:
            Pick.ripe_at = one.clock() + HOUR
            await one.fire()
            await waiting(one)
            one.forward(HOUR + MINUTE)
            await one.reached(RunState.AWAITING_APPROVAL, count=1)

    run(scenario())


@pytest.mark.parametrize("way", ["it tells people", "it acts"])
def test_another_step_that_has_something_to_do(
    tmp_path: Path, dial: Dial, sink: WebServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A message waits with the step that it is about; what acts on the target is not held up."""

    async def scenario() -> None:
        other = request(sink, "/tell") if way == "it tells people" else turn(dial, to=5)
        entry = {"steps": [{"action": "test.pick"}, other], "target": {"redis": {"instance": "cache"}}}
        url = SecretSource(value=SecretStr("redis://127.0.0.1:9"))  # it is not asked
        connections = Connections(redis={"cache": RedisConnection(url=url)})
        monkeypatch.setattr(Turn, "target_backend", "redis")
        monkeypatch.setattr(Pick, "target_backend", "redis")
        async with engine(sqlite(tmp_path), tmp_path, pick(**entry), connections=connections) as one:
            Pick.ripe_at = one.clock() + HOUR
            await one.fire()
            if way == "it acts":
                await one.ended(count=1)
                assert (0, 5) == (len(Pick.picked), dial.value)
                return
            await waiting(one)
            assert 0 == asked(sink, "/tell")

    run(scenario())


def test_an_alert_that_resolves_meanwhile_cancels(tmp_path: Path) -> None:
    """Nothing was done."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, pick()) as one:
            Pick.ripe_at = one.clock() + HOUR
            await one.fire()
            await waiting(one)
            await one.resolve()
            (row,) = await one.ended(count=1)
            assert (RunState.CANCELLED, Reason.RESOLVED_BEFORE_START) == (row.state, row.reason)

    run(scenario())
