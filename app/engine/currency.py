"""Holds a run that has not begun against the catalog of now: what was removed or changed since must not run as it was.

A run that has acted keeps its remediation to the end, so that its further rungs are those that were planned for it;
and so does what takes it back.
"""

from __future__ import annotations

from datetime import timedelta

from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.engine.closing import close
from app.engine.parts import Parts
from app.store import episodes, runs
from app.store.events import Entry
from app.store.runs import Run

_LAG = timedelta(minutes=5)  # the longest that Kubernetes takes to bring a changed ConfigMap to every pod, amply


async def speak_for(parts: Parts, run: Run) -> Run:
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


async def follow_catalog(parts: Parts, run: Run) -> Run:
    """The run with its remediation as it is now; denied when that is gone, put off while our own catalog is older."""
    catalog = parts.catalog()
    if run.admitted_at is not None or run.digest == catalog.digest or run.purpose is not Purpose.REMEDY:
        return run
    async with parts.turn() as turn:
        if catalog.loaded_at < run.created_at and turn.now - run.created_at < _LAG:
            # Another replica has a newer catalog than this one; ours follows soon.
            return await runs.postpone(turn.tx, run, turn.now + parts.policy.recheck)
        remediation = catalog.get(run.remediation.name)
        if remediation is None or remediation not in catalog.match(run.labels):
            message = "the catalog no longer answers this alert with this remediation"
            return await close(turn, run, RunState.DENIED, Entry(message, Reason.REMEDIATION_REMOVED))
        return await runs.respecify(turn.tx, run, remediation, catalog.digest, turn.now)
