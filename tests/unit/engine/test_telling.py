"""People hear of runs that failed, were interrupted, gave up or wait for long: each once, and of no others."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.engine import Row

from app.backends.connections import Connections
from app.backends.notify.backend import NotifyChannel
from app.backends.secrets import SecretSource
from app.domain.endings import Ending, is_told
from app.domain.obstacles import Hold
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Purpose
from app.domain.states import FINAL_STATES, RunState
from app.engine.background.outbox import send_due
from app.engine.outcomes.effectiveness import tell_waiting
from app.store.db.schema import message
from app.store.gates import pauses
from app.store.gates.pauses import Held
from app.store.ledger import approvals
from app.store.ledger import outbox as messages
from app.store.ledger.approvals import DecisionKind, HumanDecision
from app.store.ledger.outbox import Draft
from tests.support.aio import run
from tests.support.engine import Engine, engine, sqlite
from tests.support.entries import poke
from tests.support.web import WebServer

# Apprise imports it for Python 3.13, where it is gone, as a probe.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
LIMITS = {"cooldown": "0s", "rate": "1000/1h", "attempts": 2}
HALF_AN_HOUR = timedelta(minutes=30)


def _channel(people: WebServer) -> Connections:
    """A configuration whose channel `ops` is this receiver."""
    url = SecretSource(value=SecretStr(people.url.replace("http://", "json://")))
    return Connections(notify={"ops": NotifyChannel(urls=(url,))})


async def told(one: Engine) -> list[Row[Any]]:
    """All messages, oldest first."""
    async with one.database.read() as tx:
        return list(await tx.execute(select(message).order_by(message.c.id)))


def test_a_run_that_failed_is_told(tmp_path: Path, sink: WebServer) -> None:
    """With its reason, and with the attempt that follows or the word that nothing does."""

    async def scenario() -> None:
        sink.status = 404
        entry = poke(sink, limits=LIMITS, runbook_url="https://docs.example/poke")
        async with engine(sqlite(tmp_path), tmp_path, entry, channel="ops", external_url="https://remedy") as one:
            await one.fire()
            first, second = await one.ended(count=2)
            messages = await told(one)
            assert [f"ended:{first.id}", f"ended:{second.id}"] == [row.key for row in messages]
            assert ["Failed: poke"] * 2 == [row.title for row in messages]
            assert f"Run {second.id} tries once more." in messages[0].body
            assert "it needs a person" in messages[1].body
            assert all("404" in row.body and "https://docs.example/poke" in row.body for row in messages)
            assert f"https://remedy/remediations/{first.id}" in messages[0].body

    run(scenario())


def test_a_run_that_succeeds_is_no_news(tmp_path: Path, sink: WebServer) -> None:
    """Neither is one that the alert's end makes needless."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), channel="ops") as one:
            await one.fire()
            await one.ended(count=1)
            assert [] == await told(one)

    run(scenario())


async def arrived(one: Engine, people: WebServer) -> list[tuple[str, str]]:
    """Title and type of each message that came to the receiver, after whatever is due was sent."""
    while await send_due(one.parts):
        continue
    bodies = [json.loads(seen.body) for seen in people.requests]
    return [(body["title"].partition(":")[0].partition("?")[0], body["type"]) for body in bodies]


@pytest.mark.parametrize(
    ("status", "end"), [(200, ("Done", "success")), (404, ("Failed", "failure"))], ids=["succeeds", "fails"]
)
def test_a_message_arrives_with_the_type_that_it_has(
    tmp_path: Path, sink: WebServer, health: WebServer, status: int, end: tuple[str, str]
) -> None:
    """A service shows it in another colour, or wakes somebody by it."""

    async def scenario() -> None:
        sink.status = status
        policy = {"channel": "ops", "connections": _channel(health)}
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, mode="approve"), **policy) as one:
            await one.fire()
            (row,) = await one.reached(RunState.AWAITING_APPROVAL, count=1)
            assert [("Approve", "warning")] == await arrived(one, health)
            async with one.database.write() as tx:
                await approvals.decide(tx, row.id, HumanDecision(DecisionKind.APPROVE, "ann"), one.clock())
            one.parts.work.set()
            await one.ended(count=1)
            assert [("Approved, not done yet", "info"), end] == (await arrived(one, health))[1:]

    run(scenario())


