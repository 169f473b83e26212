"""Makes the call of one step: whether it may be made, when, how often, and how long it may take.

The one place that retries: only after an error that an action calls transient, and only within the step's deadline.
Before each call, further tries of the same step too, a transaction that holds the lease asks whether it may be made,
and by its own clock the replica surely has the run. Every exception becomes an outcome, except for the ones that leave
the call to another replica.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_before_delay, wait_random_exponential

from app.backends.action import Context
from app.backends.actions import actions
from app.domain.errors import AppError, LeaseLostError, StoreUnavailableError, TransientError
from app.domain.model import JsonObject
from app.domain.plans import Plan, PlannedStep
from app.domain.reasons import Reason
from app.engine.clock import steady
from app.engine.context import EngineContext
from app.engine.stages import between_steps
from app.engine.tenure import Tenure
from app.store.ledger import leases, runs, steps, undos
from app.store.ledger.runs import Run
from app.store.ledger.steps import StepOutcome

_TRYING = 0.9  # of the time; a try that begins later would be cut off and tell nothing
_FRESH_SECONDS = 1.0  # in which a call follows its intent, unless this replica stood still
_backoff = wait_random_exponential(multiplier=0.4, max=10)
T = TypeVar("T")
log = structlog.get_logger()


class DrainingError(Exception):
    """The last try did not happen, and the next one is for another replica."""


class HaltedError(Exception):
    """The next call may not be made now; the run is put off, and that is committed."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run


@dataclass(slots=True)
class Call:
    """One step of a run that is to be called, and how often it was."""

    parts: EngineContext
    run: Run
    plan: Plan
    position: int
    is_known: bool = False  # to the ledger, by an owner of the run that had begun it
    tries: int = 0
    asked_at: float = 0.0  # by the steady clock, whether it may be made
    may_have_acted: bool = False  # a try of it was sent, and its answer lost

    @property
    def step(self) -> PlannedStep:
        """As planned."""
        return self.plan.steps[self.position]

    @property
    def tenure(self) -> Tenure:
        """How long it may take at most, unless it is renewed."""
        return self.parts.tenures.get(self.run.id) or Tenure()

    @property
    def is_further(self) -> bool:
        """Whether its run has done anything before it, or may have done it already."""
        return self.run.rung > 0 or self.position > 0 or self.is_known or self.may_have_acted


async def begin(call: Call) -> None:
    """Commit the intent of a call, unless it may not be made now; raises HaltedError then."""
    halted, call.asked_at = None, steady()
    async with call.parts.turn() as turn:
        decision = await between_steps.objection(turn, call.run, begun=call.is_further)
        if decision is None:
            await steps.start(turn.tx, call.run, call.position, call.step, turn.now)
        else:
            halted = await between_steps.halt(turn, call.run, decision, call.position, begun=call.is_further)
    if halted is not None:
        raise HaltedError(halted)


async def _ask_again(call: Call) -> None:
    """Ask whether a call may still be made after its intent was committed.

    Raises LeaseLostError, or HaltedError: its intent stays recorded where a try may have had its effect. If the call
    comes late, but no replica took its run over, it renews the lease.
    """
    halted, parts, asked_at = None, call.parts, steady()
    async with parts.turn() as turn:
        await runs.check_lease(turn.tx, call.run)
        if call.tries == 0:
            await leases.renew(turn.tx, parts.owner, [call.run.id], turn.now + parts.policy.lease)
        decision = await between_steps.objection(turn, call.run, begun=call.is_further)
        if decision is not None:
            why = f"not tried now: {decision.message}"
            await steps.leave(turn.tx, call.run, call.position, turn.now, why)
            if not (call.is_known or call.may_have_acted):
                await steps.forget(turn.tx, call.run, call.position)
            halted = await between_steps.halt(turn, call.run, decision, call.position, begun=call.is_further)
    if halted is not None:
        raise HaltedError(halted)
    if call.tries == 0:
        call.tenure.prolong(asked_at)


async def wait_for_store(write: Callable[[], Awaitable[T]]) -> T:
    """Write as soon as the store takes it."""
    waiting = AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        reraise=True,
    )
    return await waiting(write)


async def carry_out(call: Call) -> StepOutcome:
    """Call the action within its deadline; every exception becomes an outcome."""
    parts, step = call.parts, call.step
    action = actions()[step.action]
    deadline = step.timeout.total_seconds()
    begun = time.monotonic()
    if not call.plan.undoes:
        waited = parts.clock() - call.run.received_at
        parts.metrics.alert_to_action.observe(max(0.0, waited.total_seconds()))
    try:
        async with asyncio.timeout(deadline):
            result = await _try(call)
        return StepOutcome("succeeded", call.tries, result)
    except (DrainingError, HaltedError, LeaseLostError):
        raise
    except TimeoutError:
        known = action.can_repeat(step)
        reason = Reason.DEADLINE_EXCEEDED if known else Reason.OUTCOME_UNKNOWN
        return StepOutcome("failed", call.tries, reason=reason, error=f"not done within {deadline:g} s")
    except AppError as error:
        return StepOutcome("failed", call.tries, reason=error.reason, error=error.message)
    except Exception as error:  # the step boundary: for an action, unknown means stop
        log.exception("action raised", action=step.action)
        message = f"unexpected {type(error).__name__}; see the log of this run"
        return StepOutcome("failed", call.tries, reason=Reason.UNEXPECTED, error=message)
    finally:
        parts.metrics.action_duration.labels(step.action).observe(time.monotonic() - begun)


async def _try(call: Call) -> JsonObject:
    """Call the action until it does not say that it can be tried again, each time only while the run is surely ours."""
    parts, step = call.parts, call.step
    context = Context(parts.clients, parts.policy.scope, call.run.id, call.plan.target, parts.clock())
    action = actions()[step.action]
    result: JsonObject = {}
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(TransientError),
        wait=_pause,
        stop=stop_before_delay(_TRYING * step.timeout.total_seconds()),
        sleep=partial(_sleep, parts),
        before_sleep=partial(_tell_once, step),
        reraise=True,
    ):
        with attempt:
            if call.tries > 0 or call.tenure.is_over or steady() - call.asked_at > _FRESH_SECONDS:
                await wait_for_store(partial(_ask_again, call))
            call.tries += 1
            try:
                async with call.tenure.limit():
                    result = await (action.undo if call.plan.undoes else action.apply)(context, step)
            except TransientError as error:
                call.may_have_acted |= error.reason in undos.PERHAPS and action.can_repeat(step)
                raise
    return result


async def _sleep(parts: EngineContext, seconds: float) -> None:
    """Wait between two tries; raises DrainingError where this replica drains."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await parts.draining.wait()
    if parts.draining.is_set():
        raise DrainingError


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
