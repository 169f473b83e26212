"""Lets a person have an alert that still fires decided once more, after an obstacle was removed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import exists, select

from app.catalog.catalog import Catalog
from app.domain.errors import ConflictError, NotFoundError
from app.domain.remediation import Purpose
from app.engine.stages.intake import pending_run
from app.store.audit.chain import Entry
from app.store.db.connection import AsyncConnection
from app.store.db.notify import announce
from app.store.db.schema import run, run_episode
from app.store.ledger import catalogs, episodes, runs
from app.store.ledger.runs import Run


async def decide_again(tx: AsyncConnection, run_id: str, catalog: Catalog, entry: Entry, now: datetime) -> Run:
    """Record a new run for the open alerts of an ended one; it passes every guard, by the catalog as it is now.

    Raises NotFoundError, or ConflictError when the run has not ended, its alerts have, another run works for them,
    the remediation is gone or does not match them any more, or it takes another run back.
    """
    ended = await runs.get(tx, run_id)
    if ended is None:
        raise NotFoundError(f"there is no run {run_id}")
    if ended.purpose is not Purpose.REMEDY:
        raise ConflictError(f"run {run_id} takes back run {ended.undoes}; ask for that again: undo run {ended.undoes}")
    if not ended.state.is_final:
        raise ConflictError(f"run {run_id} is {ended.state}; only a run that has ended can be decided again")
    firing = [one for one in await episodes.of_run(tx, run_id) if one.is_open]
    if not firing:
        raise ConflictError(f"the alerts of run {run_id} have resolved; the next one that fires is decided by itself")
    working = await _working_for(tx, ended, [one.id for one in firing])
    if working is not None:
        raise ConflictError(f"run {working} works for the same alert already")
    remediation, digest = catalog.get(ended.remediation.name), catalog.digest
    if await catalogs.is_older(tx, digest, ended.digest, ended.created_at, now):
        remediation, digest = ended.remediation, ended.digest  # decided by a replica that has it, or a newer one
    elif remediation is None:
        raise ConflictError(f"the catalog has no remediation {ended.remediation.name!r} any more")
    else:
        firing = [one for one in firing if remediation in catalog.match(one.labels)]
    if not firing:
        raise ConflictError(f"the remediation {ended.remediation.name!r} no longer matches the alerts of run {run_id}")
    if len(firing) > 1 and remediation.deed != ended.remediation.deed:
        remediation, digest = ended.remediation, ended.digest  # it may have to be parted, like a waiting run
    again = pending_run(remediation, digest, firing[0], now, attempt=ended.attempt)
    await runs.create(tx, [again])
    await episodes.link(tx, [(again.id, one.id) for one in firing])
    await runs.note(tx, again, now, "asked_for", entry)
    await announce(tx)
    return again


async def _working_for(tx: AsyncConnection, ended: Run, episode_ids: list[str]) -> str | None:
    linked = exists().where(run_episode.c.run_id == run.c.id, run_episode.c.episode_id.in_(episode_ids))
    query = select(run.c.id).where(run.c.active, run.c.remediation == ended.remediation.name, linked).limit(1)
    working: str | None = (await tx.execute(query)).scalar_one_or_none()
    return working
