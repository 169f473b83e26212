"""A target that cannot be reached is looked for only so long: then the next rung is tried, or people are told."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from app.backends.action import Context
from app.backends.connections import Connections
from app.backends.http.actions.request import Request, RequestParams
from app.backends.http.backend import HttpScope
from app.backends.instances import Clients
from app.backends.redis.backend import RedisConnection
from app.backends.secrets import SecretSource
from app.catalog.templates import TemplateContext
from app.domain.errors import TransientError
from app.domain.plans import Condition, PlannedStep
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.stages.planning import Planner, Trigger
from app.store.db.schema import message
from tests.support.aio import run
from tests.support.alerts import NOW
from tests.support.dial import Dial, Turn, TurnParams, dial, turns
from tests.support.engine import EVERYWHERE, Engine, engine, read, sqlite, until
from tests.support.entries import asked, request
from tests.support.web import WebServer

__all__ = ["dial"]
MINUTE = timedelta(minutes=1)
REASONS = [Reason.TARGET_UNREACHABLE, Reason.ROLLOUT_IN_PROGRESS]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether planning finds no target, each time for another reason; empty it and it is there again."""
    plan, gone, count = Turn.plan, [True], [0]

    async def planned(self: Turn, context: Context, params: TurnParams) -> PlannedStep:
        if not gone:
            return await plan(self, context, params)
        count[0] += 1
        raise TransientError(f"no answer, for the {count[0]}. time", reason=REASONS[count[0] % 2])

    monkeypatch.setattr(Turn, "plan", planned)
    return gone


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes something own what is behind `/second`."""
    plan = Request.plan

    async def planned(self: Request, context: Context, params: RequestParams) -> PlannedStep:
        step = await plan(self, context, params)
        owner = Condition(passes=False, reason=Reason.OWNED_BY_OPERATOR, message="it is another's")
        return step.model_copy(update={"conditions": (owner,) if params.url.endswith("/second") else ()})

    monkeypatch.setattr(Request, "plan", planned)


async def looked(one: Engine, by: timedelta = MINUTE) -> None:
    """Time goes on, and the run has been looked at once more."""
    (before,) = await one.runs()
    one.forward(by)

    async def again() -> bool:
        (row, *_) = await one.runs()
        return not row.active or row.not_before > one.clock()

    await until(again, 10, f"another look after {before.not_before}", one.runs)


def entry(dial: Dial, sink: WebServer | None = None, **fields: Any) -> dict[str, Any]:
    """Turns the dial; pages when that does not help."""
    rungs = [{"steps": [request(sink, "/page")]}] if sink is not None else []
    limits = {"cooldown": "0s", "rate": "1000/1h", "reach_within": "5m"}
    return turns(dial, **({"escalate": rungs, "limits": limits} | fields))


def test_the_next_rung_pages(tmp_path: Path, dial: Dial, sink: WebServer, away: list[bool]) -> None:
    """However the reason of the refusal changes meanwhile."""

    async def scenario() -> None:
        assert away
        async with engine(sqlite(tmp_path), tmp_path, entry(dial, sink), recheck=MINUTE) as one:
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            for _ in range(4):
                await looked(one)
            (row,) = await one.runs()
            assert (RunState.DEFERRED, 0, 0) == (row.state, row.rung, asked(sink, "/page"))
            one.forward(2 * MINUTE)
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, 1, 1) == (row.state, row.rung, asked(sink, "/page"))
            assert "could not be reached for 5m" in row.message
            assert [3] == dial.history

    run(scenario())


def test_the_last_rung_fails_and_people_are_told(tmp_path: Path, dial: Dial, away: list[bool]) -> None:
    """With what was found at last."""

    async def scenario() -> None:
        assert away
        async with engine(sqlite(tmp_path), tmp_path, entry(dial), recheck=MINUTE, channel="ops") as one:
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            one.forward(6 * MINUTE)
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, None) == (row.state, row.admitted_at)
            assert row.reason in REASONS
            async with one.database.read() as tx:
                (told,) = (await tx.execute(select(message))).all()
            assert "no answer, for the 2. time" in told.body

    run(scenario())


def test_a_target_that_answers_in_between_is_looked_for_anew(tmp_path: Path, dial: Dial, away: list[bool]) -> None:
    """The time counts from the last answer, whatever the run waited for then."""

    async def scenario() -> None:
        limits = {"cooldown": "0s", "rate": "1000/1h", "reach_within": "5m", "target_rate": "1/1h"}
        url = SecretSource(value=SecretStr("redis://127.0.0.1:9"))  # it is not asked
        connections = Connections(redis={"cache": RedisConnection(url=url)})
        same = entry(dial, limits=limits, target={"redis": {"instance": "cache"}})
        async with engine(sqlite(tmp_path), tmp_path, same, connections=connections, recheck=MINUTE) as one:
            away.clear()
            await one.fire(n="first")
            await one.ended(count=1)
            away.append(True)
            await one.fire(n="second")
            rows = await one.reached(RunState.DEFERRED, RunState.SUCCEEDED, count=2)
            assert rows[1].unreachable_since is not None
            away.clear()
            one.forward(MINUTE)

            async def refused() -> bool:
                return (await one.runs())[1].reason == Reason.RATE

            await until(refused, 10, "the target's rate to refuse", one.runs)
            assert (await one.runs())[1].unreachable_since is None

    run(scenario())


def test_an_alert_that_grows_too_old_meanwhile_pages_too(
    tmp_path: Path, dial: Dial, sink: WebServer, away: list[bool]
) -> None:
    """Where `max_age` is shorter than the time to reach the target."""

    async def scenario() -> None:
        assert away
        async with engine(sqlite(tmp_path), tmp_path, entry(dial, sink, max_age="2m"), recheck=MINUTE) as one:
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            one.forward(3 * MINUTE)
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, Reason.TARGET_UNREACHABLE, 1) == (row.state, row.reason, asked(sink, "/page"))

    run(scenario())


class Silent(Planner):
    """Whose targets never answer."""

    async def _resolve(self, trigger: Trigger) -> NoReturn:  # noqa: ARG002 - the planner's
        await asyncio.Event().wait()
        raise AssertionError


def test_a_page_is_planned_although_its_target_never_answers(sink: WebServer) -> None:
    """To wait for the target takes only a part of the time that planning has."""

    async def scenario() -> None:
        rungs = [{"steps": [request(sink, "/page")]}]
        target = {"kubernetes": {"kind": "Deployment", "namespace": "shop", "name": "api"}}
        planner = Silent(Clients(Connections(), EVERYWHERE), EVERYWHERE, 0.4)
        alert = TemplateContext({}, {}, "f", NOW)
        plan = await planner.plan(Trigger("run", read(target=target, escalate=rungs), 1, alert, NOW))
        assert "none" == plan.target.backend

    run(scenario())


@pytest.mark.usefixtures("away")
def test_a_changed_remediation_looks_for_its_target_anew(tmp_path: Path, dial: Dial, sink: WebServer) -> None:
    """It may be another target; that the one before could not be reached says nothing about it."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, entry(dial, sink), recheck=MINUTE) as one:
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            await looked(one, 4 * MINUTE)
            one.catalog.put(entry(dial, sink, max_age="2h"))
            await looked(one, 2 * MINUTE)
            (row,) = await one.runs()
            assert (RunState.DEFERRED, 0, 0) == (row.state, row.rung, asked(sink, "/page"))
            one.forward(5 * MINUTE)
            await one.ended(count=1)
            assert 1 == asked(sink, "/page")

    run(scenario())


