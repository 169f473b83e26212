"""Ends runs: final state, whether it helped, the runs that may go on now, and the next attempt if one is left."""

from __future__ import annotations

from typing import Any

import structlog

from app.backends.actions import actions
from app.domain.earned_mode import Mark
from app.domain.endings import Ending, is_told
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Purpose, Risk
from app.domain.states import RunState, may_become
from app.engine.context import EngineContext, Turn
from app.engine.outcomes import earned_mode, undo
from app.engine.outcomes.effectiveness import tell_breaker
from app.engine.outcomes.notices import End, tell_of_end
from app.engine.precedence import is_older
from app.engine.stages.intake import pending_run
from app.store.audit.chain import Entry
from app.store.ledger import endings, episodes, runs, undos
from app.store.ledger.endings import Ended
from app.store.ledger.runs import LastFailure, Run

# After these the state is unknown, and no second attempt follows.
_NEVER_AGAIN = {
    *(Reason.OUTCOME_UNKNOWN, Reason.OUT_OF_SCOPE, Reason.FORBIDDEN, Reason.UNEXPECTED, Reason.TAKEN_BACK),
    Reason.EXPORTED_LABEL,
}
_UNDECIDED = {RunState.PENDING, RunState.DEFERRED}
_NOT_WELL = {RunState.FAILED, RunState.INTERRUPTED, RunState.EXPIRED, RunState.DENIED}
log = structlog.get_logger()


async def still_firing(turn: Turn, run: Run) -> bool:
    """Whether an alert of a run fires, so that it holds until the turn ends; raises LeaseLostError.

    Episodes are locked before runs, everywhere. A no is asked for again once the run is locked: a run that was being
    folded into this one has brought its episode by then.
    """
    firing = await episodes.keep_open(turn.tx, run.id)
    await runs.check_lease(turn.tx, run)
    return firing or await episodes.keep_open(turn.tx, run.id)


async def still_wanted(turn: Turn, run: Run) -> bool:
    """Say whether a run is to go on; raises LeaseLostError.

    A run that answers an alert goes on while it fires, an undo in any case, and a revert while the alert does not fire
    again.
    """
    if run.purpose is Purpose.REMEDY:
        return await still_firing(turn, run)
    await runs.check_lease(turn.tx, run)
    return run.purpose is Purpose.UNDO or not await undos.fires_again(turn.tx, run)


async def close(
    turn: Turn, run: Run, state: RunState, entry: Entry, *, firing: bool | None = None, **changes: Any
) -> Run:
    """Bring a run to a final state in the turn's transaction; a deferred run is decided again by that.

    `firing` is the answer of `still_firing` in this turn, if it was asked.
    """
    acted = run.admitted_at is not None and run.purpose is Purpose.REMEDY
    firing = await still_firing(turn, run) if firing is None else firing
    if acted:
        changes |= await endings.effect(turn.tx, run.id, firing=firing)
    only_told = state is RunState.SUCCEEDED and _only_tells(run)
    if acted and state is RunState.SUCCEEDED and (firing or only_told):
        changes["effective"] = None  # that is not known yet, or never
        changes["judge_at"] = None if only_told else turn.now + run.remediation.effective_within
    pending = await _towards(turn, run, state)
    closed = await runs.move(turn.tx, pending, state, turn.now, entry, **changes)
    await endings.settle(turn.tx, turn.now, Ended.of(closed))
    await undo.after(turn, closed, firing=firing)
    again = None
    if state is RunState.FAILED and firing and entry.reason not in _NEVER_AGAIN and run.purpose is Purpose.REMEDY:
        again = await _next_attempt(turn, closed)
    is_news = is_told(_ending(turn, run, closed, firing=firing))
    await tell_of_end(turn, End(closed, firing, run.state is RunState.VERIFYING, again), is_news=is_news)
    if only_told and acted:
        await tell_breaker(turn, closed.remediation, closed.id, helped=True)
    else:
        await _judge(turn, closed, helped=None if firing and state is RunState.SUCCEEDED else not firing)
    _count(turn, closed, helped=not firing if acted and not only_told else None)
    return closed


