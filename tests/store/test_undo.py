"""Runs that take other runs back: by hand, after a failure, and of what was only borrowed; on both stores."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select, update
from sqlalchemy.engine import Row

from app.backends.action import Context
from app.backends.actions import actions
from app.domain import former_names
from app.domain.errors import ConflictError, NotFoundError, TransientError
from app.domain.model import JsonObject
from app.domain.plans import Plan, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Purpose, Remediation
from app.domain.states import RunState
from app.engine.outcomes import undo as undoing
from app.engine.outcomes.effectiveness import tell_waiting
from app.engine.outcomes.retry import decide_again
from app.store.audit.chain import Entry
from app.store.db.schema import event, message, run_episode
from app.store.db.schema import run as ledger
from app.store.ledger import approvals
from app.store.ledger.approvals import DecisionKind, HumanDecision
from app.store.ledger.runs import ended_columns
from tests.support.aio import run
from tests.support.dial import Dial, Turn, dial, turn, turns
from tests.support.engine import Clock, Engine, engine, until
from tests.support.entries import ok, poke
from tests.support.web import WebServer

__all__ = ["dial"]
MINUTE = timedelta(minutes=1)
BORROWS = {"revert": "on_resolved", "revert_after": "10m"}


async def undo(one: Engine, run_id: str) -> str:
    """Ask for an undo as the API does."""
    async with one.database.write() as tx:
        new = await undoing.ask(tx, run_id, Entry("asked for by alice", actor="alice"), one.clock())
    one.parts.work.set()
    return new.id


async def told(one: Engine) -> list[str]:
    """The titles of all messages."""
    async with one.database.read() as tx:
        return list((await tx.execute(select(message.c.title).order_by(message.c.id))).scalars())


async def reverts(one: Engine) -> list[Row[Any]]:
    """The runs that give back."""
    return [row for row in await one.runs() if row.purpose == Purpose.REVERT]


async def settling(one: Engine) -> bool:
    """Whether the only run waits for its alert."""
    (row,) = await one.runs()
    return row.settle_until is not None


async def resolved(one: Engine, **labels: str) -> None:
    """The alert ends, a minute after whatever was before."""
    one.forward(MINUTE)
    await one.resolve(**labels)


async def reverted(one: Engine, count: int = 1) -> list[Row[Any]]:
    """So many reverts, once all of them have ended."""

    async def there() -> list[Row[Any]]:
        found = await reverts(one)
        return found if len(found) == count and not any(row.active for row in found) else []

    return await until(there, 10, f"{count} reverts to end", one.runs)


def test_a_person_undoes_a_run(store: str, tmp_path: Path, dial: Dial) -> None:
    """The undo is a run of its own: guarded, with intents and results, named on both."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, limits={"cooldown": "1h", "rate": "1/1h"})) as one:
            await one.fire()
            (first,) = await one.ended(count=1)
            new = await undo(one, first.id)
            _, second = await one.ended(count=2)
            assert ([3, 5, 3], RunState.SUCCEEDED) == (dial.history, second.state)
            assert (new, Purpose.UNDO, first.id) == (second.id, second.purpose, second.undoes)
            assert [first.id] == second.plan["undoes"]
            assert {"recorded", "asked_for", "running", "step_started", "step_succeeded"} <= set(await one.kinds(new))
            assert ["undo_recorded", "undone"] == (await one.kinds(first.id))[-2:]
            assert second.effective is None
            assert [] == await told(one)

    run(scenario())


def test_what_somebody_changed_since_is_left_alone(store: str, tmp_path: Path, dial: Dial) -> None:
    """The undo fails, and people hear of it; a second one may be asked for."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial), channel="ops") as one:
            await one.fire()
            (first,) = await one.ended(count=1)
            dial.turn(7)
            await undo(one, first.id)
            _, second = await one.ended(count=2)
            assert (7, RunState.FAILED, Reason.CHANGED_SINCE_PLANNED) == (dial.value, second.state, second.reason)
            assert "not_undone" == (await one.kinds(first.id))[-1]
            assert ["Not undone: turn"] == await told(one)
            dial.turn(5)
            await undo(one, first.id)
            await one.ended(count=3)
            assert 3 == dial.value

    run(scenario())


def test_what_takes_back_is_not_decided_again(store: str, tmp_path: Path, dial: Dial) -> None:
    """Deciding it again would do the remediation once more instead of taking it back."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial)) as one:
            await one.fire()
            (first,) = await one.ended(count=1)
            dial.turn(7)
            new = await undo(one, first.id)
            await one.ended(count=2)
            with pytest.raises(ConflictError, match=f"takes back run {first.id}; ask for that again"):
                async with one.database.write(lock="intake") as tx:
                    await decide_again(tx, new, one.catalog(), Entry("again", actor="alice"), one.clock())
            assert 2 == len(await one.runs())

    run(scenario())


