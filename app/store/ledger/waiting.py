"""Runs that are deferred for long, so that people can be told of each once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update

from app.domain.states import RunState
from app.store.db.connection import AsyncConnection
from app.store.db.schema import run
from app.store.ledger import runs
from app.store.ledger.runs import Run


async def due(tx: AsyncConnection, now: datetime, limit: int) -> list[str]:
    """The runs that have waited for as long as people may be left untold."""
    query = select(run.c.id).where(run.c.tell_at <= now).order_by(run.c.tell_at).limit(limit)
    return list((await tx.execute(query)).scalars())


async def take(tx: AsyncConnection, run_id: str, now: datetime) -> Run | None:
    """A run that still waits, once: the next look does not find it; None where it has gone on meanwhile."""
    waits = select(run).where(run.c.id == run_id, run.c.tell_at <= now)
    row = (await tx.execute(waits.with_for_update())).one_or_none()
    if row is None:
        return None
    await tx.execute(update(run).where(run.c.id == run_id).values(tell_at=None))
    return runs.from_row(row) if row.active and row.state == RunState.DEFERRED else None
