"""Leases: which replica works on which run, and until when. The ledger is the queue.

Called by the worker. A lease is taken with a new epoch; every write of `runs` names the epoch it was made under.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, case, func, literal, or_, select, update
from sqlalchemy.engine import Row

from app.domain.errors import UnreadableError
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState, may_become
from app.store.audit import chain
from app.store.audit.chain import Entry, Event
from app.store.db.connection import AsyncConnection
from app.store.db.schema import Timestamp, run
from app.store.ledger import endings, episodes, runs
from app.store.ledger.endings import Ended
from app.store.ledger.runs import Run, from_row

_LEFT_FOR = timedelta(hours=1)  # so long a rolling upgrade may take
_LOOK_AGAIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Claimant:
    """The claimant of runs: its lease's end, its runs in work, and the catalogs whose decisions it leaves to others."""

    owner: str
    lease_until: datetime
    in_work: Collection[str] = ()
    newer: Collection[str] = ()  # digests of catalogs that are newer than its own


@dataclass(frozen=True, slots=True)
class Lost:
    """A run that was ended because no release here can read it, and the readable part of its row."""

    run_id: str
    remediation: str
    purpose: str
    target_key: str | None
    acted: bool
    firing: bool
    message: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """The result of a claim; rows that this release cannot read are left to others, and ended when none can."""

    runs: list[Run]
    taken_over: int = 0  # from an owner that did not renew
    lost: tuple[Lost, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The runs that were ended."""
        return tuple(one.run_id for one in self.lost)


_DROPPED = run.c.lease_owner == bindparam("owner")
_CHOSEN = run.c.id.in_(bindparam("ids", expanding=True))
_NOT_IN_WORK = run.c.id.not_in(bindparam("in_work", expanding=True))
# A run that was not let through is decided by the catalog that recorded it, or by a newer one.
_OURS = or_(
    run.c.admitted_at.is_not(None),
    run.c.purpose != Purpose.REMEDY,
    run.c.digest.not_in(bindparam("newer", expanding=True)),
)
_FREE = (
    select(run.c.id, run.c.lease_owner)
    .where(
        run.c.active,
        run.c.not_before <= bindparam("now"),
        or_(run.c.lease_until.is_(None), run.c.lease_until < bindparam("now"), _DROPPED),
        _NOT_IN_WORK,
        _OURS,
    )
    .order_by(run.c.not_before)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
# In the order of an index that has nothing but these: there may be thousands of others.
_ACTING = _FREE.where(run.c.holds_target).order_by(None).order_by(run.c.target_key)
_LEASE = (
    update(run)
    .where(_CHOSEN)
    .values(lease_owner=bindparam("owner"), lease_until=bindparam("until"), lease_epoch=run.c.lease_epoch + 1)
)
_LEASED = select(run).where(_CHOSEN).order_by(run.c.not_before)
# In two, since each has an index then: in a storm there are thousands of active runs, and one look after each of them.
_NEXT_FREE = (
    select(run.c.not_before)
    .where(run.c.active, or_(run.c.lease_until.is_(None), _DROPPED), _NOT_IN_WORK, _OURS)
    .order_by(run.c.not_before)
    .limit(1)
)
_NEXT_LEASE = select(
    func.min(case((run.c.lease_until > run.c.not_before, run.c.lease_until), else_=run.c.not_before))
).where(run.c.lease_until.is_not(None), run.c.active, run.c.lease_owner != bindparam("owner"), _OURS)


async def claim(tx: AsyncConnection, claimant: Claimant, now: datetime, limit: int, *, acting: bool = False) -> Claimed:
    """Lease due runs without an owner; never one that the claimant is still working on.

    With `acting` only runs that hold their target: they act, or verify.
    """
    asked = {"owner": claimant.owner, "now": now, "in_work": list(claimant.in_work), "most": limit}
    asked |= {"newer": list(claimant.newer)}
    rows = (await tx.execute(_ACTING if acting else _FREE, asked)).all()
    if not rows:
        return Claimed([])
    chosen = {"ids": [row.id for row in rows]}
    await tx.execute(_LEASE, chosen | {"owner": claimant.owner, "until": claimant.lease_until})
    leased = (await tx.execute(_LEASED, chosen)).all()
    readable, lost, left = [], [], []
    for row in leased:
        try:
            readable.append(from_row(row))
        except UnreadableError:  # one such row must not keep all others from their turn
            if now - row.updated_at < _LEFT_FOR:
                later = {"not_before": now + _LOOK_AGAIN, "lease_owner": None, "lease_until": None}
                await tx.execute(update(run).where(run.c.id == row.id).values(later))
                left.append(row.id)
            else:
                lost.append(await _end_unreadable(tx, row, now))
    taken_over = sum(row.lease_owner not in {None, claimant.owner} for row in rows)
    return Claimed(readable, taken_over, tuple(lost), tuple(left))


async def _end_unreadable(tx: AsyncConnection, row: Row[Any], now: datetime) -> Lost:
    message = "this release cannot read the record that another one made of this run"
    firing = await episodes.any_open(tx, row.id)
    acted = row.admitted_at is not None
    said: dict[str, Any] = {"state": RunState.FAILED, "reason": Reason.UNEXPECTED, "message": message}
    said |= runs.ended_columns(now) | {"updated_at": now}
    if acted and row.purpose == Purpose.REMEDY:
        said |= await endings.effect(tx, row.id, firing=firing)
    await tx.execute(update(run).where(run.c.id == row.id).values(said))
    entry = Entry(message, Reason.UNEXPECTED)
    way = [Event(row.id, now, RunState.FAILED, RunState.FAILED, entry)]
    if not may_become(RunState(row.state), RunState.FAILED):
        way.insert(0, Event(row.id, now, RunState.PENDING, RunState.PENDING, Entry("decided again")))
    await chain.append(tx, way)
    await endings.settle(tx, now, Ended(row.id, row.remediation, row.target_key, acted))
    return Lost(row.id, row.remediation, row.purpose, row.target_key, acted=acted, firing=firing, message=message)


async def renew(tx: AsyncConnection, owner: str, run_ids: Sequence[str], lease_until: datetime) -> set[str]:
    """Renew the leases that `owner` still holds; the answer lacks the ones that it lost.

    None gets shorter: another replica may know already that the database's clock was put forward.
    """
    mine = and_(run.c.id.in_(run_ids), run.c.lease_owner == owner)
    held = {row.id for row in await tx.execute(select(run.c.id).where(mine))}
    until = literal(lease_until, Timestamp)
    later = case((run.c.lease_until > until, run.c.lease_until), else_=until)
    await tx.execute(update(run).where(mine).values(lease_until=later))
    return held


async def release_all(tx: AsyncConnection) -> int:
    """Void every lease: only where this process is known to be the only one (SQLite, at start)."""
    result = await tx.execute(update(run).where(run.c.active, run.c.lease_owner.is_not(None)).values(lease_until=None))
    return int(result.rowcount)


async def release_owned(tx: AsyncConnection, owner: str) -> None:
    """Give back every lease of an owner that stops."""
    mine = and_(run.c.active, run.c.lease_owner == owner)
    await tx.execute(update(run).where(mine).values(lease_owner=None, lease_until=None))


async def next_due(tx: AsyncConnection, claimant: Claimant) -> datetime | None:
    """When the next run that may be claimed is due (or its lease runs out); None when there is none."""
    others = {"owner": claimant.owner, "newer": list(claimant.newer)}
    asked = others | {"in_work": list(claimant.in_work)}
    free: datetime | None = (await tx.execute(_NEXT_FREE, asked)).scalar_one_or_none()
    lease: datetime | None = (await tx.execute(_NEXT_LEASE, others)).scalar_one_or_none()
    return min((one for one in (free, lease) if one is not None), default=None)
