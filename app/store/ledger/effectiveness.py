"""Whether a finished run helped: its alerts resolved afterwards, or went on for too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.engine import Row

from app.domain.remediation import Purpose, Remediation
from app.domain.states import RunState
from app.store.audit import chain
from app.store.audit.chain import Entry, Event
from app.store.db.connection import AsyncConnection
from app.store.db.dialects import led_by
from app.store.db.schema import episode, run, run_episode
from app.store.ledger import episodes, runs
from app.store.ledger.runs import Run

RECURS_WITHIN = timedelta(hours=24)  # an alert that is back sooner than this was not cured
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Judged:
    """A finished run with a known result: it helped or not."""

    run_id: str
    name: str  # of the remediation
    remediation: Remediation | None  # None: this release cannot read another one's record
    is_remedy: bool
    was_approved: bool
    helped: bool


async def record_resolution(tx: AsyncConnection, now: datetime, episode_ids: Sequence[str]) -> list[Judged]:
    """Mark succeeded runs as effective whose last episode ended in time; those for which it is too late stay so."""
    judged: list[Judged] = []
    for start in range(0, len(episode_ids), _CHUNK):
        judged += await _record(tx, now, episode_ids[start : start + _CHUNK])
    return judged


async def _record(tx: AsyncConnection, now: datetime, episode_ids: Sequence[str]) -> list[Judged]:
    linked = select(run_episode.c.run_id).where(run_episode.c.episode_id.in_(episode_ids))
    unknown = or_(run.c.judge_at.is_not(None), and_(run.c.effective.is_not(True), run.c.resolved_at.is_(None)))
    remedies = and_(run.c.state == RunState.SUCCEEDED, run.c.purpose == Purpose.REMEDY)
    query = select(run).where(run.c.id.in_(linked), remedies, unknown, ~_fires())
    rows = (await tx.execute(query.order_by(run.c.remediation, run.c.id))).all()
    judged = []
    for row in rows:
        values: dict[str, Any] = {"resolved_at": await episodes.last_end(tx, row.id), "judge_at": None}
        helped = row.judge_at is not None
        is_late = row.effective is False
        message = "the alert resolved, too late to be this run's doing" if is_late else "the alert resolved"
        changed = update(run).where(run.c.id == row.id).values(values | ({"effective": True} if helped else {}))
        if not (await tx.execute(changed)).rowcount:  # it was deleted for its age meanwhile
            continue
        await _note(tx, row, now, "resolved", message)
        if helped:
            judged.append(_judged(row, helped=True))
    return judged


async def due(tx: AsyncConnection, now: datetime, limit: int) -> list[str]:
    """Finished runs whose alert has had its time to resolve."""
    query = select(run.c.id).where(run.c.judge_at <= now).order_by(run.c.judge_at).limit(limit)
    return list((await tx.execute(query)).scalars())


async def judge(tx: AsyncConnection, run_id: str, now: datetime) -> Judged | None:
    """Mark a run as ineffective; None when it is judged already.

    The caller holds the lock `intake`: a resolve is taken in before, and then the run is judged, or it comes too late.
    """
    row = (
        await tx.execute(select(run).where(run.c.id == run_id, run.c.judge_at <= now).with_for_update())
    ).one_or_none()
    if row is None:
        return None
    await tx.execute(update(run).where(run.c.id == run_id).values(judge_at=None, effective=False))
    await _note(tx, row, now, "ineffective", "the alert still fires; the run did not help")
    return _judged(row, helped=False)


async def recurring(tx: AsyncConnection, new: Sequence[tuple[str, str]], now: datetime) -> list[str]:
    """The remediations whose effective runs did not keep an alert away, for new episodes (id, identity)."""
    found: list[str] = []
    lately = and_(run.c.effective, run.c.purpose == Purpose.REMEDY, run.c.resolved_at > now - RECURS_WITHIN)
    # Few runs helped lately; an alert may have had very many episodes. So written no index of theirs is tempting.
    helped = led_by(select(run.c.id, run.c.remediation).where(lately), run, "ix_run_helped").subquery()
    for start in range(0, len(new), _CHUNK):
        chunk = new[start : start + _CHUNK]
        ids, identities = [one for one, _ in chunk], [identity for _, identity in chunk]
        before = and_(episode.c.identity.concat("").in_(identities), episode.c.id.not_in(ids))
        links = helped.join(run_episode, run_episode.c.run_id == helped.c.id).join(episode)
        query = select(helped.c.remediation, episode.c.identity).select_from(links).where(before).distinct()
        found += [row.remediation for row in await tx.execute(query)]
    return found


def _fires() -> Any:
    linked = and_(run_episode.c.run_id == run.c.id, run_episode.c.episode_id == episode.c.id)
    return exists().where(and_(linked, episode.c.closed_at.is_(None)))


def _judged(row: Row[Any], *, helped: bool) -> Judged:
    of = _readable(row)
    return Judged(
        run_id=row.id,
        name=row.remediation,
        remediation=None if of is None else of.remediation,
        is_remedy=row.purpose == Purpose.REMEDY,
        was_approved=row.approved_by is not None,
        helped=helped,
    )


def _readable(row: Row[Any]) -> Run | None:
    try:
        return runs.from_row(row)
    except ValueError:
        return None


async def _note(tx: AsyncConnection, row: Row[Any], now: datetime, kind: str, message: str) -> None:
    await chain.append(tx, [Event(row.id, now, kind, RunState.SUCCEEDED, Entry(message))])
