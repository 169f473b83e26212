"""What is to be told to people arrives, and is kept with its error where it cannot; on both stores."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.engine import Row

from app.backends.connections import Connections
from app.backends.notify.backend import NotifyChannel
from app.backends.secrets import SecretSource
from app.domain.obstacles import Hold
from app.engine.background.outbox import pause, send_due, send_forever
from app.engine.outcomes.effectiveness import tell_waiting
from app.store.db.schema import message
from app.store.gates import pauses
from app.store.gates.pauses import Held
from app.store.ledger import approvals, outbox
from app.store.ledger.approvals import DecisionKind, HumanDecision
from app.store.ledger.outbox import Draft
from tests.support import web
from tests.support.aio import run
from tests.support.dial import Dial, dial, turns
from tests.support.engine import Clock, Engine, engine, until
from tests.support.processes import free_port
from tests.support.web import WebServer

__all__ = ["dial"]
# Apprise imports it for Python 3.13, where it is gone, as a probe.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
DAY = timedelta(days=1)


@pytest.fixture
def people() -> Iterator[WebServer]:
    """A real HTTP receiver."""
    with web.serve() as server:
        yield server


def channels(**urls: str) -> Connections:
    """A configuration with channels of these HTTP receivers; several of one channel have commas between them."""
    return Connections(
        notify={
            name: NotifyChannel(
                urls=tuple(
                    SecretSource(value=SecretStr(url.replace("http://", "json://"))) for url in several.split(",")
                )
            )
            for name, several in urls.items()
        }
    )


@asynccontextmanager
async def post(store: str, folder: Path, connections: Connections, **given: Any) -> AsyncIterator[Engine]:
    """A replica without a worker."""
    async with engine(store, folder, connections=connections, working=False, **given) as one:
        yield one


async def queue(one: Engine, *channel: str, run_id: str | None = None) -> None:
    """Queue a message for each channel, named by its number."""
    async with one.database.write() as tx:
        for number, name in enumerate(channel, start=1):
            await outbox.queue(tx, Draft(f"{name}:{number}", name, f"title {number}", "body", run_id), one.clock())


async def stored(one: Engine) -> list[Row[Any]]:
    """All messages, oldest first."""
    async with one.database.read() as tx:
        return list(await tx.execute(select(message).order_by(message.c.id)))


def titles(people: WebServer) -> list[str]:
    """Of what arrived."""
    return [json.loads(one.body)["title"] for one in people.requests]


def count(one: Engine, result: str) -> float | None:
    """The metric."""
    return one.parts.metrics.registry.get_sample_value("remediator_messages_total", {"result": result})


def test_a_receiver_that_fails_first_gets_it_later(store: str, tmp_path: Path, people: WebServer) -> None:
    """The pauses grow and stand in the store, so that nothing waits in memory and a restart loses none of them."""

    async def scenario() -> None:
        people.status = 503
        async with post(store, tmp_path, channels(ops=people.url)) as one:
            await queue(one, "ops")
            waits = []
            for tries in range(1, 5):
                assert 1 == await send_due(one.parts)
                (row,) = await stored(one)
                assert (tries, None, None) == (row.tries, row.sent_at, row.given_up_at)
                assert "1 of 1 services did not take" in row.error
                waits.append(row.not_before - one.clock())
                assert 0 == await send_due(one.parts)
                one.forward(row.not_before - one.clock() + timedelta(milliseconds=1))
            assert waits == sorted(waits)
            assert waits[-1] > 4 * waits[0]
            people.status = 200
            assert 1 == await send_due(one.parts)
            (row,) = await stored(one)
            assert (5, None, True) == (row.tries, row.error, row.sent_at is not None)
            one.forward(DAY)
            assert 0 == await send_due(one.parts)
            assert (5, 1, 4) == (len(people.requests), count(one, "sent"), count(one, "failed"))

    run(scenario())


def test_what_nobody_takes_is_given_up_after_a_day(store: str, tmp_path: Path, dial: Dial) -> None:
    """It is kept with its error, and the run that it is about says so; the run itself was not held up."""

    async def scenario() -> None:
        policy = {"channel": "ops", "connections": channels(ops=f"http://127.0.0.1:{free_port()}")}
        async with engine(store, tmp_path, turns(dial, mode="approve"), approval_timeout=2 * DAY, **policy) as one:
            await one.fire()
            await one.reached("awaiting_approval", count=1)
            (row,) = await stored(one)
            await send_due(one.parts)
            one.forward(timedelta(hours=23))
            await send_due(one.parts)
            assert (await stored(one))[0].given_up_at is None
            one.forward(timedelta(hours=1))
            while await send_due(one.parts):
                continue
            asked = next(found for found in await stored(one) if found.id == row.id)
            assert (True, None) == (asked.given_up_at is not None, asked.sent_at)
            assert "did not take" in asked.error
            assert "not_told" in await one.kinds(row.run_id)
            assert 1 == count(one, "given_up")
            one.forward(DAY)
            (ended,) = await one.ended(count=1)
            assert "expired" == ended.state

    run(scenario())


def test_what_some_have_is_not_sent_to_them_again(store: str, tmp_path: Path, people: WebServer) -> None:
    """One service of the channel took it, another one did not."""

    async def scenario() -> None:
        both = f"{people.url},http://127.0.0.1:{free_port()}"
        async with post(store, tmp_path, channels(ops=both)) as one:
            await queue(one, "ops")
            await send_due(one.parts)
            (row,) = await stored(one)
            assert (True, True) == (row.given_up_at is not None, "1 of 2 services" in row.error)
            one.forward(DAY)
            await send_due(one.parts)
            assert ["title 1"] == titles(people)

    run(scenario())


def test_a_channel_that_is_configured_later_gets_its_messages(store: str, tmp_path: Path, people: WebServer) -> None:
    """Also a bad channel holds no other up."""

    async def scenario() -> None:
        clock = Clock()
        async with post(store, tmp_path, channels(ops=people.url), clock=clock) as one:
            await queue(one, "nobody", "ops")
            assert 2 == await send_due(one.parts)
            assert ["title 2"] == titles(people)
            assert "connections.notify has no 'nobody'" in (await stored(one))[0].error
        clock.ahead += timedelta(minutes=1)
        async with post(store, tmp_path, channels(nobody=people.url), clock=clock) as one:
            assert 1 == await send_due(one.parts)
            assert ["title 2", "title 1"] == titles(people)

    run(scenario())


def test_a_channel_that_hangs_holds_no_other_up(store: str, tmp_path: Path, people: WebServer) -> None:
    """It takes connections and never answers; its messages are older, and more than a batch."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            both = channels(hangs=f"http://127.0.0.1:{silent.getsockname()[1]}", ops=people.url)
            given = both.model_copy(update={"timeout": timedelta(seconds=2)})
            async with post(store, tmp_path, given) as one:
                await queue(one, *["hangs"] * 7)
                await queue(one, *["ops"] * 7)
                sending = asyncio.create_task(send_forever(one.parts))

                async def arrived() -> bool:
                    return len(titles(people)) == 7

                await until(arrived, 8, "the messages of the other channel")
                assert not any(row.sent_at for row in await stored(one) if row.channel == "hangs")
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    run(scenario())


