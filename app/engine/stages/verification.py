"""Verifies an applied rung: the target itself through checks, then the alert through `settle`."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import structlog

from app.backends.check import CheckContext
from app.backends.checks import checks
from app.domain.durations import format_duration
from app.domain.errors import CheckError
from app.domain.plans import Observation, Plan, PlannedCheck
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.context import EngineContext, Turn
from app.engine.stages.closing import close, escalate_or_fail, still_firing
from app.engine.stages.stability import taken_back
from app.store.audit.chain import Entry
from app.store.ledger import episodes, runs
from app.store.ledger.runs import Run

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
log = structlog.get_logger()


async def verify(parts: EngineContext, run: Run, plan: Plan) -> Run:
    """Watch until every check holds, then, with `settle`, until the alert resolves.

    A run succeeds only while its changes are still there: `stability` after they were made, and at the end of `settle`.
    """
    seen: Entry | None = None  # by the last check that held; recorded with its consequence
    pause = timedelta()
    if run.settle_until is None:
        begun = time.monotonic()
        for check in plan.verify:
            if seen is not None:
                await _note(parts, run, seen)
            held, seen = await _watch(parts, run, plan, check)
            if not held:
                return await escalate_or_fail(parts, run, seen or Entry())
        pause = parts.policy.stability - timedelta(seconds=time.monotonic() - begun)
    lost = await taken_back(parts, run, plan, pause)
    if lost is not None and run.settle_until is not None and lost.reason is Reason.CHECK_UNOBSERVABLE:
        await _note(parts, run, lost)  # it was there when the checks had held, and nothing says that it has gone since
        lost = None
    if lost is not None:
        if seen is not None:
            await _note(parts, run, seen)
        return await escalate_or_fail(parts, run, lost)
    return await _settle(parts, run, plan, seen)


async def _settle(parts: EngineContext, run: Run, plan: Plan, seen: Entry | None) -> Run:
    """Succeed when nothing is left to wait for; else park the run until the alert resolves or the time is over."""
    async with parts.turn() as turn:
        tx, now = turn.tx, turn.now
        firing = await still_firing(turn, run)
        if seen is not None:
            await runs.note(tx, run, now, "check", seen)
        if not firing or plan.settle is None:
            return await _succeed(turn, run, plan, firing=firing)
        if run.settle_until is None:
            until = now + plan.settle
            entry = Entry(f"every check holds; the alert has {format_duration(plan.settle)} to resolve")
            return await runs.move(tx, run, RunState.VERIFYING, now, entry, settle_until=until, not_before=until)
        if now < run.settle_until:
            return await runs.postpone(tx, run, run.settle_until)
    message = f"the alert still fires {format_duration(plan.settle)} after verification"
    return await escalate_or_fail(parts, run, Entry(message, Reason.ALERT_STILL_FIRING))


async def _succeed(turn: Turn, run: Run, plan: Plan, *, firing: bool) -> Run:
    if plan.undoes:
        entry = Entry(f"the changes of run {' and run '.join(plan.undoes)} are taken back", Reason.VERIFIED)
        return await close(turn, run, RunState.SUCCEEDED, entry, firing=firing)
    if run.setback is not None and not plan.verify and firing:
        # A message to people, say: it was sent, and nothing shows that anything is better.
        message = f"{run.setback.message}; rung {run.rung + 1} was applied, the alert still fires"
        return await close(turn, run, RunState.FAILED, Entry(message, run.setback.reason), firing=firing)
    changed = plan.changes or run.rung > 0
    message = "applied; the remediation declares no check"
    if plan.verify:
        message = "the check held" if len(plan.verify) == 1 else f"all {len(plan.verify)} checks held"
    if not changed:
        message = f"the target was already as planned; {message}"
    entry = Entry(message, Reason.VERIFIED if changed else Reason.NOTHING_TO_DO)
    return await close(turn, run, RunState.SUCCEEDED, entry, firing=firing)


async def _watch(parts: EngineContext, run: Run, plan: Plan, planned: PlannedCheck) -> tuple[bool, Entry | None]:
    """Look until the check holds, or until its time is over; changed observations become events.

    Returns with True the observation that is still to be recorded, with False why it did not hold.
    """
    loop = asyncio.get_running_loop()
    seconds, watched = planned.timeout.total_seconds(), 0.0  # the time that the store takes is not the target's
    pause = _FIRST_PAUSE
    last: Observation | CheckError | None = None
    while True:
        async with parts.database.read() as tx:
            firing = await episodes.any_open(tx, run.id)
        begun = loop.time()
        seen = await _look(parts, plan, planned, seconds - watched, firing=firing)
        watched += loop.time() - begun
        news = _news(planned, seen) if _differs(seen, last) else None
        last = seen
        if isinstance(seen, Observation) and seen.held:
            parts.metrics.checks.labels(planned.check, "held").inc()
            return True, news
        if news is not None:
            await _note(parts, run, news)
        if watched + pause >= seconds:
            return False, _gave_up(parts, planned, seen)
        await asyncio.sleep(pause)
        watched += pause
        pause = min(pause * 1.5, _LONGEST_PAUSE)


async def _look(
    parts: EngineContext, plan: Plan, planned: PlannedCheck, seconds_left: float, *, firing: bool
) -> Observation | CheckError:
    check = checks()[planned.check]
    context = CheckContext(parts.clients, parts.policy.scope, plan.target, parts.clock(), firing, plan.steps)
    try:
        async with asyncio.timeout(max(seconds_left, 0.1)):
            return await check.observe(context, check.Params.model_validate(planned.params))
    except CheckError as error:
        return error
    except TimeoutError:
        return CheckError("no answer before the check's time was over")
    except Exception as error:  # the step boundary: without an observation the check does not hold
        log.exception("check raised", check=planned.check)
        return CheckError(f"unexpected {type(error).__name__}; see the log of this run")


def _differs(seen: Observation | CheckError, last: Observation | CheckError | None) -> bool:
    return last is None or type(seen) is not type(last) or seen.message != last.message


def _news(planned: PlannedCheck, seen: Observation | CheckError) -> Entry:
    held = isinstance(seen, Observation) and seen.held
    data = seen.data if isinstance(seen, Observation) else {}
    reason = None if isinstance(seen, Observation) else seen.reason
    return Entry(seen.message, reason, data={"check": planned.check, "held": held, "seen": data})


async def _note(parts: EngineContext, run: Run, entry: Entry) -> None:
    async with parts.turn(synced=False) as turn:
        await runs.check_lease(turn.tx, run)
        await runs.note(turn.tx, run, turn.now, "check", entry)


def _gave_up(parts: EngineContext, planned: PlannedCheck, seen: Observation | CheckError) -> Entry:
    unobservable = isinstance(seen, CheckError)
    parts.metrics.checks.labels(planned.check, "unobservable" if unobservable else "failed").inc()
    reason = Reason.CHECK_UNOBSERVABLE if unobservable else Reason.CHECK_FAILED
    return Entry(f"{planned.check} did not hold within {format_duration(planned.timeout)}: {seen.message}", reason)
