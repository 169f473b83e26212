"""How runs end: by what the action does, by what the checks see, and by whether the alert resolves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog

from app.backends.action import Action, Context
from app.backends.actions import actions
from app.backends.check import Check, CheckContext
from app.backends.checks import checks
from app.domain.errors import PermanentError
from app.domain.model import JsonObject, Value
from app.domain.plans import Plan, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk
from app.domain.states import RunState
from app.engine import pipeline, worker
from app.engine.clock import steady
from app.engine.context import EngineContext
from app.engine.stages import intake, verification
from app.engine.stages.intake import take_in
from app.store.db import urgency
from app.store.db.pace import work_in_background
from app.store.ledger import inbox
from app.store.ledger.runs import Run
from tests.support.aio import run
from tests.support.engine import Engine, engine, remediation, sqlite, until
from tests.support.entries import asked, ok, poke, request
from tests.support.pacing import urgent
from tests.support.processes import free_port
from tests.support.web import WebServer

MINUTE = timedelta(minutes=1)
LIMITS = {"cooldown": "0s", "rate": "1000/1h"}


class Nothing(Value):
    """No parameters."""


class Raises(Action[Nothing]):
    """An action with a bug."""

    name = "test.raises"
    summary = "Raises."
    Params = Nothing
    risk = Risk.LOW

    async def plan(self, context: Context, params: Nothing) -> PlannedStep:  # noqa: ARG002 - the contract's
        """Plan as if all were well."""
        return self.planned(params, summary="raise")

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:  # noqa: ARG002 - the contract's
        """Fail as nobody foresaw."""
        raise ZeroDivisionError("secret")


class Refused(Action[Nothing]):
    """An action that its target refuses for good."""

    name = "test.refused"
    summary = "Is refused."
    Params = Nothing
    risk = Risk.LOW

    def __init__(self, reason: Reason) -> None:
        self._reason = reason

    async def plan(self, context: Context, params: Nothing) -> PlannedStep:  # noqa: ARG002 - the contract's
        """Plan as if all were well."""
        return self.planned(params, summary="be refused")

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:  # noqa: ARG002 - the contract's
        """Be refused."""
        raise PermanentError("no", reason=self._reason)


class Blind(Check[Nothing]):
    """A check with a bug."""

    name = "test.blind"
    summary = "Raises."
    Params = Nothing

    async def observe(self, context: CheckContext, params: Nothing) -> NoReturn:  # noqa: ARG002 - the contract's
        """Fail as nobody foresaw."""
        raise ZeroDivisionError("secret")


@pytest.fixture(autouse=True)
def _with_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(actions(), "test.raises", Raises())
    monkeypatch.setitem(checks(), "test.blind", Blind())


async def _settling(one: Engine) -> None:
    """Wait until a run waits for its alert to resolve."""

    async def there() -> bool:
        return any(row.settle_until is not None for row in await one.runs())

    await until(there, 10, "a run to settle", one.runs)


def test_an_alert_that_resolves_in_time_makes_the_run_effective(tmp_path: Path, sink: WebServer) -> None:
    """The run waits for it and ends with it."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, settle="5m")) as one:
            await one.fire()
            await _settling(one)
            await one.resolve()
            (row,) = await one.ended()
            assert (RunState.SUCCEEDED, True) == (row.state, row.effective)
            assert row.resolved_at is not None

    run(scenario())


def test_a_resolve_after_the_run_makes_it_effective(tmp_path: Path, sink: WebServer) -> None:
    """Without `settle` the run does not wait, and what comes later is still recorded."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            await one.fire()
            (row,) = await one.ended()
            assert row.effective is None
            await one.resolve()
            (row,) = await one.runs()
            assert row.effective is True
            assert "resolved" == (await one.kinds(row.id))[-1]

    run(scenario())


def test_a_resolve_in_the_middle_lets_the_run_finish(tmp_path: Path, sink: WebServer) -> None:
    """A step under way is not torn off; the run ends well, and effective."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, settle="5m")) as one:
            sink.answering.clear()
            await one.fire()
            await until(lambda: _is(asked(sink) == 1), 10, "the request")
            await one.resolve()
            sink.answering.set()
            (row,) = await one.ended()
            assert (RunState.SUCCEEDED, True, 1) == (row.state, row.effective, asked(sink))

    run(scenario())


async def _is(answer: bool) -> bool:
    return answer