def test_what_may_have_happened_can_be_undone(store: str, tmp_path: Path, dial: Dial, monkeypatch: Any) -> None:
    """The target did it, and every answer was lost: the step failed, and is taken back."""

    class Unheard(Turn):
        async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
            await super().apply(context, step)
            raise TransientError("no answer came")

    async def scenario() -> None:
        monkeypatch.setitem(actions(), "test.turn", Unheard())
        step = turn(dial, to=5) | {"timeout": "1s"}
        async with engine(store, tmp_path, turns(dial, steps=[step], limits={"attempts": 1})) as one:
            await one.fire()
            (first,) = await one.ended(count=1)
            assert (RunState.FAILED, 5) == (first.state, dial.value)
            await undo(one, first.id)
            await one.ended(count=2)
            assert 3 == dial.value

    run(scenario())


@pytest.mark.parametrize("how", ["nobody answers", "rejected", "resolved"])
def test_what_was_borrowed_is_given_back_however_a_later_rung_ends(
    store: str, tmp_path: Path, dial: Dial, how: str
) -> None:
    """The first rung turned the dial; the second waits for a yes that does not come."""

    async def scenario() -> None:
        second = {"steps": [turn(dial, to=9, dangerous=True)]}
        async with engine(store, tmp_path, turns(dial, **BORROWS, settle="5m", escalate=[second])) as one:
            await one.fire()
            await one.reached(RunState.VERIFYING, count=1)
            await until(lambda: settling(one), 10, "the alert to be waited for", one.runs)
            one.forward(6 * MINUTE)
            await one.reached(RunState.AWAITING_APPROVAL, count=1)
            if how == "nobody answers":
                one.forward(timedelta(hours=2))
                await one.reached(RunState.EXPIRED, count=1)
            if how == "rejected":
                async with one.database.write() as tx:
                    (row,) = await one.runs()
                    await approvals.decide(tx, row.id, HumanDecision(DecisionKind.REJECT, "alice"), one.clock())
            await resolved(one)
            if how == "resolved":
                one.forward(timedelta(hours=2))
            await until(lambda: reverts(one), 10, "a revert to be recorded", one.runs)
            one.forward(timedelta(hours=1))
            await reverted(one)
            assert [3, 5, 3] == dial.history

    run(scenario())


def test_why_a_run_cannot_be_undone(store: str, tmp_path: Path, dial: Dial, sink: WebServer) -> None:
    """Each answer says what stands against it."""

    async def scenario() -> None:
        entries = [
            turns(dial, name="slow", steps=[turn(dial, to=5)], verify=[ok(sink, timeout="60s")]),
            poke(sink, matchers=['alertname="Poke"']),
            turns(dial, name="shows", matchers=['alertname="Show"'], mode="observe"),
        ]
        async with engine(store, tmp_path, *entries) as one:
            sink.status = 500
            await one.fire()
            active = (await one.reached("verifying"))[0].id
            with pytest.raises(ConflictError, match="is verifying; only a run that has ended"):
                await undo(one, active)
            sink.status = 200
            await one.ended(count=1)
            for name in ("Poke", "Show"):
                await one.fire(alertname=name)
            _, poked, shown = await one.ended(count=3)
            with pytest.raises(ConflictError, match=r"cannot be undone \(http.request\)"):
                await undo(one, poked.id)
            with pytest.raises(ConflictError, match="changed nothing"):
                await undo(one, shown.id)
            new = await undo(one, active)
            with pytest.raises(ConflictError, match=rf"taken back.*see run {new}"):
                await undo(one, active)
            await one.ended(count=4)
            with pytest.raises(ConflictError, match=f"is taken back already: see run {new}"):
                await undo(one, active)
            with pytest.raises(ConflictError, match=f"takes back run {active} itself"):
                await undo(one, new)
            with pytest.raises(NotFoundError):
                await undo(one, "018f0000-0000-7000-8000-000000000000")

    run(scenario())


