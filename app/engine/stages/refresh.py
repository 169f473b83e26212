"""Compares a run that has not begun with the present catalog: its remediation may be removed or changed.

A run that has acted keeps its remediation to the end, so that its further rungs are the planned ones; and so does a run
that takes it back. A run is decided by the catalog that recorded it, by a newer one, or not at all; the store says
which one is newer (`store.catalogs`).
"""

from __future__ import annotations

import structlog

from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.engine.context import EngineContext
from app.engine.precedence import is_older
from app.engine.stages.closing import close
from app.engine.stages.parting import part
from app.store.audit.chain import Entry
from app.store.db.notify import announce
from app.store.ledger import episodes, runs
from app.store.ledger.runs import Run

log = structlog.get_logger()


async def speak_for(parts: EngineContext, run: Run) -> Run:
    """The run with an alert that it still has to answer.

    A run that alerts share is planned and judged by the one that recorded it; when that is over, or too old to be acted
    on, the newest of the others takes its place.
    """
    if run.admitted_at is not None or run.purpose is not Purpose.REMEDY:
        return run
    async with parts.database.read() as tx:
        firing = [one for one in await episodes.of_run(tx, run.id) if one.is_open]
    own = next((one for one in firing if one.fingerprint == run.fingerprint), None)
    newest = max(firing, key=lambda one: one.starts_at, default=None)
    oldest = parts.clock() - run.remediation.max_age
    if newest is None or newest is own or (own is not None and own.starts_at > oldest):
        return run
    async with parts.turn() as turn:
        return await runs.speak_for(turn.tx, run, newest, turn.now)


async def follow_catalog(parts: EngineContext, run: Run) -> Run:
    """The run with its remediation as it is now; denied when that is gone, left to others while ours is older."""
    catalog = parts.catalog()
    if run.admitted_at is not None or run.digest == catalog.digest or run.purpose is not Purpose.REMEDY:
        return run
    async with parts.turn() as turn:
        if await is_older(turn, run):
            if run.digest not in parts.currency.newer:
                log.warning("a newer catalog has recorded this run; it is left to the replicas that have it")
                parts.currency.newer |= {run.digest}
            await announce(turn.tx)
            return await runs.postpone(turn.tx, run, turn.now)
        remediation = catalog.get(run.remediation.name)
        if remediation is not None and remediation.deed != run.remediation.deed:
            await part(turn, run, remediation)
        if remediation is None or remediation not in catalog.match(run.labels):
            message = "the catalog no longer answers this alert with this remediation"
            return await close(turn, run, RunState.DENIED, Entry(message, Reason.REMEDIATION_REMOVED))
        return await runs.respecify(turn.tx, run, remediation, catalog.digest, turn.now)
