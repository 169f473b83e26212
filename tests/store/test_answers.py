"""The channel that was asked hears how it ended; and the question has what a person needs to answer it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.background.outbox import send_due
from app.engine.outcomes.effectiveness import judge
from app.store.ledger.approvals import DecisionKind
from tests.store.test_approval import TOKEN, URL, asking, channel, dial, people, received, say
from tests.support.aio import run
from tests.support.dial import Dial, turn, turns
from tests.support.engine import Engine, engine
from tests.support.entries import ok
from tests.support.web import WebServer

__all__ = ["dial", "people"]
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
MINUTE = timedelta(minutes=1)


async def _told(one: Engine, people: WebServer) -> tuple[str, str]:
    """The last message, once all are sent."""
    while await send_due(one.parts):
        continue
    return received(people)[-1]


def test_the_question_has_what_a_person_needs(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """Runbook, the alert's own words, its graph, the risk of each step, and whether there is a way back."""

    async def scenario() -> None:
        entry = turns(dial, mode="approve", runbook_url="https://wiki.test/dial", steps=[turn(dial, to=5)])
        policy = {"channel": "ops", "external_url": URL, "connections": channel(people)}
        async with engine(store, tmp_path, entry, **policy) as one:
            said = {"summary": "The dial is low.", "description": "x" * 3_000, "other": "not shown"}
            alert = one.firing(annotations=said, pod="api-1") | {"generatorURL": "http://prometheus.test/graph?g0=1"}
            await one.deliver(alert)
            (row,) = await one.reached(RunState.AWAITING_APPROVAL, count=1)
            _, text = await _told(one, people)
            lines = text.splitlines()
            for line in (
                "  summary: The dial is low.",
                "  pod: api-1",
                "   value: 3 → 5",
                "   risk: disruptive; it can be undone",
                "Runbook: https://wiki.test/dial",
                "Graph: http://prometheus.test/graph?g0=1",
                f"Run: {URL}/remediations/{row.id}",
                f'Reject: curl -X POST -H "{TOKEN}" "{URL}/remediations/{row.id}/reject"',
            ):
                assert line in lines
            assert "… (3000 characters)" in text
            assert "not shown" not in text

    run(scenario())


@pytest.mark.parametrize("healthy", [True, False])
def test_a_verified_end_and_a_failed_one(
    store: str, tmp_path: Path, dial: Dial, people: WebServer, sink: WebServer, *, healthy: bool
) -> None:
    """Each in words, with what was done."""

    async def scenario() -> None:
        sink.status = 200 if healthy else 500
        entry = {"verify": [ok(sink, timeout="1s")]}
        async with asking(store, tmp_path, dial, people, entry=entry) as one:
            await say(one, DecisionKind.APPROVE)
            await one.ended(count=1)
            title, text = await _told(one, people)
            assert f"{'Done and verified' if healthy else 'Failed'}: turn" == title
            assert "Done:\n- turn from 3 to 5 (value 3 → 5)\nApproved by alice.\n" in text
            assert ("it needs a person" in text) is not healthy
            assert 2 == len(received(people))  # the question was not asked any more

    run(scenario())


def test_an_approved_run_that_is_not_done_after_all(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """Its target is gone when its turn comes: the channel that said yes hears of it."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as one:
            one.forward(timedelta(hours=30))  # and nobody has looked meanwhile
            assert RunState.PENDING == await say(one, DecisionKind.APPROVE)
            (row,) = await one.ended(count=1)
            assert (RunState.DENIED, Reason.MAX_AGE, 3) == (row.state, row.reason, dial.value)
            title, text = await _told(one, people)
            assert ("Gave up: turn", True) == (title, "Nothing was done." in text)

    run(scenario())


def test_a_word_that_ends_a_run_is_told_however_often_it_was_answered(
    store: str, tmp_path: Path, dial: Dial, people: WebServer
) -> None:
    """Approved, then cancelled while a pause holds it up."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people, entry={"limits": {"max_targets": 1}}) as one:
            async with one.database.write():  # so that the worker does not take it in between
                pass
            one.parts.draining.set()
            assert RunState.PENDING == await say(one, DecisionKind.APPROVE)
            assert RunState.CANCELLED == await say(one, DecisionKind.CANCEL, "bob")
            await one.ended(count=1)
            title, text = await _told(one, people)
            assert "Cancelled: turn" == title
            assert text.startswith("cancelled by bob; nothing is done.")

    run(scenario())


def test_what_did_not_help_is_told(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """Once its time is over; a run that nobody was asked about tells nobody."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as one:
            await say(one, DecisionKind.APPROVE)
            await one.ended(count=1)
            one.forward(timedelta(hours=1, seconds=1))
            await judge(one.parts)
            title, text = await _told(one, people)
            assert "Did not help: turn" == title
            assert "1h later the alert still fires: it needs a person" in text

    run(scenario())


def test_nobody_is_asked_about_nothing(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """The dial is where it should be; only its checks are looked at."""

    async def scenario() -> None:
        dial.turn(5)
        policy = {"channel": "ops", "external_url": URL, "connections": channel(people)}
        async with engine(store, tmp_path, turns(dial, mode="approve"), **policy) as one:
            await one.fire()
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, Reason.NOTHING_TO_DO) == (row.state, row.reason)
            assert (0, []) == (await send_due(one.parts), received(people))

    run(scenario())
