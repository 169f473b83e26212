"""Earned autonomy: what counts for and against a remediation, and what its mode is by that, on both stores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.earned_mode import Standing
from app.domain.remediation import Mode
from app.domain.states import RunState
from app.engine.outcomes import earned_mode
from app.engine.outcomes.effectiveness import follow, judge
from app.store.db.schema import event, message
from app.store.gates import earned_modes
from app.store.ledger import approvals
from app.store.ledger.approvals import DecisionKind, HumanDecision
from tests.support.aio import run
from tests.support.alerts import alert
from tests.support.engine import Engine, engine
from tests.support.entries import asked, poke
from tests.support.web import WebServer

HOUR = timedelta(hours=1)
LIMITS = {"cooldown": "0s", "rate": "1000/1h", "target_rate": "1000/1h", "storm": "1000/1h"}
Body = Callable[[Engine], Awaitable[None]]
Use = Callable[..., None]


@pytest.fixture
def replica(store: str, tmp_path: Path) -> Use:
    """Runs a test's body on a replica with one remediation."""

    def use(body: Body, *remediations: dict[str, Any]) -> None:
        async def whole() -> None:
            async with engine(store, tmp_path, *remediations, channel="oncall") as one:
                await body(one)

        run(whole())

    return use


def earning(sink: WebServer, **fields: Any) -> dict[str, Any]:
    """A remediation that has to earn its mode with two good runs for each step."""
    earn = {"approve_after": 2, "auto_after": 2, "demote_after": 2} | fields.pop("earn", {})
    return poke(sink, earn=earn, limits=LIMITS | fields.pop("limits", {}), **fields)


async def held(one: Engine) -> Standing | None:
    """Where the remediation stands."""
    async with one.database.read() as tx:
        return await earned_modes.get(tx, "poke")


async def said(one: Engine) -> list[str]:
    """What the audit has about the remediation."""
    async with one.database.read() as tx:
        query = select(event.c.message).where(event.c.run_id == "catalog/poke").order_by(event.c.id)
        return [text for (text,) in await tx.execute(query)]


async def told(one: Engine) -> list[str]:
    """The titles of what people were told about its mode."""
    async with one.database.read() as tx:
        query = select(message.c.title).where(message.c.key.startswith("standing:")).order_by(message.c.id)
        return [title for (title,) in await tx.execute(query)]


async def episode(
    one: Engine, number: int, *, resolves: bool = True, verb: DecisionKind = DecisionKind.APPROVE
) -> RunState:
    """Let one alert come, be decided, answered by a person where one is asked, and go; the state of its run."""
    firing = one.firing(alertname="Down", number=str(number))
    await one.deliver(firing)
    settled = (*(state for state in RunState if state.is_final), RunState.AWAITING_APPROVAL)
    waiting = (await one.reached(*settled, count=number))[-1]
    if waiting.state == RunState.AWAITING_APPROVAL:
        async with one.parts.turn() as turn:
            await approvals.decide(turn.tx, waiting.id, HumanDecision(verb, "ada"), turn.now)
        one.parts.work.set()
        await one.ended(count=number)
    if resolves:
        await one.deliver(alert("resolved", starts_at=one.clock(), ends_at=one.clock(), **firing["labels"]))
    else:
        one.forward(2 * HOUR)
        await judge(one.parts)
    state: RunState = RunState((await one.runs())[-1].state)
    return state


def test_a_remediation_earns_its_mode_and_loses_it(replica: Use, sink: WebServer) -> None:
    """Observe, approve, auto by what it did well; one step down after two bad runs in a row, and told each time."""

    async def body(one: Engine) -> None:
        await follow(one.parts, None)
        states = [await episode(one, number) for number in (1, 2)]
        assert [RunState.OBSERVED] * 2 == states
        assert 0 == asked(sink)
        assert (Mode.APPROVE, 0, 0) == numbers(await held(one))

        states = [await episode(one, number) for number in (3, 4)]
        assert [RunState.SUCCEEDED] * 2 == states
        assert 2 == asked(sink)
        assert (Mode.AUTO, 0, 0) == numbers(await held(one))

        await episode(one, 5)
        assert (Mode.AUTO, 1, 0) == numbers(await held(one))
        await episode(one, 6, resolves=False)
        assert (Mode.AUTO, 0, 1) == numbers(await held(one))
        await episode(one, 7, resolves=False)
        assert (Mode.APPROVE, 0, 0) == numbers(await held(one))

        assert [
            "begins at observe; it may come to auto",
            "promoted from observe to approve after 2 good runs in a row",
            "promoted from approve to auto after 2 good runs in a row",
            "demoted from auto to approve after 2 bad runs in a row",
        ] == await said(one)
        changes = ["approve", "auto", "approve"]
        assert [f"Remediation poke is in mode {mode}" for mode in changes] == await told(one)

    replica(body, earning(sink))


