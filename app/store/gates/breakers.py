"""Breakers: how often a remediation has failed in a row, and whether it is stopped for that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, insert, select, update

from app.domain.obstacles import Breaker
from app.domain.reasons import Reason
from app.domain.remediation import Limits
from app.domain.states import RunState
from app.store.db.connection import AsyncConnection
from app.store.db.dialects import insert_missing
from app.store.db.schema import breaker, run
from app.store.ledger.runs import woken

_GET = select(breaker).where(breaker.c.remediation == bindparam("name"))
_GET_LOCKED = _GET.with_for_update()
_GIVE_BACK = (
    update(breaker)
    .where(breaker.c.remediation == bindparam("name"), breaker.c.trial == bindparam("run"))
    .values(trial=None)
)


async def get(tx: AsyncConnection, remediation: str, *, lock: bool = False) -> Breaker:
    """The state of one breaker; closed where nothing has ever failed."""
    row = (await tx.execute(_GET_LOCKED if lock else _GET, {"name": remediation})).one_or_none()
    return Breaker() if row is None else Breaker(row.failures, row.opened_at, row.trial_at, row.trial)


async def get_all(tx: AsyncConnection) -> dict[str, Breaker]:
    """Every breaker that has counted anything, by the remediation's name."""
    rows = await tx.execute(select(breaker))
    return {row.remediation: Breaker(row.failures, row.opened_at, row.trial_at, row.trial) for row in rows}


async def begin_trial(tx: AsyncConnection, remediation: str, run_id: str) -> None:
    """Let one run through; the others wait for its end."""
    await _write(tx, remediation, {"trial": run_id})


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that acted and ended, and whether it helped."""

    remediation: str
    run_id: str
    helped: bool


async def record(tx: AsyncConnection, ended: Ended, limits: Limits, now: datetime) -> Breaker | None:
    """Count how a run ended; returns the breaker when that opened it. Only its trial moves one that is open."""
    name = ended.remediation
    if not ended.helped:
        await _ensure(tx, name)
    state = await get(tx, name, lock=True)
    is_trial = state.trial == ended.run_id
    if state.opened_at is not None and not is_trial:
        return None
    if ended.helped:
        if state != Breaker():
            await _reset(tx, name, now)
        return None
    failures = state.failures + 1
    if not is_trial and failures < limits.breaker:
        await _write(tx, name, {"failures": failures})
        return None
    opened = Breaker(failures, state.opened_at or now, now + limits.breaker_pause)
    await _write(tx, name, asdict(opened))
    return opened


async def give_trial_back(tx: AsyncConnection, remediation: str, run_id: str) -> None:
    """A trial that ended without doing anything leaves its place to the next run."""
    await tx.execute(_GIVE_BACK, {"name": remediation, "run": run_id})


async def waiting(tx: AsyncConnection, remediation: str) -> list[str]:
    """The runs that wait for a breaker, oldest first."""
    query = select(run.c.id).where(_waits(remediation)).order_by(run.c.id)
    return list((await tx.execute(query)).scalars())


def _waits(remediation: str) -> ColumnElement[bool]:
    deferred = and_(run.c.active, run.c.state == RunState.DEFERRED, run.c.reason == Reason.BREAKER_OPEN)
    return and_(run.c.remediation == remediation, deferred)


async def close(tx: AsyncConnection, remediation: str, now: datetime) -> bool:
    """Close it by hand and let the waiting runs be decided; say whether it was open."""
    state = await get(tx, remediation, lock=True)
    await _reset(tx, remediation, now)
    return state.opened_at is not None


async def _reset(tx: AsyncConnection, remediation: str, now: datetime) -> None:
    """Forget all failures, and let the waiting runs be decided again."""
    await _write(tx, remediation, asdict(Breaker()))
    await tx.execute(woken(select(run.c.id).where(_waits(remediation), run.c.not_before > now)), {"now": now})


async def _ensure(tx: AsyncConnection, remediation: str) -> None:
    """Make the row that is to be locked: two first failures at the same time are two."""
    await tx.execute(insert_missing(tx.dialect, breaker).values(remediation=remediation, failures=0))


async def _write(tx: AsyncConnection, remediation: str, values: dict[str, Any]) -> None:
    changed = await tx.execute(update(breaker).where(breaker.c.remediation == remediation).values(values))
    if changed.rowcount == 0:
        await tx.execute(insert(breaker), [{"remediation": remediation, "failures": 0} | values])
