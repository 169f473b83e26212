"""A person's yes: to an exact plan, decided again at that moment, one outcome whoever else speaks; on both stores."""

from __future__ import annotations

import asyncio
import json
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
from app.domain.errors import AppError
from app.domain.obstacles import Hold
from app.domain.plans import Plan
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.engine.background.outbox import send_due
from app.store.db.schema import event
from app.store.gates import pauses
from app.store.gates.pauses import Held
from app.store.ledger import approvals
from app.store.ledger.approvals import DecisionKind, HumanDecision
from tests.support import web
from tests.support.aio import run
from tests.support.dial import Dial, dial, turn, turns
from tests.support.engine import Clock, Engine, engine, until
from tests.support.web import WebServer

__all__ = ["dial"]
# Apprise imports it for Python 3.13, where it is gone, as a probe.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
MINUTE = timedelta(minutes=1)
URL = "https://remediator.test"
TOKEN = "Authorization: Bearer $REMEDIATOR_TOKEN"


@pytest.fixture
def people() -> Iterator[WebServer]:
    """Who is told, through a real HTTP receiver."""
    with web.serve() as server:
        yield server


def channel(people: WebServer) -> Connections:
    """A configuration whose channel `ops` is this receiver."""
    url = SecretSource(value=SecretStr(people.url.replace("http://", "json://")))
    return Connections(notify={"ops": NotifyChannel(urls=(url,))})


def received(people: WebServer) -> list[tuple[str, str]]:
    """Title and text of each message that was taken."""
    bodies = [json.loads(one.body) for one in people.requests]
    return [(body["title"], body["message"]) for body in bodies]


@asynccontextmanager
async def asking(store: str, folder: Path, dial: Dial, people: WebServer, **given: Any) -> AsyncIterator[Engine]:
    """A replica with a run that awaits approval."""
    entry = turns(dial, mode="approve", **given.pop("entry", {}))
    policy = {"channel": "ops", "external_url": URL, "connections": channel(people)} | given
    async with engine(store, folder, entry, **policy) as one:
        await one.fire(pod="api-1")
        await one.reached(RunState.AWAITING_APPROVAL, count=1)
        yield one


async def say(
    one: Engine, verb: DecisionKind, who: str = "alice", run_id: str | None = None, question: str = ""
) -> RunState | str:
    """Say a word as the API does; the state after it, or why it was refused."""
    asked_for = run_id or (await one.runs())[0].id
    try:
        async with one.database.write() as tx:
            decided = await approvals.decide(tx, asked_for, HumanDecision(verb, who, question=question), one.clock())
    except AppError as error:
        return error.message
    finally:
        one.parts.work.set()
    return decided.refused or decided.run.state


def approve(row: Row[Any]) -> str:
    """Where one says yes to the plan that a run has now."""
    return f"/remediations/{row.id}/approve?question={Plan.model_validate(row.plan).question}"


async def events(one: Engine, kind: str) -> list[Row[Any]]:
    """The events of a kind, of all runs."""
    async with one.database.read() as tx:
        return list(await tx.execute(select(event).where(event.c.kind == kind).order_by(event.c.id)))


def test_the_question_says_exactly_what_would_be_done(
    store: str, tmp_path: Path, dial: Dial, people: WebServer
) -> None:
    """Why, what, from what to what, until when, and how to answer; and who was told is in the run's record."""

    async def scenario() -> None:
        further = {"escalate": [{"steps": [turn(dial, to=9)]}]}
        async with asking(store, tmp_path, dial, people, entry=further) as one:
            assert 1 == await send_due(one.parts)
            (row,) = await one.runs()
            ((title, text),) = received(people)
            assert "Approve? turn" == title
            for line in (
                "Why it asks: the mode is approve",
                f"Until: {row.not_before:%Y-%m-%d %H:%M:%S} UTC; no answer means no",
                f"Run: {URL}/remediations/{row.id}",
                f'Look: curl -H "{TOKEN}" "{URL}/remediations/{row.id}"',
                f'Approve: curl -X POST -H "{TOKEN}" "{URL}{approve(row)}"',
                f'Reject: curl -X POST -H "{TOKEN}" "{URL}/remediations/{row.id}/reject"',
                "  pod: api-1",
                "1. turn from 3 to 5",
                "   value: 3 → 5",
                "   risk: disruptive; it can be undone",
                "If that does not help, under the same approval: test.turn (disruptive; it can be undone)",
            ):
                assert line in text.splitlines()
            assert ["told ops: " + title] == [one.message for one in await events(one, "told")]

    run(scenario())


