"""Applies the planned steps in order, or takes them back. The intent is committed before each call, its result after.

The one place that retries: only what an action calls transient, and only within the step's deadline. A replica that
drains finishes its calls and leaves the rest, further tries of the same step too, to another one.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from functools import partial

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_before_delay, wait_random_exponential

from app.actions.base import Context
from app.actions.registry import actions
from app.domain.errors import AppError, LeaseLostError, StoreUnavailableError, TransientError
from app.domain.plans import Plan, PlannedStep
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.closing import close, escalate_or_fail
from app.engine.parts import Parts, Turn
from app.engine.timekeeping import steady
from app.store import runs, steps
from app.store.events import Entry
from app.store.runs import Run
from app.store.steps import StepOutcome, StepRecord
from app.store.wakeups import announce

_TRYING = 0.9  # of the time; a try that begins later would be cut off and tell nothing
_backoff = wait_random_exponential(multiplier=0.4, max=10)
log = structlog.get_logger()


class _DrainingError(Exception):
    """The last try did not happen, and the next one is for another replica."""


async def apply(parts: Parts, run: Run, plan: Plan) -> Run:
    """Apply what is not yet applied; ends in verifying, in the next rung, or in a final state."""
    objection = parts.policy.scope.plan_objection(plan)
    if objection is not None:  # it was in scope when it was planned; the configuration has changed, or the store was
        return await escalate_or_fail(parts, run, Entry(objection, Reason.OUT_OF_SCOPE))
    async with parts.database.read() as tx:
        recorded = {record.position: record for record in await steps.of_rung(tx, run.id, run.rung)}
    for position, step in enumerate(plan.steps):
        if parts.draining.is_set():
            return await _leave(parts, run)
        try:
            outcome, run = await _step(parts, run, plan, position, recorded.get(position))
        except _DrainingError:
            forgets = not actions()[step.action].can_repeat(step)
            return await _leave(parts, run, position, forgets=forgets)
        if outcome.state in {"interrupted", "failed"}:
            return await _stopped(parts, run, position, step, outcome)
    if run.state is RunState.VERIFYING:
        return run
    async with parts.turn() as turn:
        return await _applied(turn, run, plan)


async def _applied(turn: Turn, run: Run, plan: Plan) -> Run:
    message = "applied" if plan.changes else "nothing to change"
    return await runs.move(turn.tx, run, RunState.VERIFYING, turn.now, Entry(message))


async def _leave(parts: Parts, run: Run, position: int | None = None, *, forgets: bool = False) -> Run:
    """Give the run back as it is; the step at `position` goes on elsewhere.

    What must not be repeated is begun anew, since no try of it has happened; its intent would end the run.
    """
    async with parts.turn() as turn:
        if position is not None:
            await steps.leave(turn.tx, run, position, turn.now, forgets=forgets)
        await announce(turn.tx)
        return await runs.postpone(turn.tx, run, turn.now)


async def _step(
    parts: Parts, run: Run, plan: Plan, position: int, record: StepRecord | None
) -> tuple[StepOutcome, Run]:
    """One step, from its intent to its result; what an earlier owner of the run finished is not done again."""
    if record is not None and record.state != "started":
        return StepOutcome(record.state, record.tries, reason=record.reason, error=record.error), run
    step = plan.steps[position]
    if record is not None and not actions()[step.action].can_repeat(step):
        error = "the replica that applied it died before the result was known, and it must not be repeated"
        outcome = StepOutcome("interrupted", record.tries, reason=Reason.INTERRUPTED, error=error)
    elif not step.changes:
        outcome = StepOutcome("skipped", tries=0, result={"already": "as planned"})
        await _start(parts, run, position, step)
    else:
        await _start(parts, run, position, step)
        outcome = await _call(parts, run, plan, step)
    run = await _finish(parts, run, plan, position, outcome)
    parts.metrics.actions.labels(step.action, outcome.state).inc()
    log.info("step ended", action=step.action, state=outcome.state, reason=outcome.reason, error=outcome.error)
    return outcome, run


async def _start(parts: Parts, run: Run, position: int, step: PlannedStep) -> None:
    async with parts.turn() as turn:
        await steps.start(turn.tx, run, position, step, turn.now)


async def _finish(parts: Parts, run: Run, plan: Plan, position: int, outcome: StepOutcome) -> Run:
    """Write the result, and of the last step what follows from it; the store is waited for when it is away.

    The effect is known only here.

    When the lease runs out meanwhile and another replica is first, the write raises LeaseLostError and changes nothing.
    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        reraise=True,
    ):
        with attempt:
            async with parts.turn() as turn:
                await steps.finish(turn.tx, run, position, turn.now, outcome)
                if position + 1 == len(plan.steps) and outcome.state in {"succeeded", "skipped"}:
                    return await _applied(turn, run, plan)
    return run


