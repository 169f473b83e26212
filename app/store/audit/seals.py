"""Seals: the audit as a whole, so that a chain that was cut short or taken out shows.

Each seal covers the events since the one before it: the end of every chain that had grown, hashed together with the
hash of the seal before. `verify` holds the chains against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import BigInteger, ColumnElement, and_, case, func, insert, literal, or_, select, text, tuple_, update
from sqlalchemy.engine import Row

from app.store.audit.chain import digest, key_of
from app.store.db.connection import AsyncConnection
from app.store.db.schema import event, microseconds, seal

_FIRST = 3  # of a server's own transactions
_LATELY = 100  # seals: events whose ids are behind the newest one's are in these
_BEFORE_ALL, _AFTER_SEALED = 0, 2  # instead of the numbers of another server, see `after_restore`
# Above all transactions that have ended.
_NEXT = text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
# The oldest transaction that goes on. One of another database of the server, which may stay open for days, is known by
# the lock that every transaction has on its own number, of which that view has the lower half.
_HORIZON = text("""
    SELECT coalesce(min(one::text::bigint), pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
    FROM pg_snapshot_xip(pg_current_snapshot()) AS one
    WHERE NOT EXISTS (
        SELECT 1 FROM pg_locks AS held
        LEFT JOIN pg_stat_activity AS session ON session.pid = held.pid
        LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = held.transactionid
        WHERE held.locktype = 'transactionid' AND held.mode = 'ExclusiveLock' AND held.granted
          AND held.transactionid::text::bigint = one::text::bigint % 4294967296
          AND coalesce(session.datname, prepared.database) <> current_database()
    )
""")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the order in which events became visible: transaction (0 on SQLite) and id."""

    tx: int = 0
    id: int = 0

    def __str__(self) -> str:
        return f"{self.tx}-{self.id}"

    @classmethod
    def parse(cls, text_: str) -> Cursor:
        """Read the output of `str`; raises ValueError."""
        first, _, second = text_.partition("-")
        cursor = cls(int(first), int(second))
        if min(cursor.tx, cursor.id) < 0 or max(cursor.tx, cursor.id) >= 1 << 63:
            raise ValueError(text_)
        return cursor


@dataclass(frozen=True, slots=True)
class Sealed:
    """How many events a seal covers, and its hash."""

    events: int = 0
    hash: str = ""


def after(tx: AsyncConnection, cursor: Cursor) -> ColumnElement[bool]:
    """Events that became visible after that place, found by the index, however many came before."""
    if tx.dialect.name == "postgresql":
        return tuple_(event.c.tx, event.c.id) > tuple_(literal(cursor.tx, BigInteger), literal(cursor.id, BigInteger))
    # On SQLite all have the same, and of pairs the index would serve for the first halves only.
    return and_(event.c.tx == cursor.tx, event.c.id > cursor.id)


def until(tx: AsyncConnection, cursor: Cursor) -> ColumnElement[bool]:
    """Select events that became visible up to that place, for the end of a range that `after` begins."""
    if tx.dialect.name == "postgresql":
        return tuple_(event.c.tx, event.c.id) <= tuple_(literal(cursor.tx, BigInteger), literal(cursor.id, BigInteger))
    return and_(event.c.tx == cursor.tx, event.c.id <= cursor.id)


async def settled(tx: AsyncConnection) -> ColumnElement[bool]:
    """Events before which no other one can still appear: all transactions up to theirs have ended."""
    if tx.dialect.name != "postgresql":
        return event.c.id.is_not(None)
    return event.c.tx < int((await tx.execute(_HORIZON)).scalar_one())


async def beyond(tx: AsyncConnection, cursor: Cursor) -> ColumnElement[bool]:
    """Select like `after` for a reader, whose place may be from another server.

    `after_restore` has given events of that server new numbers, so the place is where its event is now. Before it has
    done so, only the order of ids is left.
    """
    if tx.dialect.name != "postgresql":
        return after(tx, cursor)
    # Retention may have deleted the event itself.
    there = select(event.c.tx).where(event.c.id <= cursor.id).order_by(event.c.id.desc()).limit(1)
    moved_to = (await tx.execute(there)).scalar_one_or_none()
    if moved_to is not None and moved_to < _FIRST:
        return after(tx, Cursor(moved_to, cursor.id))
    if cursor.tx >= int((await tx.execute(_NEXT)).scalar_one()):
        return event.c.id > cursor.id
    return after(tx, cursor)


async def last(tx: AsyncConnection) -> Row[Any] | None:
    """The newest seal."""
    return (await tx.execute(select(seal).order_by(seal.c.id.desc()).limit(1))).one_or_none()


def end_of(row: Row[Any] | None) -> Cursor:
    """Up to where a seal and those before it cover the events; without any, the beginning."""
    return Cursor() if row is None else Cursor(row.to_tx, row.to_id)


async def seal_next(tx: AsyncConnection, now: datetime, limit: int) -> Sealed:
    """Seal the next events, at most `limit`. The caller holds the lock `seal`."""
    await after_restore(tx)
    before = await last(tx)
    query = select(event.c.tx, event.c.id, event.c.run_id, event.c.seq, event.c.hash)
    query = query.where(after(tx, end_of(before)), await settled(tx)).order_by(event.c.tx, event.c.id).limit(limit)
    rows = (await tx.execute(query)).all()
    if not rows:
        return Sealed()
    # A chain's end may be of a transaction with a smaller number than that of the event before it.
    chained = sorted((row for row in rows if row.seq is not None), key=lambda row: int(row.seq))
    ends = {row.run_id: [row.run_id, row.seq, row.hash] for row in chained}
    leaves = [ends[chain] for chain in sorted(ends)]
    leaves_hash = digest(key_of(tx), leaves)
    new = {"at": now, "to_tx": rows[-1].tx, "to_id": rows[-1].id, "leaves": leaves, "leaves_hash": leaves_hash}
    new["hash"] = seal_hash(key_of(tx), "" if before is None else before.hash, new)
    await tx.execute(insert(seal), [new])
    return Sealed(len(rows), str(new["hash"]))


def seal_hash(key: bytes, previous: str, content: dict[str, Any]) -> str:
    """The hash of a seal after the one with the hash `previous`."""
    return digest(key, [previous, microseconds(content["at"]), content["to_id"], content["leaves_hash"]])


async def after_restore(tx: AsyncConnection) -> None:
    """Renumber events after a restore: another server counts transactions anew, and older events come before its own.

    Sealed events come before the newest seal, and others after it; a server's own transactions begin with 3. Replicas
    may have gone on meanwhile: events that they have written here keep their number. The caller holds the lock `seal`.
    """
    if tx.dialect.name != "postgresql":
        return
    end = end_of(await last(tx))
    newest_event = (await tx.execute(select(func.max(event.c.tx)))).scalar_one() or 0
    following = int((await tx.execute(_NEXT)).scalar_one())
    unsealed = after(tx, end)
    ours = event.c.tx.between(_FIRST, following - 1)
    here = await _passed_over(tx, and_(ours, ~unsealed, event.c.id > end.id))
    if max(newest_event, end.tx) < following and not here:
        return
    foreign = and_(~and_(ours, unsealed), event.c.id.not_in(here))
    if here:  # ids go on where the dump ended
        foreign = or_(foreign, event.c.id < min(here))
    place = case((unsealed, _AFTER_SEALED), else_=_BEFORE_ALL)
    await tx.execute(update(event).where(foreign).values(tx=place))
    await tx.execute(update(seal).values(to_tx=_AFTER_SEALED - 1))
    log.warning("the store was moved to another server; the audit goes on there", counted=following)


async def _passed_over(tx: AsyncConnection, behind: ColumnElement[bool]) -> list[int]:
    """Those of the events behind the newest seal that no seal covers: written here, by a smaller number than its."""
    found = (await tx.execute(select(event.c.id, event.c.run_id, event.c.seq).where(behind))).all()
    sealed = await _sealed_lately(tx) if found else {}
    return [row.id for row in found if (row.seq or 0) > sealed.get(row.run_id, 0)]


async def _sealed_lately(tx: AsyncConnection) -> dict[str, int]:
    """Up to which event the newest seals cover each chain that they name."""
    found: dict[str, int] = {}
    query = select(seal.c.leaves).where(seal.c.leaves.is_not(None)).order_by(seal.c.id.desc()).limit(_LATELY)
    for (leaves,) in await tx.execute(query):
        for chain, seq, _ in leaves:
            found[chain] = max(seq, found.get(chain, 0))
    return found


async def of_page(tx: AsyncConnection, after_id: int, limit: int) -> Sequence[Row[Any]]:
    """Seals in their order."""
    return (await tx.execute(select(seal).where(seal.c.id > after_id).order_by(seal.c.id).limit(limit))).all()