def numbers(found: Standing | None) -> tuple[Mode, int, int] | None:
    """The part of a standing that is counted."""
    return None if found is None else (found.mode, found.good, found.bad)


def test_what_would_have_been_refused_earns_nothing(replica: Use, sink: WebServer) -> None:
    """Observed with another objection: it would not have acted."""

    async def body(one: Engine) -> None:
        old = alert(starts_at=one.clock() - 3 * HOUR, alertname="Down")
        await one.deliver(old)
        assert RunState.DENIED == (await one.ended(count=1))[0].state
        async with one.database.write() as tx:
            await earned_modes.begin(tx, "unrelated", Standing("", Mode.OBSERVE, one.clock()))
        assert await held(one) is None
        # A full rate would put it off: the dry run ends at once, and shows that.
        await episode(one, 2)
        assert (Mode.OBSERVE, 1, 0) == numbers(await held(one))

    replica(body, earning(sink, max_age="1h"))


def test_its_own_mode_is_as_far_as_it_comes(replica: Use, sink: WebServer) -> None:
    """However good its record is."""

    async def body(one: Engine) -> None:
        for number in range(1, 6):
            await episode(one, number)
        found = await held(one)
        assert found is not None
        assert (Mode.APPROVE, 3) == (found.mode, found.good)

    replica(body, earning(sink, mode="approve"))


def test_failures_count_against_it(replica: Use, sink: WebServer) -> None:
    """Also when the alert resolves by itself."""

    async def body(one: Engine) -> None:
        sink.status = 400
        for number in (1, 2):
            assert RunState.FAILED == await episode(one, number)
        assert (Mode.APPROVE, 0, 0) == numbers(await held(one))

    replica(body, earning(sink, earn={"start": "auto"}))


def test_a_remediation_that_changes_begins_anew(replica: Use, sink: WebServer) -> None:
    """What it earned was earned by what it did then; another description is no change."""

    async def body(one: Engine) -> None:
        for number in (1, 2):
            await episode(one, number)
        assert (Mode.APPROVE, 0, 0) == numbers(await held(one))
        one.catalog.put(earning(sink, summary="Other words."))
        await follow(one.parts, None)
        assert (Mode.APPROVE, 0, 0) == numbers(await held(one))

        one.catalog.put(earning(sink, max_age="3h"))
        async with one.database.read() as tx:
            remediation = one.catalog.current.remediations["poke"]
            assert await earned_mode.earned(tx, remediation, one.clock()) is Mode.OBSERVE  # before anything is written
        await follow(one.parts, None)
        assert (Mode.OBSERVE, 0, 0) == numbers(await held(one))
        assert "the remediation has changed; it begins anew at observe, after approve" == (await said(one))[-1]
        assert "Remediation poke is in mode observe" == (await told(one))[-1]

    replica(body, earning(sink))


def test_a_run_of_the_older_form_says_nothing_about_the_new_one(replica: Use, sink: WebServer) -> None:
    """Its alert resolves after the catalog was changed."""

    async def body(one: Engine) -> None:
        await one.fire(alertname="Down")
        await one.ended(count=1)
        one.catalog.put(earning(sink, earn={"start": "auto"}, max_age="3h"))
        await follow(one.parts, None)
        await one.resolve(alertname="Down")
        assert (Mode.AUTO, 0, 0) == numbers(await held(one))

    replica(body, earning(sink, earn={"start": "auto"}))


def test_without_earn_the_mode_is_as_it_is_written(replica: Use, sink: WebServer) -> None:
    """Nothing is kept about it."""

    async def body(one: Engine) -> None:
        assert RunState.SUCCEEDED == await episode(one, 1)
        assert await held(one) is None
        assert [] == await said(one)

    replica(body, poke(sink))


def test_replicas_count_each_run_once(store: str, tmp_path: Path, sink: WebServer) -> None:
    """They end forty observed runs: the standing has them all, and was promoted once."""

    async def body() -> None:
        entry = earning(sink, earn={"approve_after": 35, "auto_after": 1000})
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(engine(store, tmp_path, entry, channel="oncall"))
            if not one.database.is_sqlite:
                others = engine(store, tmp_path, entry, channel="oncall", clock=one.clock, owner="replica-2")
                await stack.enter_async_context(others)
            for number in range(40):
                await one.fire(alertname="Down", number=str(number))
            ended = await one.reached(*RunState, count=40)
            assert len(ended) == 40
            await one.reached(RunState.OBSERVED, RunState.AWAITING_APPROVAL, count=40)
            observed = sum(row.state == RunState.OBSERVED for row in await one.runs())
            assert observed >= 35
            assert (Mode.APPROVE, 0, 0) == numbers(await held(one))
            assert ["Remediation poke is in mode approve"] == await told(one)

    run(body())
