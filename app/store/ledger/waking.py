"""Lets runs that wait be looked at now: their alert, their target, a limit or the catalog is another one by now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, bindparam, select, update

from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.store.db.connection import AsyncConnection
from app.store.db.schema import run, run_episode
from app.store.ledger.runs import woken

_CHUNK = 500  # ids per statement, well under SQLite's limit of variables
_NEXT = 4  # runs that a freed place is offered to


async def of_catalog(tx: AsyncConnection, now: datetime, digest: str, limit: int) -> int:
    """Wake the runs that another catalog put off: its freeze or its limit may be gone. Returns how many."""
    waits = and_(run.c.active, run.c.state == RunState.DEFERRED, run.c.digest != digest, run.c.not_before > now)
    some = select(run.c.id).where(waits, run.c.purpose == Purpose.REMEDY).limit(limit)
    return int((await tx.execute(woken(some), {"now": now})).rowcount)


_PARKED = (RunState.DEFERRED, RunState.PENDING, RunState.AWAITING_APPROVAL, RunState.VERIFYING)


async def of_alerts(tx: AsyncConnection, now: datetime, episode_ids: Sequence[str]) -> None:
    """Let waiting runs whose alert ended be looked at now."""
    for start in range(0, len(episode_ids), _CHUNK):
        linked = select(run_episode.c.run_id).where(run_episode.c.episode_id.in_(episode_ids[start : start + _CHUNK]))
        waiting = and_(run.c.active, run.c.state.in_(_PARKED), run.c.not_before > now, run.c.id.in_(linked))
        waiting = and_(waiting, run.c.purpose == Purpose.REMEDY)
        await tx.execute(update(run).where(waiting).values(not_before=now))


# A due run is in work or about to be.
_LATER = and_(run.c.state == RunState.DEFERRED, run.c.not_before > bindparam("now"))
_WAKE_FOR_TARGET = woken(
    select(run.c.id)
    .where(_LATER, run.c.reason.in_((Reason.TARGET_BUSY, Reason.COVERED)))
    .where(run.c.target_key == bindparam("key"), run.c.finished_at.is_(None))
)
_WAKE_FOR_LIMIT = woken(
    select(run.c.id).where(_LATER, run.c.reason == Reason.TOO_MANY_TARGETS, run.c.remediation == bindparam("name"))
)
# One has ended: some may go on, and the thousands behind them need not all ask.
_WAKE_NEXT = woken(select(run.c.id).where(_LATER, run.c.reason == Reason.CONCURRENCY).order_by(run.c.id).limit(_NEXT))


async def of_run(tx: AsyncConnection, now: datetime, remediation: str, target_key: str | None, *, acted: bool) -> None:
    """Let runs be decided again that waited for the target, or for the number of targets, of a run that ended."""
    await tx.execute(_WAKE_FOR_TARGET, {"now": now, "key": target_key})
    await tx.execute(_WAKE_FOR_LIMIT, {"now": now, "name": remediation})
    if acted:
        await tx.execute(_WAKE_NEXT, {"now": now})
