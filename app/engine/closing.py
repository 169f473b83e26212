"""Ends runs: final state, whether it helped, who may go on now, and the next attempt where one is left."""

from __future__ import annotations

from typing import Any

import structlog

from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.engine.intake import pending_run
from app.engine.parts import Parts, Turn
from app.engine.telling import Notice, tell
from app.store import breakers, episodes, runs
from app.store.breakers import Ended
from app.store.runs import Entry, Run, Setback
from app.store.wakeups import announce

# After these nobody knows what a second attempt would meet.
_NEVER_AGAIN = {Reason.OUTCOME_UNKNOWN, Reason.OUT_OF_SCOPE, Reason.FORBIDDEN, Reason.UNEXPECTED}
_NOT_WELL = {RunState.FAILED, RunState.INTERRUPTED, RunState.EXPIRED, RunState.DENIED}
log = structlog.get_logger()


async def still_firing(turn: Turn, run: Run) -> bool:
    """Whether an alert of a run fires, so that it holds until the turn ends; raises LeaseLostError.

    The run comes before its episodes: a run that is being folded into this one has brought its episode by then.
    """
    await runs.check_lease(turn.tx, run)
    return await episodes.keep_open(turn.tx, run.id)


async def close(turn: Turn, run: Run, state: RunState, entry: Entry, **changes: Any) -> Run:
    """Bring a run to a final state in the turn's transaction; a deferred run is decided again by that."""
    acted = run.admitted_at is not None
    firing = await still_firing(turn, run)
    if acted:
        changes["effective"] = None if firing and state is RunState.SUCCEEDED else not firing
        changes["resolved_at"] = None if firing else await episodes.last_end(turn.tx, run.id)
    pending = await undefer(turn, run)
    closed = await runs.move(turn.tx, pending, state, turn.now, entry, **changes)
    await runs.wake_refused(turn.tx, turn.now, closed)
    await announce(turn.tx)
    if state is RunState.FAILED and firing and entry.reason not in _NEVER_AGAIN:
        await _next_attempt(turn, closed)
    await _judge(turn, closed, helped=None if firing and state is RunState.SUCCEEDED else not firing)
    _count(turn, closed, helped=acted and not firing)
    return closed


async def _judge(turn: Turn, closed: Run, *, helped: bool | None) -> None:
    """Let the breaker know how it went; while its alert fires, nobody knows yet whether a run that succeeded helped."""
    if closed.purpose is not Purpose.REMEDY:
        return
    name, limits = closed.remediation.name, closed.remediation.limits
    if closed.admitted_at is None:
        await breakers.give_trial_back(turn.tx, name, closed.id)
        return
    if closed.state in {RunState.FAILED, RunState.INTERRUPTED}:
        helped = False
    if helped is None:
        return
    opened = await breakers.record(turn.tx, Ended(name, closed.id, helped=helped), limits, turn.now)
    if opened is not None:
        title = f"Breaker open: remediation {name} has stopped"
        body = f"{opened.failures} runs in a row failed or did not help. A trial follows at {opened.trial_at}."
        await tell(turn, closed.remediation, Notice(f"breaker:{name}:{closed.id}", title, body, closed.id))


async def undefer(turn: Turn, run: Run) -> Run:
    """A deferred run becomes pending before anything else becomes of it."""
    if run.state is not RunState.DEFERRED:
        return run
    return await runs.move(turn.tx, run, RunState.PENDING, turn.now, Entry("decided again"))


async def _next_attempt(turn: Turn, failed: Run) -> None:
    if failed.attempt >= failed.remediation.limits.attempts:
        return
    tx, now = turn.tx, turn.now
    affected = [one for one in await episodes.of_run(tx, failed.id) if one.is_open]
    catalog = turn.parts.catalog()
    remediation = catalog.get(failed.remediation.name)
    if remediation is None:
        return
    again = pending_run(remediation, catalog.digest, affected[0], now, attempt=failed.attempt + 1)
    await runs.create(tx, [again])
    await episodes.link(tx, [(again.id, one.id) for one in affected])
    message = f"attempt {again.attempt} of {failed.remediation.limits.attempts} follows as run {again.id}"
    await runs.note(tx, failed, now, "next_attempt", Entry(message, data={"run": again.id}))


def _count(turn: Turn, closed: Run, *, helped: bool) -> None:
    metrics = turn.parts.metrics
    metrics.runs.labels(closed.remediation.name, closed.state).inc()
    metrics.run_duration.observe(max(0.0, (turn.now - closed.created_at).total_seconds()))
    if helped:
        metrics.runs_effective.labels(closed.remediation.name).inc()
    tell = log.warning if closed.state in _NOT_WELL else log.info
    tell("run ended", state=closed.state.value, reason=closed.reason, message=closed.message)
    turn.parts.work.set()


async def escalate_or_fail(parts: Parts, run: Run, entry: Entry) -> Run:
    """A rung did not help: try the next one while the alert fires, or end the run as failed."""
    async with parts.turn() as turn:
        tx, now = turn.tx, turn.now
        if run.rung + 1 < len(run.remediation.rungs) and await still_firing(turn, run):
            pending = await undefer(turn, run)
            setback = Setback(reason=entry.reason, message=entry.message)
            again = {"rung": run.rung + 1, "not_before": now, "settle_until": None, "setback": setback}
            return await runs.move(tx, pending, RunState.PENDING, now, entry, **again)
        return await close(turn, run, RunState.FAILED, entry)