async def _call(parts: Parts, run: Run, plan: Plan, step: PlannedStep) -> StepOutcome:
    """Call the action within its deadline; every exception becomes an outcome."""
    context = Context(parts.clients, parts.policy.scope, run.id, plan.target, parts.clock())
    action = actions()[step.action]
    deadline = step.timeout.total_seconds()
    begun = time.monotonic()
    tries = 0
    if not plan.undoes:
        parts.metrics.alert_to_action.observe(max(0.0, (context.now - run.received_at).total_seconds()))
    try:
        async with asyncio.timeout(deadline):
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(TransientError),
                wait=_pause,
                stop=stop_before_delay(_TRYING * deadline),
                sleep=partial(_sleep, parts, run.id),
                before_sleep=partial(_tell_once, step),
                reraise=True,
            ):
                with attempt:
                    tries += 1
                    result = await (action.undo if plan.undoes else action.apply)(context, step)
        return StepOutcome("succeeded", tries, result)
    except (_DrainingError, LeaseLostError):
        raise
    except TimeoutError:
        known = action.can_repeat(step)
        reason = Reason.DEADLINE_EXCEEDED if known else Reason.OUTCOME_UNKNOWN
        return StepOutcome("failed", tries, reason=reason, error=f"not done within {deadline:g} s")
    except AppError as error:
        return StepOutcome("failed", tries, reason=error.reason, error=error.message)
    except Exception as error:  # the step boundary: for an action, unknown means stop
        log.exception("action raised", action=step.action)
        message = f"unexpected {type(error).__name__}; see the log of this run"
        return StepOutcome("failed", tries, reason=Reason.UNEXPECTED, error=message)
    finally:
        parts.metrics.action_duration.labels(step.action).observe(time.monotonic() - begun)


async def _sleep(parts: Parts, run_id: str, seconds: float) -> None:
    """Wait between two tries; raises _DrainingError where this replica drains, LeaseLostError where it is too late.

    A replica that cannot reach the store does not hear that its lease was lost; by its own clock it knows when.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await parts.draining.wait()
    if parts.draining.is_set():
        raise _DrainingError
    if steady() > parts.held_until.get(run_id, math.inf):
        raise LeaseLostError


def _tell_once(step: PlannedStep, state: RetryCallState) -> None:
    """Until the step ends, nothing else tells why it takes so long."""
    if state.attempt_number == 1:
        log.warning("step is tried again", action=step.action, error=str(_failure(state)), within=str(step.timeout))


def _pause(state: RetryCallState) -> float:
    """Seconds before the next try: growing, and never less than the target asked for."""
    error = _failure(state)
    return max(_backoff(state), error.retry_after if isinstance(error, TransientError) else 0.0)


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


async def _stopped(parts: Parts, run: Run, position: int, step: PlannedStep, outcome: StepOutcome) -> Run:
    if outcome.state == "failed":
        where = f"step {position + 1} ({step.action})"
        return await escalate_or_fail(parts, run, Entry(f"{where}: {outcome.error}", outcome.reason))
    async with parts.turn() as turn:
        entry = Entry(f"step {position + 1}: {outcome.error}", outcome.reason)
        return await close(turn, run, RunState.INTERRUPTED, entry)