def test_when_the_alert_does_not_resolve_the_next_rung_is_tried(tmp_path: Path, sink: WebServer) -> None:
    """Settle over: the second rung's steps, and not the first's again."""

    async def scenario() -> None:
        rungs = [{"steps": [request(sink, "/harder")], "settle": "5m"}]
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, settle="5m", escalate=rungs)) as one:
            await one.fire()
            await _settling(one)
            assert 0 == asked(sink, "/harder")
            one.forward(5 * MINUTE)
            await until(lambda: _is(asked(sink, "/harder") == 1), 10, "the second rung", one.runs)
            await one.resolve()
            (row,) = await one.ended()
            assert (RunState.SUCCEEDED, True, 1) == (row.state, row.effective, row.rung)
            assert 1 == asked(sink)

    run(scenario())


def test_after_the_last_rung_the_run_has_failed(tmp_path: Path, sink: WebServer) -> None:
    """The alert still fires, so nothing helped."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, settle="5m")) as one:
            await one.fire()
            await _settling(one)
            one.forward(5 * MINUTE)
            (row,) = await one.ended(count=1)
            expected = (RunState.FAILED, Reason.ALERT_STILL_FIRING, False)
            assert expected == (row.state, row.reason, row.effective)

    run(scenario())


def test_a_rung_is_not_tried_when_the_alert_has_resolved(tmp_path: Path, sink: WebServer, health: WebServer) -> None:
    """A check that does not hold does not escalate what is over."""

    async def scenario() -> None:
        health.status = 500
        entry = poke(sink, verify=[ok(health, timeout="1s")], escalate=[{"steps": [request(sink, "/harder")]}])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            await until(lambda: _is(asked(health, "/health") > 0), 10, "the first look", one.runs)
            await one.resolve()
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, Reason.CHECK_FAILED, 0) == (row.state, row.reason, asked(sink, "/harder"))

    run(scenario())


def test_a_failed_attempt_is_followed_by_the_next(tmp_path: Path, sink: WebServer) -> None:
    """As many runs as `attempts` allows, and then no more."""

    async def scenario() -> None:
        sink.status = 404
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, limits=LIMITS | {"attempts": 2})) as one:
            await one.fire()
            first, second = await one.ended(count=2)
            assert (1, 2, 2) == (first.attempt, second.attempt, asked(sink))
            assert {(RunState.FAILED, Reason.ACTION_FAILED)} == {(row.state, row.reason) for row in (first, second)}
            assert "next_attempt" in await one.kinds(first.id)
            await one.resolve()
            assert 2 == len(await one.runs())

    run(scenario())


@pytest.mark.parametrize(
    "reason",
    [
        *(Reason.OUTCOME_UNKNOWN, Reason.OUT_OF_SCOPE, Reason.FORBIDDEN, Reason.UNEXPECTED, Reason.TAKEN_BACK),
        Reason.EXPORTED_LABEL,
    ],
)
def test_what_a_second_attempt_cannot_mend_is_not_attempted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: Reason
) -> None:
    """The remediation has attempts left, and its alert fires; the first failure is the last one nevertheless."""

    async def scenario() -> None:
        monkeypatch.setitem(actions(), "test.refused", Refused(reason))
        entry = remediation(steps=[{"action": "test.refused"}], limits=LIMITS | {"attempts": 3})
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            (row,) = await one.ended()
            assert (RunState.FAILED, reason) == (row.state, row.reason)
            assert "next_attempt" not in await one.kinds(row.id)

    run(scenario())


def test_a_permanent_error_ends_the_run(tmp_path: Path, sink: WebServer) -> None:
    """It is not sent again, and the steps after it are not applied."""

    async def scenario() -> None:
        sink.status = 404
        entry = poke(sink, steps=[request(sink), request(sink, "/second")])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            (row,) = await one.ended()
            assert (RunState.FAILED, Reason.ACTION_FAILED) == (row.state, row.reason)
            assert "404" in row.message
            assert (1, 0) == (asked(sink), asked(sink, "/second"))

    run(scenario())


def test_a_transient_error_is_tried_again(tmp_path: Path, sink: WebServer) -> None:
    """Within the step's deadline, and with the same idempotency key."""

    async def scenario() -> None:
        sink.status = 503
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            await one.fire()
            await until(lambda: _is(asked(sink) == 2), 10, "two tries", one.runs)
            sink.status = 200
            (row,) = await one.ended()
            (step,) = await one.steps()
            assert (RunState.SUCCEEDED, "succeeded", asked(sink)) == (row.state, step.state, step.tries)
            assert step.tries > 2
            assert 1 == len({each.headers["Idempotency-Key"] for each in sink.requests})

    with structlog.testing.capture_logs() as lines:
        run(scenario())
    (told,) = [line for line in lines if line["event"] == "step is tried again"]
    assert ("http.request", True) == (told["action"], "503" in told["error"])