@pytest.mark.usefixtures("away", "refusing")
@pytest.mark.parametrize("way", ["planning", "guard"])
@pytest.mark.parametrize("pages", [True, False])
def test_a_refused_rung_after_it(tmp_path: Path, dial: Dial, sink: WebServer, way: str, *, pages: bool) -> None:
    """The rung that pages is reached all the same; without one the run has failed, which people are told."""

    async def scenario() -> None:
        url = {"planning": "http://elsewhere.example/", "guard": f"{sink.url}/second"}[way]
        second = [{"steps": [{"action": "http.request", "with": {"url": url, "method": "PUT"}}]}]
        last = [{"steps": [request(sink, "/page")]}] if pages else []
        given = entry(dial, escalate=second + last)
        scope = EVERYWHERE.model_copy(update={"http": HttpScope(hosts=("127.0.0.1",))})
        async with engine(sqlite(tmp_path), tmp_path, given, recheck=MINUTE, channel="ops", scope=scope) as one:
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            one.forward(5 * MINUTE)
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, 2 if pages else 1) == (row.state, row.rung)
            assert int(pages) == asked(sink, "/page")
            assert 0 == asked(sink, "/second")
            async with one.database.read() as tx:
                assert [f"ended:{row.id}"] == list((await tx.execute(select(message.c.key))).scalars())

    run(scenario())
