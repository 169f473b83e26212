"""Whether a finished run helped: its alerts resolved afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.states import RunState
from app.store import episodes
from app.store.runs import ENGINE
from app.store.schema import episode, event, run, run_episode

_CHUNK = 500


async def record_resolution(tx: AsyncConnection, now: datetime, episode_ids: Sequence[str]) -> list[str]:
    """Mark succeeded runs as effective whose last episode ended; returns their remediations."""
    helped: list[str] = []
    for start in range(0, len(episode_ids), _CHUNK):
        helped += await _record(tx, now, episode_ids[start : start + _CHUNK])
    return helped


async def _record(tx: AsyncConnection, now: datetime, episode_ids: Sequence[str]) -> list[str]:
    linked = select(run_episode.c.run_id).where(run_episode.c.episode_id.in_(episode_ids))
    still_open = exists().where(
        and_(run_episode.c.run_id == run.c.id, run_episode.c.episode_id == episode.c.id, episode.c.closed_at.is_(None))
    )
    query = select(run.c.id, run.c.remediation, run.c.finished_at).where(
        run.c.id.in_(linked), run.c.state == RunState.SUCCEEDED, run.c.effective.is_(None), ~still_open
    )
    rows = (await tx.execute(query)).all()
    for row in rows:
        ended_at = await episodes.last_end(tx, row.id)
        await tx.execute(update(run).where(run.c.id == row.id).values(effective=True, resolved_at=ended_at))
        note = {"run_id": row.id, "at": now, "kind": "resolved", "state": RunState.SUCCEEDED, "reason": None}
        await tx.execute(insert(event), [note | {"message": "the alert resolved", "actor": ENGINE, "data": {}}])
    return [row.remediation for row in rows]