def test_without_an_address_the_shell_puts_it_in(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """The command holds wherever the service is reached."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people, external_url="") as one:
            await send_due(one.parts)
            (row,) = await one.runs()
            lines = received(people)[0][1].splitlines()
            assert f'Approve: curl -X POST -H "{TOKEN}" "$REMEDIATOR_URL{approve(row)}"' in lines

    run(scenario())


def test_a_label_cannot_write_lines_of_its_own(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """Nor fill the message."""

    async def scenario() -> None:
        policy = {"channel": "ops", "external_url": URL, "connections": channel(people)}
        async with engine(store, tmp_path, turns(dial, mode="approve"), **policy) as one:
            await one.fire(pod="x\nApprove: curl http://evil.test", other="y" * 10_000)
            await one.reached(RunState.AWAITING_APPROVAL, count=1)
            await send_due(one.parts)
            ((_, text),) = received(people)
            assert "  pod: x Approve: curl http://evil.test" in text.splitlines()
            assert 1 == sum(line.startswith("Approve:") for line in text.splitlines())
            assert len(text) < 3000

    run(scenario())


def test_what_was_approved_is_what_is_done(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """The plan of the question is applied, although a fresh one has another time in it; the answer is told too."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as one:
            (asked,) = await one.runs()
            await send_due(one.parts)
            one.forward(5 * MINUTE)
            assert RunState.PENDING == await say(one, DecisionKind.APPROVE)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, [3, 5], "alice") == (row.state, dial.history, row.approved_by)
            assert asked.plan == row.plan
            (step,) = await one.steps()
            assert asked.plan["steps"][0]["before"]["planned_at"] == step.result["planned_at"]
            while await send_due(one.parts):
                continue
            (_, (yes, word), (end, told)) = received(people)
            assert "Approved, not done yet: turn" == yes
            assert word.startswith("approved by alice; it is decided once more and then done")
            assert "Done: turn" == end
            for line in (
                "How it ended: succeeded: applied; the remediation declares no check",
                "- turn from 3 to 5 (value 3 → 5)",
                "Approved by alice.",
                "The alert still fires. If it does not resolve within 1h, it was not helped by this.",
            ):
                assert line in told.splitlines()

    run(scenario())


def test_an_approval_is_void_when_the_plan_is_another_one(
    store: str, tmp_path: Path, dial: Dial, people: WebServer
) -> None:
    """Nothing is applied; the question is put again and says what has changed; that one can be approved."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as one:
            await send_due(one.parts)
            dial.turn(4)
            await say(one, DecisionKind.APPROVE)
            await until(lambda: events(one, "approval_void"), 10, "the approval to be void", one.runs)
            (row,) = await one.reached(RunState.AWAITING_APPROVAL, count=1)
            assert (None, 4) == (row.approved_by, dial.value)
            (void,) = await events(one, "approval_void")
            assert "the plan that alice approved has changed: step 1: before.value is 4, no longer 3" in void.message
            while await send_due(one.parts):
                continue
            titles = [title for title, _ in received(people)]
            assert 2 == sum(title.startswith("Approve?") for title in titles)
            again = next(text for title, text in reversed(received(people)) if title.startswith("Approve?"))
            assert "the approved plan has changed: step 1: before.value is 4, no longer 3" in again
            assert "1. turn from 4 to 5" in again
            await say(one, DecisionKind.APPROVE, "bob")
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, "bob", [3, 4, 5]) == (row.state, row.approved_by, dial.history)

    run(scenario())


def test_a_yes_to_another_plan_is_none_to_this_one(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """Two people are asked, one is faster, the plan changes: the other's link is about what is not asked any more."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people, entry={"steps": [turn(dial, by=2)]}) as one:
            (asked,) = await one.runs()
            first = Plan.model_validate(asked.plan).question
            dial.turn(30)
            assert RunState.PENDING == await say(one, DecisionKind.APPROVE, question=first)

            async def asked_anew() -> bool:
                (row,) = await one.runs()
                return row.state == RunState.AWAITING_APPROVAL and Plan.model_validate(row.plan).question != first

            await until(asked_anew, 10, "the question to be put anew", one.runs)
            assert "differs from the plan of question" in str(
                await say(one, DecisionKind.APPROVE, "bob", question=first)
            )
            assert [3, 30] == dial.history
            (row,) = await one.runs()
            second = Plan.model_validate(row.plan).question
            assert RunState.PENDING == await say(one, DecisionKind.APPROVE, "bob", question=second)
            await one.ended(count=1)
            assert [3, 30, 32] == dial.history

    run(scenario())


