"""Whether runs helped: lets breaker, standing and metrics know, and judges those whose alert was given its time.

A run that succeeded is effective once its alert resolves, which take-in sees, and ineffective when `effective_within`
is over first, which the loop here sees. Both work under the lock `intake`, so that a run is judged once.
"""

from __future__ import annotations

import asyncio

import structlog

from app.catalog.catalog import Catalog
from app.domain.durations import format_duration
from app.domain.earned_mode import Mark
from app.domain.errors import StoreUnavailableError, UnreadableError
from app.domain.reasons import Reason
from app.domain.remediation import Purpose, Remediation
from app.domain.tones import Tone
from app.engine.context import EngineContext, Turn
from app.engine.outcomes import earned_mode
from app.engine.outcomes.notices import Notice, tell, tell_of_wait
from app.engine.outcomes.pausing import end_what_is_over
from app.store.audit import chain
from app.store.audit.chain import Entry, Event, catalog_chain
from app.store.gates import breakers, earned_modes
from app.store.gates.breakers import Ended
from app.store.ledger import effectiveness, outbox, waiting, waking
from app.store.ledger.effectiveness import Judged
from app.store.ledger.outbox import Draft
from app.store.ledger.runs import Run

_PAUSE_SECONDS = 5.0
_BATCH = 50
log = structlog.get_logger()


async def learn(turn: Turn, judged: Judged) -> None:
    """Let a remediation's breaker and standing know whether a run helped that had succeeded."""
    if judged.remediation is None or not judged.is_remedy:
        return
    await tell_breaker(turn, judged.remediation, judged.run_id, helped=judged.helped)
    mark = Mark.HELPED_AFTER_APPROVAL if judged.was_approved else Mark.HELPED
    await earned_mode.count(turn, judged.remediation, judged.run_id, mark if judged.helped else Mark.BAD)


async def learn_word(turn: Turn, run: Run, *, rejected: bool, helped: bool) -> None:
    """Let breaker and standing know that a person has ended a run; one that had acted before may be the trial."""
    if run.purpose is not Purpose.REMEDY or not run.state.is_final:
        return
    if run.admitted_at is not None:
        await tell_breaker(turn, run.remediation, run.id, helped=helped)
    if rejected:
        await earned_mode.count(turn, run.remediation, run.id, Mark.BAD)


async def tell_breaker(turn: Turn, remediation: Remediation, run_id: str, *, helped: bool) -> None:
    """Count a run that acted; when that opens the breaker it is audited, and people are told."""
    name = remediation.name
    opened = await breakers.record(turn.tx, Ended(name, run_id, helped=helped), remediation.limits, turn.now)
    if opened is None:
        return
    title = f"Breaker open: remediation {name} has stopped"
    trial = f" A trial follows at {opened.trial_at:%Y-%m-%d %H:%M:%S} UTC." if opened.trial_at else ""
    body = f"{opened.failures} runs in a row failed or did not help.{trial}"
    data = {"run": run_id, "failures": opened.failures}
    entry = Entry(f"breaker opened: {body}", data=data)
    await chain.append(turn.tx, [Event(catalog_chain(name), turn.now, "breaker_opened", "", entry)])
    await tell(turn, remediation, Notice(f"breaker:{name}:{run_id}", title, body, run_id))


async def judge_forever(parts: EngineContext) -> None:
    """Judge due runs, and bring the standings to each catalog that is loaded, until cancelled."""
    followed: Catalog | None = None
    while True:
        try:
            followed = await follow(parts, followed)
            await end_what_is_over(parts)
            judged = max(await judge(parts), await tell_waiting(parts))
        except StoreUnavailableError as error:
            log.debug("judging waits for the store", error=error.message)
            judged = 0
        except Exception:  # the loop: one run that cannot be judged must not end it
            log.exception("runs could not be judged")
            judged = 0
        if judged < _BATCH:
            await asyncio.sleep(_PAUSE_SECONDS)


async def follow(parts: EngineContext, followed: Catalog | None) -> Catalog:
    """Bring the standings to the running catalog and let waiting runs be decided by it, unless that was done."""
    catalog = parts.catalog()
    if catalog is followed:
        return catalog
    woken = _BATCH
    while woken == _BATCH:  # in short transactions: notifications are recorded between them
        async with parts.turn(lock="intake") as turn:
            woken = await waking.of_catalog(turn.tx, turn.now, catalog.digest, _BATCH)
    parts.work.set()
    async with parts.database.read() as tx:
        known = await earned_modes.get_all(tx)
    for remediation in await asyncio.to_thread(earned_mode.behind, catalog, known):
        async with parts.turn(lock="intake") as turn:
            await earned_mode.follow(turn, remediation)
    return catalog


async def judge(parts: EngineContext) -> int:
    """Judge the runs whose time is over, each in a transaction of its own; returns how many there were."""
    async with parts.database.read() as tx:
        due = await effectiveness.due(tx, parts.clock(), _BATCH)
    for run_id in due:
        async with parts.turn(lock="intake") as turn:
            judged = await effectiveness.judge(turn.tx, run_id, turn.now)
            if judged is not None:
                await learn(turn, judged)
                await _tell_asked(turn, judged)
        if judged is not None:
            log.warning("run was ineffective", run=run_id, remediation=judged.name)
            parts.metrics.runs_ineffective.labels(judged.name).inc()
    return len(due)


async def _tell_asked(turn: Turn, judged: Judged) -> None:
    """Tell the channel that was asked about a run that it did not help."""
    channel = await outbox.asked(turn.tx, judged.run_id)
    if channel is None or judged.remediation is None:
        return
    within = format_duration(judged.remediation.effective_within)
    body = f"Run {judged.run_id} was done as approved, and {within} later the alert still fires: it needs a person."
    key, title = f"ineffective:{judged.run_id}", f"Did not help: {judged.name}"
    draft = Draft(key, channel, title, body, judged.run_id, Tone.FAILURE)
    await outbox.queue(turn.tx, draft, turn.now)


async def tell_waiting(parts: EngineContext) -> int:
    """Tell people of the runs that have been deferred for long; returns how many were looked at."""
    async with parts.database.read() as tx:
        due = await waiting.due(tx, parts.clock(), _BATCH)
    for run_id in due:
        async with parts.turn() as turn:
            try:
                run = await waiting.take(turn.tx, run_id, turn.now)
            except UnreadableError:  # it is told of when it is ended for that
                continue
            if run is not None and run.reason is not Reason.STORM and await tell_of_wait(turn, run):
                log.warning("run waits", run=run_id, remediation=run.remediation.name, reason=run.reason)
    return len(due)