def test_what_stays_transient_fails_with_its_own_reason(tmp_path: Path, sink: WebServer) -> None:
    """At the deadline the last error counts, which says more than that time is over."""

    async def scenario() -> None:
        sink.status = 503
        entry = poke(sink, steps=[request(sink, timeout="600ms")])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            (row,) = await one.ended()
            assert (RunState.FAILED, Reason.ACTION_FAILED) == (row.state, row.reason)
            assert "503" in row.message

    run(scenario())


def test_a_target_that_was_never_reached_is_no_unknown_outcome(tmp_path: Path) -> None:
    """Nothing was sent: also what must not be repeated may be attempted again."""

    async def scenario() -> None:
        away = WebServer(url=f"http://127.0.0.1:{free_port()}")
        step = request(away, timeout="2s")  # long enough that no try is under way when it ends
        step["with"]["method"] = "POST"
        async with engine(sqlite(tmp_path), tmp_path, poke(away, steps=[step])) as one:
            await one.fire()
            (row,) = await one.ended()
            assert (RunState.FAILED, Reason.TARGET_UNREACHABLE) == (row.state, row.reason)

    run(scenario())


@pytest.mark.parametrize(("method", "reason"), [("PUT", Reason.DEADLINE_EXCEEDED), ("POST", Reason.OUTCOME_UNKNOWN)])
def test_no_answer_within_the_deadline(tmp_path: Path, sink: WebServer, method: str, reason: Reason) -> None:
    """What may have happened and must not be repeated is unknown, and then there is no next attempt."""

    async def scenario() -> None:
        sink.answering.clear()
        step = request(sink, timeout="400ms")
        step["with"]["method"] = method
        entry = poke(sink, steps=[step], limits=LIMITS | {"attempts": 2})
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            rows = await one.ended(count=2 if method == "PUT" else 1)
            assert {(RunState.FAILED, reason)} == {(row.state, row.reason) for row in rows}
            assert len(rows) == asked(sink)
            sink.answering.set()

    run(scenario())


def test_a_check_that_does_not_hold_fails_the_run(tmp_path: Path, sink: WebServer, health: WebServer) -> None:
    """The step was applied, and the target is not well."""

    async def scenario() -> None:
        health.status = 500
        entry = poke(sink, verify=[ok(health, timeout="300ms")])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            (row,) = await one.ended()
            assert (RunState.FAILED, Reason.CHECK_FAILED, False) == (row.state, row.reason, row.effective)

    run(scenario())


