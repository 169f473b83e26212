"""The order of catalogs, by their digests, as the replicas of one store have come to serve them.

A catalog's number is given when the store first hears of it, and anew when a replica goes back to it; a reload or a
restart that finds the same files changes nothing. Files have no age to go by, and the clocks of replicas differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update

from app.store.db.connection import AsyncConnection
from app.store.db.schema import catalog

UNSERVED = timedelta(minutes=5)  # the longest that Kubernetes takes to bring a changed ConfigMap to every pod, amply


@dataclass(frozen=True, slots=True)
class Known:
    """A catalog that replicas serve, or have served; the highest number is the newest.

    Its replicas report it from time to time.
    """

    number: int
    served_at: datetime


async def known(tx: AsyncConnection) -> dict[str, Known]:
    """Every catalog that the store has heard of, by its digest."""
    return {row.digest: Known(row.number, row.served_at) for row in await tx.execute(select(catalog))}


async def serve(tx: AsyncConnection, digest: str, before: str | None, now: datetime, *, is_alone: bool) -> None:
    """Record that a replica serves this catalog, and served `before` until now; the caller holds a lock against others.

    It becomes the newest when it is new to the store, when the replica goes back to it from a newer one, or when it
    `is_alone`: no replica serves a newer one any more, and so all have gone back to it while they were stopped.
    """
    all_known = await known(tx)
    highest = max((one.number for one in all_known.values()), default=0)
    if digest not in all_known:
        await tx.execute(insert(catalog), [{"digest": digest, "number": highest + 1, "served_at": now}])
        return
    mine = all_known[digest].number
    goes_back = before in all_known and all_known[before].number > mine
    number = highest + 1 if mine < highest and (goes_back or is_alone) else mine
    await tx.execute(update(catalog).where(catalog.c.digest == digest).values(number=number, served_at=now))


async def is_older(tx: AsyncConnection, ours: str, than: str, recorded_at: datetime, now: datetime) -> bool:
    """Whether a catalog is older than the one that recorded something, or may be: that may just have been loaded.

    One that the store has not heard of was loaded a moment ago, and becomes the newest as soon as it is told.
    """
    if ours == than:
        return False
    all_known = await known(tx)
    if than not in all_known:
        return now - recorded_at < UNSERVED
    return ours in all_known and all_known[ours].number < all_known[than].number
