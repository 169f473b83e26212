"""Pauses: holder, subject, reason and end. Guards read them; people put and take them through the API.

A new pause waits for no lock of the engine. A transaction that commits the intent of a call marks itself instead
(`mark_beginning`), before it reads the pauses: so the pause can wait for those that have not seen it (`seen_by_all`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, insert, or_, select, text, update
from sqlalchemy.engine import Row

from app.domain.errors import StoreUnavailableError
from app.domain.ids import new_id
from app.domain.obstacles import Hold
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.notify import announce
from app.store.db.schema import hold, run

_BEGINNING = 0x70617573  # of advisory locks, which are only taken shared
_UNSEEN_SECONDS, _LOOK_SECONDS = 8.0, 0.02
_UNKNOWN = "unknown"  # transactions that begin a call, if the store does not say
_MARK = text("SELECT pg_advisory_xact_lock_shared(:key)")
_MARKED = text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0 AND objsubid = 1"
    " AND objid = :key AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@dataclass(frozen=True, slots=True)
class Held:
    """The subject of a pause: `scope` is all, remediation or target; `subject` the name or key, empty for all."""

    scope: str
    subject: str = ""


def _stands(now: datetime) -> ColumnElement[bool]:
    return and_(hold.c.ended_at.is_(None), or_(hold.c.until.is_(None), hold.c.until > now))


async def on(tx: AsyncConnection, now: datetime, remediation: str, target_key: str | None) -> tuple[Hold, ...]:
    """The holds that keep a run of `remediation` on this target from acting, oldest first."""
    concerned = or_(
        hold.c.scope == "all",
        and_(hold.c.scope == "remediation", hold.c.subject == remediation),
        and_(hold.c.scope == "target", hold.c.subject == (target_key or "")),
    )
    rows = await tx.execute(select(hold).where(_stands(now), concerned).order_by(hold.c.since))
    return tuple(Hold(row.scope, row.holder, row.why, row.until) for row in rows)


async def mark_beginning(tx: AsyncConnection) -> None:
    """Let `seen_by_all` know of this transaction until it ends; SQLite has one writer at a time anyway."""
    if tx.dialect.name == "postgresql":
        await tx.execute(_MARK, {"key": _BEGINNING})


async def seen_by_all(database: Database) -> bool:
    """Wait until every transaction that may commit the intent of a call has seen the present commits.

    False when one does not end, or when the store does not say.
    """
    if database.is_sqlite:
        return True
    before = {_UNKNOWN}
    with suppress(TimeoutError, StoreUnavailableError):
        before = await _beginning(database)
        async with asyncio.timeout(_UNSEEN_SECONDS):
            while before:
                await asyncio.sleep(_LOOK_SECONDS)
                before &= await _beginning(database)
    return not before


async def _beginning(database: Database) -> set[str]:
    async with database.read() as tx:
        return {row.virtualtransaction for row in await tx.execute(_MARKED, {"key": _BEGINNING})}


async def standing(tx: AsyncConnection, now: datetime) -> Sequence[Row[Any]]:
    """Every hold that stands, oldest first."""
    return (await tx.execute(select(hold).where(_stands(now)).order_by(hold.c.since, hold.c.id))).all()


async def over(tx: AsyncConnection, now: datetime) -> Sequence[Row[Any]]:
    """Return the pauses whose time is over, and whose end was not told yet."""
    return (await tx.execute(select(hold).where(hold.c.ended_at.is_(None), hold.c.until <= now))).all()


async def put(tx: AsyncConnection, held: Held, given: Hold, now: datetime, *, is_length: bool = False) -> str:
    """Put a hold, instead of an earlier one of the same holder on the same; the caller holds a lock against others.

    With `is_length` its end was given as how long it lasts, which a step of the clock does not change.
    """
    await take(tx, held, given.holder, given.holder, now)
    new = {"id": new_id(now), "scope": held.scope, "subject": held.subject, "holder": given.holder}
    await tx.execute(
        insert(hold), [new | {"why": given.why, "since": now, "until": given.until, "is_length": is_length}]
    )
    return str(new["id"])


async def take(tx: AsyncConnection, held: Held, holder: str | None, by: str, now: datetime) -> int:
    """End a hold (None: of all holders) and let the runs that waited for it be decided; return how many had stood."""
    mine = and_(hold.c.scope == held.scope, hold.c.subject == held.subject, hold.c.ended_at.is_(None))
    if holder is not None:
        mine = and_(mine, hold.c.holder == holder)
    stood = (await tx.execute(select(hold.c.id).where(mine, _stands(now)))).all()
    await tx.execute(update(hold).where(mine).values(ended_at=now, ended_by=by))
    # Not those whose rows somebody holds: they look again soon anyway, and who stops everything waits for nobody.
    waiting = and_(run.c.active, run.c.state == RunState.DEFERRED, run.c.reason == Reason.PAUSED)
    free = select(run.c.id).where(waiting, run.c.not_before > now).with_for_update(skip_locked=True)
    await tx.execute(update(run).where(run.c.id.in_(free)).values(not_before=now))
    await announce(tx)
    return len(stood)