def _only_tells(run: Run) -> bool:
    """Say whether all actions so far are of low risk: telling people neither helps nor fails to help.

    Else pages whose alert goes on would open the breaker, and the next page would not be sent.
    """
    steps = (step for rung in run.remediation.rungs[: run.rung + 1] for step in rung.steps)
    return all(step.action in actions() and actions()[step.action].risk is Risk.LOW for step in steps)


def _ending(turn: Turn, before: Run, closed: Run, *, firing: bool) -> Ending:
    return Ending(
        state=closed.state,
        reason=closed.reason,
        purpose=closed.purpose,
        acted=closed.admitted_at is not None,
        firing=firing,
        waited=before.state is RunState.DEFERRED or closed.rung > 0,
        observes=Mode.OBSERVE in {closed.remediation.mode, turn.parts.policy.ceiling},
    )


async def _judge(turn: Turn, closed: Run, *, helped: bool | None) -> None:
    """Tell breaker and standing the result; while its alert fires, the result of a success is not known yet."""
    if closed.purpose is not Purpose.REMEDY:
        return
    failed = closed.state in {RunState.FAILED, RunState.INTERRUPTED}
    if closed.admitted_at is not None and (failed or helped is not None):
        await tell_breaker(turn, closed.remediation, closed.id, helped=bool(helped) and not failed)
    mark = await _mark(turn, closed, helped=bool(helped))
    if mark is not None:
        await earned_mode.count(turn, closed.remediation, closed.id, mark)


async def _mark(turn: Turn, closed: Run, *, helped: bool) -> Mark | None:
    """Return the mark of an ended run for its remediation; None when there is none, or not yet."""
    if closed.state in {RunState.FAILED, RunState.INTERRUPTED}:
        return Mark.BAD
    if closed.state is RunState.OBSERVED and closed.remediation.earn is not None:
        return Mark.WOULD_ACT if await runs.would_have_acted(turn.tx, closed.id) else None
    if closed.state is RunState.SUCCEEDED and helped:
        return Mark.HELPED if closed.approved_by is None else Mark.HELPED_AFTER_APPROVAL
    return None


async def undefer(turn: Turn, run: Run) -> Run:
    """A deferred run becomes pending before anything else becomes of it."""
    if run.state is not RunState.DEFERRED:
        return run
    return await runs.move(turn.tx, run, RunState.PENDING, turn.now, Entry("decided again"))


async def _towards(turn: Turn, run: Run, state: RunState) -> Run:
    """Return the run in a state from which it may end: a waiting run becomes pending if the table says so."""
    waiting = await undefer(turn, run)
    if may_become(waiting.state, state):
        return waiting
    return await runs.move(turn.tx, waiting, RunState.PENDING, turn.now, Entry("decided again"))


async def unwanted(turn: Turn, run: Run) -> Run:
    """The alert ended before this decision, or fires again before a revert: nothing is done any more."""
    if run.purpose is Purpose.REVERT:
        # Linked with the firing alerts, so that their end has the revert planned again.
        await undos.follow(turn.tx, run.id, await undos.fires_again(turn.tx, run))
        entry = Entry("the alert fires again: the borrowed change is needed", Reason.FIRES_AGAIN)
        return await close(turn, run, RunState.CANCELLED, entry)
    if run.admitted_at is None:
        what = "anybody approved" if run.state is RunState.AWAITING_APPROVAL else "anything was done"
        entry = Entry(f"the alert resolved before {what}", Reason.RESOLVED_BEFORE_START)
        return await close(turn, run, RunState.CANCELLED, entry)
    if run.setback is None or run.setback.reason is Reason.ALERT_STILL_FIRING:
        entry = Entry(f"the alert resolved before rung {run.rung + 1} was tried", Reason.VERIFIED)
        return await close(turn, run, RunState.SUCCEEDED, entry)
    return await close(turn, run, RunState.FAILED, Entry(run.setback.message, run.setback.reason))