def test_the_time_that_the_store_takes_fails_no_check(
    tmp_path: Path, sink: WebServer, health: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen before it is old by then; the target is looked at once more."""
    note = verification._note

    async def slowly(*given: Any) -> None:
        await note(*given)
        health.status = 200
        await asyncio.sleep(4)  # no condition: that time passes, more than the check has, is what is tested

    async def scenario() -> None:
        health.status = 500
        entry = poke(sink, verify=[ok(health, timeout="3s")])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            (row,) = await one.ended()
            assert (RunState.SUCCEEDED, Reason.VERIFIED) == (row.state, row.reason)

    monkeypatch.setattr(verification, "_note", slowly)
    run(scenario())


def test_a_check_that_holds_later_is_waited_for(tmp_path: Path, sink: WebServer, health: WebServer) -> None:
    """Only what changes of what is seen becomes an event."""

    async def scenario() -> None:
        health.status = 500
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, verify=[ok(health)])) as one:
            await one.fire()
            await until(lambda: _is(asked(health, "/health") > 1), 10, "two looks", one.runs)
            health.status = 200
            (row,) = await one.ended()
            assert RunState.SUCCEEDED == row.state
            assert 2 == (await one.kinds(row.id)).count("check")

    run(scenario())


def test_a_check_that_raises_could_not_observe(tmp_path: Path, sink: WebServer) -> None:
    """Not to see is not to see that it is bad; the exception's text stays in the log."""

    async def scenario() -> None:
        entry = poke(sink, verify=[{"check": "test.blind", "timeout": "300ms"}])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await one.fire()
            (row,) = await one.ended()
            assert (RunState.FAILED, Reason.CHECK_UNOBSERVABLE) == (row.state, row.reason)
            assert "secret" not in row.message

    run(scenario())


def test_an_action_with_a_bug_ends_its_run_only(tmp_path: Path, sink: WebServer) -> None:
    """Unknown means stop: no further step, no further attempt; the worker goes on with the next run."""

    async def scenario() -> None:
        steps = [{"action": "test.raises"}, request(sink, "/after")]
        broken = poke(sink, name="broken", matchers=['pod="a"'], steps=steps, limits=LIMITS | {"attempts": 2})
        async with engine(sqlite(tmp_path), tmp_path, broken, poke(sink, matchers=['pod="b"'])) as one:
            await one.fire(pod="a")
            (row,) = await one.ended(count=1)
            assert (RunState.FAILED, Reason.UNEXPECTED) == (row.state, row.reason)
            assert "secret" not in row.message
            await one.fire(pod="b")
            await one.ended(count=2)
            assert (0, 1) == (asked(sink, "/after"), asked(sink))

    run(scenario())


def test_a_run_whose_action_is_gone_fails_and_the_others_go_on(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the package that had it was uninstalled: the run ends, instead of being tried for ever."""

    async def scenario() -> None:
        broken: dict[str, Any] = poke(sink, name="broken", matchers=['pod="a"'], steps=[{"action": "test.raises"}])
        async with engine(sqlite(tmp_path), tmp_path, broken, poke(sink, matchers=['pod="b"'])) as one:
            monkeypatch.delitem(actions(), "test.raises")
            await one.fire(pod="a")
            await one.fire(pod="b")
            rows = {row.remediation: row for row in await one.ended(count=2)}
            assert (RunState.FAILED, Reason.CONFIG_INVALID) == (rows["broken"].state, rows["broken"].reason)
            assert RunState.SUCCEEDED == rows["poke"].state

    run(scenario())


def _plans_slowly(monkeypatch: pytest.MonkeyPatch, planning: Callable[[], Awaitable[None]]) -> None:
    """Nobody answers who is asked for the plan of `Late`; for all others, `planning` comes first."""
    plan = pipeline._plan

    async def planned(parts: EngineContext, run: Run) -> Plan:
        if run.labels["alertname"] == "Late":
            await asyncio.Event().wait()
        await planning()
        return await plan(parts, run)

    monkeypatch.setattr(pipeline, "_plan", planned)


async def _storm(one: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many notifications that whoever is patient has no turn any more."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 600)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 600)

    async def last() -> None:
        work_in_background()
        await one.database.pace.turn()

    urgent(one.database.pace, 10)
    # The pause begins after this turn, or has begun after one that was under way, and then this one does not come.
    await asyncio.wait([asyncio.create_task(last())], timeout=0.5)


def test_who_may_act_waits_behind_nobody_who_is_to_be_decided_on(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was decided on would be old by then; one place is taken by an alert that came later."""

    async def scenario() -> None:
        late = poke(sink, name="late", matchers=['alertname="Late"'])
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), late, workers=1) as one:
            _plans_slowly(monkeypatch, lambda: one.fire(alertname="Late"))
            await one.fire()
            await until(lambda: _is(asked(sink) > 0), 10, "the action to be called", one.runs)

    run(scenario())