def test_a_failed_run_is_undone_before_the_next_attempt(
    store: str, tmp_path: Path, dial: Dial, sink: WebServer
) -> None:
    """The target goes from the failed run to its undo without a gap, and only then to the next attempt."""

    async def scenario() -> None:
        entry = turns(
            dial,
            verify=[ok(sink, timeout="100ms")],
            undo_on_failure=True,
            limits={"cooldown": "0s", "attempts": 2, "rate": "9/1h"},
        )
        async with engine(store, tmp_path, entry) as one:
            sink.status = 500
            await one.fire()
            found = await one.ended(count=4)
            assert [3, 5, 3, 5, 3] == dial.history
            remedies = [row for row in found if row.purpose == Purpose.REMEDY]
            undone = [row for row in found if row.purpose == Purpose.UNDO]
            assert [RunState.FAILED] * 2 == [row.state for row in remedies]
            assert [RunState.SUCCEEDED] * 2 == [row.state for row in undone]
            assert [row.id for row in remedies] == [row.undoes for row in undone]

    run(scenario())


def test_an_undo_goes_over_all_rungs(store: str, tmp_path: Path, dial: Dial, sink: WebServer) -> None:
    """The last step first; a step that failed without effect is not among them."""

    async def scenario() -> None:
        failing = [ok(sink, timeout="100ms")]
        escalate = [{"steps": [turn(dial, to=8), turn(dial, by=1)], "verify": failing}]
        async with engine(store, tmp_path, turns(dial, verify=failing, escalate=escalate, undo_on_failure=True)) as one:
            sink.status = 500
            await one.fire()
            await one.ended(count=2)
            assert [3, 5, 8, 5, 3] == dial.history

    run(scenario())


def test_what_was_borrowed_is_given_back(store: str, tmp_path: Path, dial: Dial) -> None:
    """Not at once when the alert resolves, but when it has stayed away."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, **BORROWS)) as one:
            await one.fire()
            await one.ended(count=1)
            await resolved(one)
            (waiting,) = await reverts(one)
            assert (RunState.PENDING, 5) == (waiting.state, dial.value)
            assert timedelta(minutes=9) < waiting.not_before - one.clock() <= timedelta(minutes=10)
            one.forward(11 * MINUTE)
            (done,) = await reverted(one)
            assert (RunState.SUCCEEDED, 3) == (done.state, dial.value)
            first = (await one.runs())[0]
            assert {"revert_recorded", "reverted"} <= set(await one.kinds(first.id))
            await one.fire()
            await one.ended(count=3)
            await resolved(one)
            assert 2 == len(await reverts(one))

    run(scenario())


def test_an_alert_that_resolves_during_the_run_is_given_back_too(
    store: str, tmp_path: Path, dial: Dial, sink: WebServer
) -> None:
    """The revert is recorded in the transaction that ends the run."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, verify=[ok(sink, timeout="60s")], **BORROWS)) as one:
            sink.status = 500
            await one.fire()
            await one.reached("verifying")
            await resolved(one)
            assert [] == await reverts(one)
            sink.status = 200
            await until(lambda: reverts(one), 10, "a revert")
            one.forward(11 * MINUTE)
            await reverted(one)
            assert [3, 5, 3] == dial.history

    run(scenario())


@pytest.mark.parametrize("by", [{"to": 5}, {"by": 2}])
def test_a_revert_waits_for_the_last_of_its_alerts(store: str, tmp_path: Path, dial: Dial, by: dict[str, int]) -> None:
    """It is cancelled when the alert fires again, and planned anew; one revert gives back everything since."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, steps=[turn(dial, **by)], **BORROWS)) as one:
            await one.fire()
            await one.ended(count=1)
            await resolved(one)
            one.forward(5 * MINUTE)
            await one.fire()
            await one.ended(count=3)
            (cancelled,) = await reverts(one)
            assert (RunState.CANCELLED, Reason.FIRES_AGAIN) == (cancelled.state, cancelled.reason)
            one.forward(20 * MINUTE)
            assert dial.value == (5 if "to" in by else 7)
            await resolved(one)
            one.forward(11 * MINUTE)
            _, done = await reverted(one, 2)
            assert (RunState.SUCCEEDED, 3) == (done.state, dial.value)
            assert len(done.plan["undoes"]) == (1 if "to" in by else 2)

    run(scenario())


def test_a_revert_follows_an_alert_that_nothing_was_done_for(store: str, tmp_path: Path, dial: Dial) -> None:
    """The alert came back, its run was cancelled by hand, and it went again: what was borrowed is not forgotten."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, **BORROWS)) as one:
            await one.fire()
            await one.ended(count=1)
            await resolved(one)
            one.catalog.put(turns(dial, mode="observe", **BORROWS))
            one.forward(MINUTE)
            await one.fire()
            await one.ended(count=3)
            await resolved(one)
            one.forward(11 * MINUTE)
            cancelled, done = await reverted(one, 2)
            assert (Reason.FIRES_AGAIN, RunState.SUCCEEDED) == (cancelled.reason, done.state)
            assert 3 == dial.value

    run(scenario())