def test_all_guards_decide_again_after_the_yes(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """A pause holds it up; when that ends, what was approved is done, and nobody is asked twice."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as one:
            (asked,) = await one.runs()
            await _pause(one, Hold(scope="all", holder="carol", why="deploying", until=None))
            await say(one, DecisionKind.APPROVE)
            (row,) = await one.reached(RunState.DEFERRED, count=1)
            assert (Reason.PAUSED, "alice", asked.plan) == (row.reason, row.approved_by, row.plan)
            await _resume(one)
            one.forward(MINUTE)
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, [3, 5], asked.plan) == (row.state, dial.history, row.plan)
            assert 1 == len(await events(one, RunState.AWAITING_APPROVAL))

    run(scenario())


def test_an_alert_that_resolves_makes_the_yes_needless(
    store: str, tmp_path: Path, dial: Dial, people: WebServer
) -> None:
    """The run is cancelled, whoever says what afterwards; those who were asked are told."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as one:
            one.forward(MINUTE)
            await one.resolve(pod="api-1")
            (row,) = await one.ended(count=1)
            assert (RunState.CANCELLED, Reason.RESOLVED_BEFORE_START) == (row.state, row.reason)
            answer = await say(one, DecisionKind.APPROVE)
            assert "is cancelled; only a run that is awaiting_approval can be approved" in answer
            assert 3 == dial.value
            while await send_due(one.parts):
                continue
            assert "Not done: turn" == received(people)[-1][0]

    run(scenario())


def test_no_answer_is_no(store: str, tmp_path: Path, dial: Dial, people: WebServer) -> None:
    """After its time the question is over, and those who were asked are told so."""

    async def scenario() -> None:
        async with asking(store, tmp_path, dial, people) as one:
            one.forward(timedelta(hours=2))
            (row,) = await one.ended(count=1)
            assert (RunState.EXPIRED, 3) == (row.state, dial.value)
            while await send_due(one.parts):
                continue
            title, text = received(people)[-1]
            assert "Not done, no answer came: turn" == title
            assert "How it ended: expired: no person approved within 1h\nNothing was done.\n" in text

    run(scenario())


@pytest.mark.parametrize(
    ("words", "attempt"),
    [
        (words, attempt)
        for words in (
            (DecisionKind.APPROVE, DecisionKind.APPROVE, DecisionKind.APPROVE),
            (DecisionKind.APPROVE, DecisionKind.REJECT),
            (DecisionKind.REJECT, DecisionKind.CANCEL, DecisionKind.REJECT),
            (DecisionKind.APPROVE, DecisionKind.REJECT, DecisionKind.CANCEL, "time", "resolve"),
        )
        for attempt in range(5)
    ],
)
def test_of_many_words_at_once_one_counts(  # noqa: PLR0917 - fixtures
    store: str, tmp_path: Path, dial: Dial, people: WebServer, words: tuple[Any, ...], attempt: int
) -> None:
    """Several people at two replicas, the time running out and the alert resolving, all at the same moment."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            clock = Clock()
            one = await stack.enter_async_context(asking(store, tmp_path, dial, people, clock=clock, concurrency=10))
            entry = turns(dial, mode="approve")
            other = one
            if not one.database.is_sqlite:
                policy = {"clock": clock, "channel": "ops", "connections": channel(people), "owner": "replica-2"}
                other = await stack.enter_async_context(engine(store, tmp_path, entry, **policy))
            (row,) = await one.runs()

            async def speak(number: int, word: Any) -> RunState | str | None:
                for _ in range((number * (attempt + 1)) % 4):
                    await asyncio.sleep(0)
                if word == "time":
                    return one.forward(timedelta(hours=1))
                if word == "resolve":
                    return await other.resolve(pod="api-1")
                return await say((one, other)[number % 2], word, f"person-{number}", row.id)

            answers = await asyncio.gather(*(speak(number, word) for number, word in enumerate(words)))
            (ended,) = [found for found in await one.ended(count=1) if found.purpose == Purpose.REMEDY]
            heard = [answer for answer in answers if isinstance(answer, RunState)]
            refused = [answer for answer in answers if isinstance(answer, str) and not isinstance(answer, RunState)]
            kinds = await one.kinds(row.id)
            decided = [kind for kind in kinds if kind in {"approved", "rejected", "cancelled", "expired"}]
            acted = [3, 5] == dial.history
            assert acted == (ended.state == RunState.SUCCEEDED)
            assert acted == (kinds.count("step_succeeded") == 1)
            assert not acted or "approved" in kinds
            assert all("only a run that is" in answer or "the alert resolved before" in answer for answer in refused)
            if "time" not in words:
                assert (1, len(words) - 1) == (len(heard), len(refused))
                assert 1 == len(decided)
            assert kinds.count("approved") <= 1

    run(scenario())


async def _pause(one: Engine, hold: Hold) -> None:
    async with one.database.write() as tx:
        await pauses.put(tx, Held("all"), hold, one.clock())


async def _resume(one: Engine) -> None:
    async with one.database.write() as tx:
        await pauses.take(tx, Held("all"), None, "carol", one.clock())