@pytest.mark.parametrize("about", ["one run", "no run"])
def test_what_was_put_off_comes_before_what_follows(store: str, tmp_path: Path, people: WebServer, about: str) -> None:
    """A pause before its end, a run's first message before its second; another run's message does not wait."""

    async def scenario() -> None:
        run_id = "018f0000-0000-7000-8000-000000000000" if about == "one run" else None
        async with post(store, tmp_path, channels(ops=people.url)) as one:
            people.status = 503
            await queue(one, "ops", run_id=run_id)
            assert 1 == await send_due(one.parts)
            people.status = 200
            async with one.database.write() as tx:
                later = one.clock() + timedelta(seconds=1)
                await outbox.queue(tx, Draft("second", "ops", "title 2", "body", run_id), later)
                await outbox.queue(tx, Draft("other", "ops", "other run", "body", "018f-other"), later)
            one.forward(timedelta(seconds=2))
            while await send_due(one.parts):
                continue
            one.forward(timedelta(seconds=10))
            while await send_due(one.parts):
                continue
            assert ["title 1", "other run", "title 1", "title 2"] == titles(people)

    run(scenario())


@asynccontextmanager
async def asking(store: str, folder: Path, dial: Dial, people: WebServer) -> AsyncIterator[tuple[Engine, str]]:
    """A run that waits for an answer, and whose question could not be delivered yet."""
    policy = {"channel": "ops", "connections": channels(ops=people.url)}
    async with engine(store, folder, turns(dial, mode="approve"), **policy) as one:
        people.status = 503
        await one.fire()
        (row,) = await one.reached("awaiting_approval", count=1)
        assert 1 == await send_due(one.parts)
        people.requests.clear()
        people.status = 200
        yield one, row.id