def test_what_was_changed_by_hand_is_not_given_back(store: str, tmp_path: Path, dial: Dial) -> None:
    """Nor is it tried again at the next alert: it is theirs now. People are told."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, **BORROWS), channel="ops") as one:
            await one.fire()
            (first,) = await one.ended(count=1)
            await resolved(one)
            dial.turn(9)
            one.forward(11 * MINUTE)
            (failed,) = await reverted(one)
            assert (RunState.FAILED, Reason.CHANGED_SINCE_PLANNED, 9) == (failed.state, failed.reason, dial.value)
            assert "not_reverted" == (await one.kinds(first.id))[-1]
            assert 1 == len(await told(one))
            one.catalog.put(turns(dial, mode="observe", **BORROWS))
            await one.fire()
            await one.ended(count=3)
            await resolved(one)
            assert 1 == len(await reverts(one))

    run(scenario())


def test_what_is_owed_under_a_lower_ceiling_is_given_back_when_that_is_raised(
    store: str, tmp_path: Path, dial: Dial
) -> None:
    """Until then it waits where everybody can see it, and reads nothing of its target."""

    async def scenario() -> None:
        clock, entry = Clock(), turns(dial, **BORROWS)
        async with engine(store, tmp_path, entry, clock=clock) as one:
            await one.fire()
            await one.ended(count=1)
            await resolved(one)
        clock.ahead += 11 * MINUTE
        given = {"clock": clock, "channel": "ops", "tell_waiting": MINUTE}
        async with engine(store, tmp_path, entry, owner="second", ceiling=Mode.OBSERVE, **given) as two:

            async def waits() -> list[Row[Any]]:
                found = await reverts(two)
                return [row for row in found if row.state == RunState.DEFERRED and row.reason == Reason.MODE_OBSERVE]

            (owed,) = await until(waits, 10, "a revert that waits", two.runs)
            assert ("still owed" in owed.message, 5) == (True, dial.value)
            two.forward(2 * MINUTE)
            assert 1 == await tell_waiting(two.parts)
            assert ["Waits: turn"] == await told(two)
        async with engine(store, tmp_path, entry, owner="third", clock=clock) as three:
            (done,) = await reverted(three)
            assert (owed.id, RunState.SUCCEEDED, 3) == (done.id, done.state, dial.value)

    run(scenario())


@pytest.mark.parametrize("reason", [Reason.MODE_OBSERVE, Reason.OUT_OF_SCOPE, Reason.FORBIDDEN, Reason.GUARD_FAILED])
def test_a_revert_that_was_refused_settles_nothing(store: str, tmp_path: Path, dial: Dial, reason: Reason) -> None:
    """Why says nothing about the target: the end of the next alert gives back what is owed."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, **BORROWS)) as one:
            await one.fire()
            await one.ended(count=1)
            await resolved(one)
            (waiting,) = await reverts(one)
            ended = ended_columns(one.clock()) | {"state": RunState.DENIED, "reason": reason}
            async with one.database.write() as tx:
                await tx.execute(update(ledger).where(ledger.c.id == waiting.id).values(ended))
            one.catalog.put(turns(dial, mode="observe", **BORROWS))
            one.forward(MINUTE)
            await one.fire()
            await one.ended(count=3)
            await resolved(one)
            one.forward(11 * MINUTE)
            await reverted(one, 2)
            assert 3 == dial.value

    run(scenario())


