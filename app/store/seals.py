"""Seals: the audit as a whole, so that a chain that was cut short or taken out shows.

Each seal covers the events since the one before it: the end of every chain that had grown, hashed together with the
hash of the seal before. `verify` holds the chains against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, case, func, insert, literal, select, text, tuple_, update
from sqlalchemy.engine import Row

from app.store.connection import AsyncConnection
from app.store.events import digest, key_of
from app.store.schema import event, microseconds, seal


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the order in which events became visible: transaction (0 on SQLite) and id."""

    tx: int = 0
    id: int = 0

    def __str__(self) -> str:
        return f"{self.tx}-{self.id}"

    @classmethod
    def parse(cls, text_: str) -> Cursor:
        """Read what `str` wrote; raises ValueError."""
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
    """Events that became visible up to that place, for the end of what `after` begins."""
    if tx.dialect.name == "postgresql":
        return tuple_(event.c.tx, event.c.id) <= tuple_(literal(cursor.tx, BigInteger), literal(cursor.id, BigInteger))
    return and_(event.c.tx == cursor.tx, event.c.id <= cursor.id)


async def settled(tx: AsyncConnection) -> ColumnElement[bool]:
    """Events before which no other one can still appear: all transactions up to theirs have ended."""
    if tx.dialect.name != "postgresql":
        return event.c.id.is_not(None)
    horizon = await tx.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))
    return event.c.tx < int(horizon.scalar_one())


async def last(tx: AsyncConnection) -> Row[Any] | None:
    """The newest seal."""
    return (await tx.execute(select(seal).order_by(seal.c.id.desc()).limit(1))).one_or_none()


def end_of(row: Row[Any] | None) -> Cursor:
    """Up to where a seal and those before it cover the events; without any, the beginning."""
    return Cursor() if row is None else Cursor(row.to_tx, row.to_id)


async def seal_next(tx: AsyncConnection, now: datetime, limit: int) -> Sealed:
    """Seal the next events, at most `limit`. The caller holds the lock `seal`."""
    before = await last(tx)
    query = select(event.c.tx, event.c.id, event.c.run_id, event.c.seq, event.c.hash)
    query = query.where(after(tx, end_of(before)), await settled(tx)).order_by(event.c.tx, event.c.id).limit(limit)
    rows = (await tx.execute(query)).all()
    if not rows:
        return Sealed()
    ends = {row.run_id: [row.run_id, row.seq, row.hash] for row in rows if row.seq is not None}
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
    """PostgreSQL counts transactions anew after a restore into another server: what is there comes before all that.

    What was sealed comes before the newest seal, and what was not after it; a server's own transactions begin with 3.
    """
    if tx.dialect.name != "postgresql":
        return
    highest = [select(func.max(column)).scalar_subquery() for column in (event.c.tx, seal.c.to_tx)]
    newest = (await tx.execute(select(func.greatest(*highest)))).scalar_one()
    current = (await tx.execute(text("SELECT pg_current_xact_id()::text::bigint"))).scalar_one()
    if newest is None or newest <= current:
        return
    unsealed = after(tx, end_of(await last(tx)))
    await tx.execute(update(event).values(tx=case((unsealed, 2), else_=0)))
    await tx.execute(update(seal).values(to_tx=0))


async def of_page(tx: AsyncConnection, after_id: int, limit: int) -> Sequence[Row[Any]]:
    """Seals in their order."""
    return (await tx.execute(select(seal).where(seal.c.id > after_id).order_by(seal.c.id).limit(limit))).all()