@pytest.mark.parametrize("known", [None, "alarm"])
def test_a_message_that_another_release_has_queued_is_a_warning(
    tmp_path: Path, health: WebServer, known: str | None
) -> None:
    """An older one knew no other, and a newer one may know more."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, connections=_channel(health), working=False) as one:
            async with one.database.write() as tx:
                await messages.queue(tx, Draft("key", "ops", "Paused: everything", "body"), one.clock())
                await tx.execute(update(message).values(type=known))
            assert [("Paused", "warning")] == await arrived(one, health)

    run(scenario())


def test_nobody_is_told_without_a_channel(tmp_path: Path, sink: WebServer) -> None:
    """The audit of the run says nothing about it either."""

    async def scenario() -> None:
        sink.status = 404
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            await one.fire()
            (row,) = await one.ended(count=1)
            assert "failed" == (await one.kinds(row.id))[-1]

    run(scenario())


@pytest.mark.parametrize(("channel", "messages"), [("ops", 0), ("other", 1)])
def test_a_rung_that_told_the_channel_is_not_repeated(
    tmp_path: Path, sink: WebServer, health: WebServer, channel: str, messages: int
) -> None:
    """The page of the last rung is the message; another channel does not know of it."""

    async def scenario() -> None:
        connections = _channel(health)
        page = {"action": "notify.send", "with": {"channel": "ops", "title": "page", "body": "look"}}
        entry = poke(sink, escalate=[{"steps": [page]}])
        sink.status = 404
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections, channel=channel) as one:
            await one.fire()
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, 1) == (row.state, row.rung)
            assert messages == len(await told(one))

    run(scenario())


def test_a_run_that_waits_for_long_is_told_once(tmp_path: Path, sink: WebServer) -> None:
    """After the time that can be set, whatever it waits for; and not again when it waits for something else."""

    async def scenario() -> None:
        entry = poke(sink)
        async with engine(sqlite(tmp_path), tmp_path, entry, channel="ops", tell_waiting=HALF_AN_HOUR) as one:
            await _pause(one, "ann")
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            assert 0 == await tell_waiting(one.parts)
            one.forward(HALF_AN_HOUR)
            assert 1 == await tell_waiting(one.parts)
            (row,) = await told(one)
            assert row.title.startswith("Waits: poke")
            assert "30m" in row.body
            assert "paused by ann" in row.body
            one.forward(2 * HALF_AN_HOUR)
            await tell_waiting(one.parts)
            assert 1 == len(await told(one))
            assert 0 == await tell_waiting(one.parts)

    run(scenario())


def test_a_dry_run_that_waits_is_not_told(tmp_path: Path, sink: WebServer) -> None:
    """It was put off while its remediation could still act."""

    async def scenario() -> None:
        entry = poke(sink)
        async with engine(sqlite(tmp_path), tmp_path, entry, channel="ops", tell_waiting=HALF_AN_HOUR) as one:
            await _pause(one, "ann")
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            await one.worker.drain(1)
            one.forward(HALF_AN_HOUR)
            dry = replace(one.parts, policy=replace(one.parts.policy, ceiling=Mode.OBSERVE))
            assert 1 == await tell_waiting(dry)
            assert [] == await told(one)

    run(scenario())


def test_a_run_that_went_on_is_not_told_as_waiting(tmp_path: Path, sink: WebServer) -> None:
    """It was deferred, and then it was done."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), channel="ops", tell_waiting=HALF_AN_HOUR) as one:
            await _pause(one, "ann")
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            async with one.database.write() as tx:
                await pauses.take(tx, Held("all"), "ann", "ann", one.clock())
            one.parts.work.set()
            await one.ended(count=1)
            one.forward(HALF_AN_HOUR)
            assert 0 == await tell_waiting(one.parts)
            assert [] == await told(one)

    run(scenario())


def test_a_run_that_gives_up_is_told(tmp_path: Path, sink: WebServer) -> None:
    """It was put off until its alert was too old."""

    async def scenario() -> None:
        entry = poke(sink, max_age="2h")
        async with engine(sqlite(tmp_path), tmp_path, entry, channel="ops", tell_waiting=timedelta()) as one:
            await _pause(one, "ann")
            await one.fire()
            await one.reached(RunState.DEFERRED, count=1)
            one.forward(5 * HALF_AN_HOUR)
            (row,) = await one.ended(count=1)
            assert (RunState.DENIED, Reason.MAX_AGE) == (row.state, row.reason)
            assert ["Gave up: poke"] == [one.title for one in await told(one)]

    run(scenario())


async def _pause(one: Engine, who: str) -> None:
    async with one.database.write() as tx:
        await pauses.put(tx, Held("all"), Hold("all", who, "because", None), one.clock())


def ending(**fields: Any) -> Ending:
    """A remedy that acted and failed, with what a test cares about put over it."""
    failed = {"state": RunState.FAILED, "reason": None, "purpose": Purpose.REMEDY, "acted": True, "firing": True}
    return Ending(**(failed | fields))


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_which_ends_are_told(state: RunState) -> None:
    """Those after which nothing is done and no person has said so."""
    assert (state in {RunState.FAILED, RunState.INTERRUPTED}) == is_told(ending(state=state, acted=False))


def test_what_is_not_told() -> None:
    """A dry run that cannot be planned, a run that tells of itself, an alert that came too late at once."""
    assert not is_told(ending(acted=False, observes=True))
    assert is_told(ending(acted=True, observes=True))
    assert not is_told(ending(purpose=Purpose.UNDO))
    late = {"state": RunState.DENIED, "reason": Reason.MAX_AGE, "acted": False}
    assert not is_told(ending(**late))
    assert is_told(ending(**late, waited=True))
    assert is_told(ending(**late | {"reason": Reason.GUARD_FAILED}))