def test_a_revert_can_be_cancelled_by_hand(store: str, tmp_path: Path, dial: Dial) -> None:
    """Then it stays as it is."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, **BORROWS)) as one:
            await one.fire()
            await one.ended(count=1)
            await resolved(one)
            (waiting,) = await reverts(one)
            async with one.database.write() as tx:
                await approvals.decide(tx, waiting.id, HumanDecision(DecisionKind.CANCEL, "alice"), one.clock())
            one.forward(11 * MINUTE)
            await reverted(one)
            assert 5 == dial.value

    run(scenario())


def test_a_cancelled_revert_is_not_recorded_again(store: str, tmp_path: Path, dial: Dial) -> None:
    """The person who cancelled it keeps the new value; the end of a later alert changes nothing about that."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, **BORROWS)) as one:
            await one.fire()
            await one.ended(count=1)
            await resolved(one)
            (waiting,) = await reverts(one)
            async with one.database.write() as tx:
                await approvals.decide(tx, waiting.id, HumanDecision(DecisionKind.CANCEL, "alice"), one.clock())
            one.catalog.put(turns(dial, mode="observe", **BORROWS))
            one.forward(MINUTE)
            await one.fire()
            await one.ended(count=3)
            await resolved(one)
            assert [waiting.id] == [row.id for row in await reverts(one)]

    run(scenario())


def test_an_undo_is_not_folded_into_a_run_nor_a_run_into_it(store: str, tmp_path: Path, dial: Dial) -> None:
    """The alert fires again while the undo waits; the new run waits for it on the same target."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial), working=False) as one:
            await one.fire()
            loop = asyncio.create_task(one.worker.work_forever())
            (first,) = await one.ended(count=1)
            loop.cancel()
            await resolved(one)
            await undo(one, first.id)
            one.forward(MINUTE)
            await one.fire()
            one.loops.append(asyncio.create_task(one.worker.work_forever()))
            found = await one.ended(count=3)
            assert {RunState.SUCCEEDED} == {row.state for row in found}
            assert dial.history in ([3, 5, 3, 5], [3, 5, 3])  # whichever is decided first

    run(scenario())


def test_the_release_before_cannot_read_what_takes_back(store: str, tmp_path: Path, dial: Dial) -> None:
    """It would apply the steps once more. What it may go on with is stored as it knows it."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial)) as one:
            await one.fire()
            (first,) = await one.ended(count=1)
            await undo(one, first.id)
            remedy, undone = await one.ended(count=2)
            Remediation.model_validate(former_names.specification(remedy.spec))
            with pytest.raises(ValidationError, match="purpose"):
                Remediation.model_validate(former_names.specification(undone.spec))
            assert "undoes" not in remedy.plan
            known = set(Plan.model_fields) - {"undoes"}
            assert set(remedy.plan) <= known
            assert not set(undone.plan) <= known

    run(scenario())