async def _next_attempt(turn: Turn, failed: Run) -> str | None:
    """Record the next attempt while one is left and the catalog still answers the alert; returns its id."""
    if failed.attempt >= failed.remediation.limits.attempts:
        return None
    tx, now = turn.tx, turn.now
    catalog = turn.parts.catalog()
    remediation, digest = catalog.get(failed.remediation.name), catalog.digest
    affected = [one for one in await episodes.of_run(tx, failed.id) if one.is_open]
    if await is_older(turn, failed):  # a replica with the catalog that recorded it decides about the next one too
        remediation, digest = failed.remediation, failed.digest
    else:
        affected = [one for one in affected if remediation in catalog.match(one.labels)]
    if remediation is None or not affected:
        return None
    if len(affected) > 1 and remediation.deed != failed.remediation.deed:
        remediation, digest = failed.remediation, failed.digest  # it may have to be parted, like a waiting run
    again = pending_run(remediation, digest, affected[0], now, attempt=failed.attempt + 1)
    await runs.create(tx, [again])
    await episodes.link(tx, [(again.id, one.id) for one in affected])
    message = f"attempt {again.attempt} of {failed.remediation.limits.attempts} follows as run {again.id}"
    await runs.note(tx, failed, now, "next_attempt", Entry(message, data={"run": again.id}))
    return again.id


def _count(turn: Turn, closed: Run, *, helped: bool | None) -> None:
    metrics = turn.parts.metrics
    if closed.purpose is Purpose.REMEDY:
        metrics.runs.labels(closed.remediation.name, closed.state).inc()
    else:
        metrics.taken_back.labels(closed.purpose, closed.state).inc()
    metrics.run_duration.observe(max(0.0, (turn.now - closed.created_at).total_seconds()))
    if helped:
        metrics.runs_effective.labels(closed.remediation.name).inc()
    elif helped is False and closed.state is not RunState.SUCCEEDED:
        metrics.runs_ineffective.labels(closed.remediation.name).inc()
    tell = log.warning if closed.state in _NOT_WELL else log.info
    tell("run ended", state=closed.state.value, reason=closed.reason, message=closed.message)
    turn.parts.work.set()


async def escalate_or_fail(parts: EngineContext, run: Run, entry: Entry) -> Run:
    """The same as `escalate`, in a turn of its own."""
    async with parts.turn() as turn:
        return await escalate(turn, run, entry)


async def escalate(turn: Turn, run: Run, entry: Entry) -> Run:
    """A rung did not help: try the next one while the alert fires, or end the run as failed.

    Where the alert has just resolved, a rung that was not begun, or that only waited for that, is no failure.
    """
    if run.purpose is not Purpose.REMEDY:
        return await close(turn, run, RunState.FAILED, entry)
    if await still_firing(turn, run):
        if run.rung + 1 < len(run.remediation.rungs):
            return await _next_rung(turn, run, entry)
    elif entry.reason is Reason.ALERT_STILL_FIRING:
        verified = Entry("applied and verified; the alert resolved at the end of its time", Reason.VERIFIED)
        return await close(turn, run, RunState.SUCCEEDED, verified, firing=False)
    elif run.state in _UNDECIDED:
        return await unwanted(turn, run)
    return await close(turn, run, RunState.FAILED, entry)


async def _next_rung(turn: Turn, run: Run, entry: Entry) -> Run:
    pending = await undefer(turn, run)
    again = {"rung": run.rung + 1, "not_before": turn.now, "settle_until": None, "setback": _setback(run, entry)}
    again |= {"tell_at": None, "unreachable_since": None}
    return await runs.move(turn.tx, pending, RunState.PENDING, turn.now, entry, **again)


def _setback(run: Run, entry: Entry) -> LastFailure:
    """Return why a rung did not help; a rung that did not begin takes nothing from earlier verified rungs."""
    before = run.setback
    if run.state in _UNDECIDED and before is not None and before.reason is Reason.ALERT_STILL_FIRING:
        message = f"{before.message}; rung {run.rung + 1} could not begin: {entry.message}"
        return LastFailure(reason=before.reason, message=message)
    return LastFailure(reason=entry.reason, message=entry.message)