@pytest.mark.parametrize("answer", [DecisionKind.APPROVE, DecisionKind.REJECT, DecisionKind.CANCEL, None])
def test_a_question_that_nobody_has_to_answer_any_more_is_not_asked(
    store: str, tmp_path: Path, dial: Dial, people: WebServer, answer: DecisionKind | None
) -> None:
    """Its channel failed, and its run has been decided meanwhile: the channel hears that, and the end once."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as (one, run_id):
            if answer is None:
                await one.resolve()
            else:
                async with one.database.write() as tx:
                    await approvals.decide(tx, run_id, HumanDecision(answer, "ann"), one.clock())
                one.parts.work.set()
            await one.ended(count=1)
            one.forward(timedelta(seconds=10))
            while await send_due(one.parts):
                continue
            ends = {
                DecisionKind.APPROVE: ["Approved, not done yet: turn", "Done: turn"],
                DecisionKind.REJECT: ["Rejected: turn"],
                DecisionKind.CANCEL: ["Cancelled: turn"],
                None: ["Not done: turn"],
            }
            assert ends[answer] == titles(people)
            (question, *_) = await stored(one)
            assert (None, True) == (question.sent_at, question.given_up_at is not None)
            assert "not_told" in await one.kinds(run_id)
            assert 0 == count(one, "given_up")

    run(scenario())


@pytest.mark.parametrize("newer", [False, True])
def test_a_question_that_a_newer_one_replaces_is_not_asked(
    store: str, tmp_path: Path, dial: Dial, people: WebServer, *, newer: bool
) -> None:
    """It names a plan that is no longer meant; without one it is asked however late."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as (one, run_id):
            if newer:
                async with one.database.write() as tx:
                    draft = Draft(outbox.question_key(run_id, 99), "ops", "Approve? anew", "body", run_id)
                    await outbox.queue(tx, draft, one.clock())
            one.forward(timedelta(seconds=10))
            while await send_due(one.parts):
                continue
            assert (["Approve? anew"] if newer else ["Approve? turn"]) == titles(people)

    run(scenario())


def test_that_a_run_waits_is_not_told_after_it_has_ended(
    store: str, tmp_path: Path, dial: Dial, people: WebServer
) -> None:
    """It would say that the run goes on by itself."""

    async def scenario() -> None:
        policy = {"channel": "ops", "connections": channels(ops=people.url), "tell_waiting": timedelta(seconds=1)}
        async with engine(store, tmp_path, turns(dial), **policy) as one:
            async with one.database.write() as tx:
                await pauses.put(tx, Held("all"), Hold("all", "ann", "because", None), one.clock())
            await one.fire()
            await one.reached("deferred", count=1)
            one.forward(timedelta(seconds=2))
            assert 1 == await tell_waiting(one.parts)
            async with one.database.write() as tx:
                await pauses.take(tx, Held("all"), "ann", "ann", one.clock())
            one.forward(timedelta(seconds=2))
            await one.ended(count=1)
            await send_due(one.parts)
            assert [] == titles(people)

    run(scenario())


def test_of_two_replicas_one_sends_a_message(store: str, tmp_path: Path, people: WebServer) -> None:
    """Both look at the same moment, again and again."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            given = {"clock": Clock(), "connections": channels(ops=people.url)}
            several = [
                await stack.enter_async_context(post(store, tmp_path, owner=f"replica-{number}", **given))
                for number in range(2)
            ]
            await queue(several[0], *["ops"] * 23)
            while sum(await asyncio.gather(*(send_due(one.parts) for one in several))):
                continue
            assert sorted(f"title {number}" for number in range(1, 24)) == sorted(titles(people))

    run(scenario())


def test_a_message_whose_sender_died_is_sent_by_another(store: str, tmp_path: Path, people: WebServer) -> None:
    """Not while the first may still be at it; and what the first says afterwards changes nothing."""

    async def scenario() -> None:
        async with post(store, tmp_path, channels(ops=people.url)) as one:
            await queue(one, "ops")
            now = one.clock()
            async with one.database.write() as tx:
                (first,) = await outbox.take(tx, "ops", now, now + timedelta(minutes=1), 10)
            assert 0 == await send_due(one.parts)
            one.forward(timedelta(minutes=1, seconds=1))
            assert 1 == await send_due(one.parts)
            async with one.database.write() as tx:
                assert not await outbox.settle(tx, first, error="too late")
            (row,) = await stored(one)
            assert (2, None) == (row.tries, row.error)
            assert ["title 1"] == titles(people)

    run(scenario())


def test_the_pauses_end_at_ten_minutes() -> None:
    """A day has room for many tries."""
    assert [5, 10, 20] == [pause(tries).total_seconds() for tries in (1, 2, 3)]
    assert timedelta(minutes=10) == pause(30)


def test_an_occasion_is_told_of_once(store: str, tmp_path: Path, people: WebServer) -> None:
    """However often it is noticed."""

    async def scenario() -> None:
        async with post(store, tmp_path, channels(ops=people.url)) as one:
            await queue(one, "ops")
            await queue(one, "ops")
            await send_due(one.parts)
            assert ["title 1"] == titles(people)

    run(scenario())