def test_what_was_planned_when_a_storm_begins_is_done(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the storm is over, what it was decided on would be old."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            _plans_slowly(monkeypatch, lambda: _storm(one, monkeypatch))
            await one.fire()
            (row,) = await one.ended(count=1)
            assert RunState.SUCCEEDED == row.state

    run(scenario())


def test_what_was_done_before_a_storm_is_closed_in_it(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds its target until then."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, settle="5m")) as one:
            await one.fire()
            await _settling(one)
            await _storm(one, monkeypatch)
            await one.resolve()
            (row,) = await one.ended(count=1)
            assert RunState.SUCCEEDED == row.state

    run(scenario())


def test_what_holds_a_target_ends_while_planning_takes_every_place(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API that does not answer, say: what was done elsewhere is watched and closed all the same."""

    async def scenario() -> None:
        late = poke(sink, name="late", matchers=['alertname="Late"'])
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, settle="5m"), late, workers=1) as one:
            await one.fire()
            await _settling(one)
            (settling,) = await one.runs()
            _plans_slowly(monkeypatch, lambda: asyncio.sleep(0))
            await one.deliver(*(one.firing(alertname="Late", instance=str(number)) for number in range(12)))
            await until(lambda: _is(one.worker._room() <= 0), 10, "every place to be taken", one.runs)
            await one.resolve()

            async def ended() -> bool:
                return any(row.id == settling.id and row.state == RunState.SUCCEEDED for row in await one.runs())

            await until(ended, 10, "the run that had settled to end", one.runs)

    run(scenario())


def test_a_storm_has_few_claimed_at_once(tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each claim is one piece of work, for which whoever sends a notification waits."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), working=False) as one:
            one.parts.handover.room = 0
            await one.deliver(*(one.firing(instance=str(number)) for number in range(20)))
            monkeypatch.setattr(urgency, "_RECENT_SECONDS", 600)
            urgent(one.database.pace, 10)
            await one.worker._claim()
            assert 8 == len(one.worker._tasks)

    run(scenario())


def test_many_runs_that_end_one_by_one_are_followed_by_few_looks(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look serves for many while more are in work than may go on at once, and no longer."""
    monkeypatch.setattr(worker, "_APART_SECONDS", 60)
    claimed = list[int]()

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), working=False, workers=2) as one:
            lease = one.worker._lease

            async def counted(*given: Any, **named: Any) -> int:
                claimed.append(await lease(*given, **named))
                return claimed[-1]

            monkeypatch.setattr(one.worker, "_lease", counted)
            one.parts.handover.room = 0
            await one.deliver(*(one.firing(instance=str(number)) for number in range(20)))
            working = asyncio.create_task(one.worker.work_forever())
            await one.ended(count=20)
            working.cancel()

    run(scenario())
    assert 20 == sum(claimed)
    assert 7 > len(claimed), claimed


def test_many_runs_that_only_watch_or_did_nothing_are_followed_by_others_at_once(
    tmp_path: Path, sink: WebServer, health: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not among those that may be in work."""
    monkeypatch.setattr(worker, "_APART_SECONDS", 600)

    async def scenario(state: RunState, entry: dict[str, Any]) -> None:
        (home := tmp_path / state).mkdir()
        async with engine(sqlite(home), home, entry, working=False, workers=2, concurrency=20) as one:
            one.parts.handover.room = 0
            await one.deliver(*(one.firing(instance=str(number)) for number in range(20)))
            working = asyncio.create_task(one.worker.work_forever())
            await one.reached(state, count=20)
            working.cancel()

    health.status = 500
    run(scenario(RunState.VERIFYING, poke(sink, verify=[ok(health, timeout="5m")])))
    run(scenario(RunState.OBSERVED, poke(sink, mode="observe")))


def test_a_lease_counts_from_the_transaction_that_took_it(tmp_path: Path, sink: WebServer) -> None:
    """Not from when take-in began to wait for its turn, or the run would be given up too soon."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), working=False) as one:
            one.parts.handover.room = 1
            await one.record(one.firing())
            async with one.database.write():
                taking = asyncio.create_task(take_in(one.parts))
                await asyncio.wait([taking], timeout=0.2)
                free = steady()
            await taking
            ((_, begun),) = one.parts.handover.take()
            assert begun >= free

    run(scenario())


def test_who_is_handed_over_next_waits_for_nobody_s_headstart(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look for other runs comes after those that were just recorded, however many these are."""
    monkeypatch.setattr(worker, "_HEADSTART_SECONDS", 600)

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink)) as one:
            await until(lambda: _is(one.parts.handover.room > 1), 10, "the worker to have room")
            await one.fire(instance="1")
            await one.fire(instance="2")
            await one.ended(count=2)

    run(scenario())


def test_everything_is_taken_in_and_then_nobody_looks_again(
    tmp_path: Path, sink: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one batch, of which nobody tells twice."""
    looks = []

    async def counted(parts: EngineContext, limit: int) -> object:
        looks.append(limit)
        return await original(parts, limit)

    original = intake._take_in
    monkeypatch.setattr(intake, "_take_in", counted)

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), working=False) as one:
            parts = replace(one.parts, look_again=600)
            await asyncio.gather(*(one.record(one.firing(instance=str(number))) for number in range(60)))
            taking = asyncio.create_task(intake.take_in_forever(parts, one.box))
            await until(lambda: _is_empty(one), 10, "everything to be taken in")
            before = len(looks)
            for late in ("late", "later"):
                await one.record(one.firing(instance=late))
                await until(lambda: _is_empty(one), 10, "the late one to be taken in")
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            assert 62 == len(await one.runs())
            assert 2 == len(looks) - before

    run(scenario())


async def _is_empty(one: Engine) -> bool:
    async with one.database.read() as tx:
        return not await inbox.count_waiting(tx)