def test_a_revert_is_recorded_with_the_resolution(store: str, tmp_path: Path, dial: Dial) -> None:
    """In one transaction: nobody sees the one without the other, whenever the process dies."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, **BORROWS)) as one:
            await one.fire()
            (first,) = await one.ended(count=1)
            await resolved(one)
            (waiting,) = await reverts(one)
            async with one.database.read() as tx:
                events = (await tx.execute(select(event).where(event.c.run_id == first.id).order_by(event.c.id))).all()
                linked = select(run_episode.c.run_id).where(run_episode.c.run_id == waiting.id)
                assert 1 == len((await tx.execute(linked)).all())
            of_end = {row.kind: row for row in events[-2:]}
            assert {"revert_recorded", "resolved"} == of_end.keys()
            if not one.database.is_sqlite:
                assert of_end["resolved"].tx == of_end["revert_recorded"].tx

    run(scenario())


def test_what_a_waiting_run_needed_is_given_back_when_that_ends(store: str, tmp_path: Path, dial: Dial) -> None:
    """The second alert resolves while its run still awaits approval; nothing else would ask again."""

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial, **BORROWS)) as one:
            await one.fire()
            await one.ended(count=1)
            await resolved(one)
            one.catalog.put(turns(dial, steps=[turn(dial, to=6)], mode="approve", **BORROWS))
            one.forward(MINUTE)
            await one.fire()

            async def asked() -> bool:
                return (await one.runs())[-1].state == RunState.AWAITING_APPROVAL

            await until(asked, 10, "a question", one.runs)
            await until(lambda: _stood_back(one), 10, "the revert to stand back", one.runs)
            await resolved(one)
            one.forward(11 * MINUTE)
            await until(lambda: _gave_back(one), 10, "the revert", one.runs)
            one.forward(11 * MINUTE)
            await one.ended()
            assert [3, 5, 3] == dial.history

    run(scenario())


async def _stood_back(one: Engine) -> bool:
    return [row.reason for row in await reverts(one)][:1] == [Reason.FIRES_AGAIN]


async def _gave_back(one: Engine) -> bool:
    return await _stood_back(one) and len(await reverts(one)) > 1


@pytest.mark.parametrize("repeatable", [True, False])
def test_an_undo_survives_the_death_of_its_replica(
    store: str, tmp_path: Path, dial: Dial, monkeypatch: pytest.MonkeyPatch, *, repeatable: bool
) -> None:
    """The effect is there and nobody has written that down: it is not done twice, and never guessed."""
    undone = asyncio.Event()

    async def dies(self: Turn, context: Context, step: PlannedStep) -> JsonObject:
        await original(self, context, step)
        undone.set()
        await asyncio.Event().wait()
        raise AssertionError

    original = Turn.undo
    clock = Clock()

    async def scenario() -> None:
        async with engine(store, tmp_path, turns(dial), clock=clock) as one:
            await one.fire()
            (first,) = await one.ended(count=1)
            monkeypatch.setattr(Turn, "undo", dies)
            monkeypatch.setattr(Turn, "repeatable", repeatable)
            await undo(one, first.id)
            await undone.wait()
            one.worker.drain = _nothing  # type: ignore[method-assign] - it dies, it does not stop
            for task in one.worker._tasks.values():
                task.cancel()
        monkeypatch.setattr(Turn, "undo", original)
        clock.ahead += MINUTE
        async with engine(store, tmp_path, turns(dial), clock=clock, owner="replica-2", channel="ops") as other:
            _, second = await other.ended(count=2)
            expected = (RunState.SUCCEEDED, Reason.VERIFIED) if repeatable else (RunState.INTERRUPTED,) * 2
            assert (*expected, [3, 5, 3]) == (second.state, second.reason, dial.history)
            assert ([] if repeatable else ["Not undone: turn"]) == await told(other)

    run(scenario())


async def _nothing(_grace: float) -> None:
    return


def test_of_two_people_at_two_replicas_one_undoes(store: str, tmp_path: Path, dial: Dial) -> None:
    """The other is told which run does it."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            clock = Clock()
            several = [
                await stack.enter_async_context(
                    engine(store, tmp_path, turns(dial), clock=clock, owner=f"replica-{number}")
                )
                for number in range(2)
            ]
            await several[0].fire()
            (first,) = await several[0].ended(count=1)
            answers = await asyncio.gather(
                *(undo(several[number % 2], first.id) for number in range(6)), return_exceptions=True
            )
            done = [answer for answer in answers if isinstance(answer, str)]
            refused = [answer for answer in answers if isinstance(answer, ConflictError)]
            assert (1, 5) == (len(done), len(refused))
            assert all(f"see run {done[0]}" in answer.message for answer in refused)
            await several[0].ended(count=2)
            assert [3, 5, 3] == dial.history

    run(scenario())


def test_a_resolve_and_the_end_of_the_run_at_once_are_one_revert(
    store: str, tmp_path: Path, dial: Dial, sink: WebServer
) -> None:
    """Both transactions may see that the time has come; one of them records it, whichever is first."""

    async def scenario() -> None:
        entry = turns(dial, verify=[ok(sink, timeout="60s")], **BORROWS)
        async with engine(store, tmp_path, entry) as one:
            sink.status = 500
            for number in range(8):
                await one.fire(pod=f"pod-{number}")
            await until(lambda: _are(one, RunState.VERIFYING, 8), 10, "the runs to look", one.runs)
            one.forward(MINUTE)
            sink.status = 200
            await asyncio.gather(*(one.resolve(pod=f"pod-{number}") for number in range(8)))
            await until(lambda: _are(one, RunState.SUCCEEDED, 8), 20, "the runs to end", one.runs)
            found = await reverts(one)
            # Each alert without a target of its own is a target; only the first of them has turned the dial.
            changed = [row for row in await one.runs() if row.plan and row.plan["steps"][0]["changes"]]
            assert sorted(row.undoes for row in found) == sorted(
                {row.id for row in changed if row.purpose == Purpose.REMEDY}
            )

    run(scenario())


async def _are(one: Engine, state: RunState, count: int) -> bool:
    return count == sum(row.state == state and row.purpose == Purpose.REMEDY for row in await one.runs())
