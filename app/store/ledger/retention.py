"""Deletes records older than the retention, a small batch in its own transaction at a time, oldest first.

The audit says itself up to when: the first batch of a pass appends an event that the seals cover.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, delete, exists, or_, select, update

from app.domain.ids import lowest_id
from app.store.audit import chain
from app.store.audit.chain import SERVICE, Entry, Event
from app.store.db.connection import AsyncConnection
from app.store.db.schema import episode, event, hold, message, notification, run, run_episode, seal, storm

_WINDOW = 1_000  # of the oldest notifications
Batch = Callable[[AsyncConnection, datetime, int], Any]


async def announce_pass(tx: AsyncConnection, now: datetime, before: datetime) -> bool:
    """Record that runs from before this moment are deleted; False when there are none."""
    if not await _old_chains(tx, before, 1):
        return False
    entry = Entry(
        f"records from before {before:%Y-%m-%d %H:%M:%S} UTC are deleted", data={"before": before.isoformat()}
    )
    await chain.append(tx, [Event(SERVICE, now, "pruned", "", entry)])
    return True


async def prune_runs(tx: AsyncConnection, before: datetime, limit: int) -> int:
    """Delete the oldest runs that ended before that moment, with steps, links and events; return the number of chains.

    It leaves runs whose rows another transaction holds, which may be about to append to their chains. A later append
    finds no row.
    """
    chains = await _old_chains(tx, before, limit)
    await tx.execute(delete(event).where(event.c.run_id.in_(chains)))
    await tx.execute(delete(run).where(run.c.id.in_(chains)))
    return len(chains)


async def _old_chains(tx: AsyncConnection, before: datetime, limit: int) -> list[str]:
    """Return ended runs, and the remains of runs that were folded into another one."""
    old = run.c.id < lowest_id(before)
    ended = select(run.c.id).where(old, run.c.finished_at < before).order_by(run.c.id).limit(limit)
    found = list((await tx.execute(ended.with_for_update(skip_locked=True))).scalars())
    if len(found) < limit:
        folded = (event.c.run_id < lowest_id(before), event.c.at < before, event.c.kind == "folded")
        gone = ~exists().where(run.c.id == event.c.run_id)
        query = select(event.c.run_id).where(*folded, gone).limit(limit - len(found))
        found += (await tx.execute(query)).scalars()
    return found


async def prune_episodes(tx: AsyncConnection, before: datetime, limit: int) -> int:
    """Delete ended episodes that no run is linked with."""
    unused = ~exists().where(run_episode.c.episode_id == episode.c.id)
    return await _delete(tx, episode, limit, episode.c.id < lowest_id(before), episode.c.closed_at < before, unused)


async def prune_notifications(tx: AsyncConnection, before: datetime, limit: int) -> int:
    """Delete notifications that were taken in or set aside."""
    # Among the oldest: where none is to go, all of them would be read each time.
    oldest = select(notification.c.id).order_by(notification.c.id).limit(_WINDOW)
    taken = and_(notification.c.received_at < before, notification.c.taken_in_at < before)
    return await _delete(tx, notification, limit, notification.c.id.in_(oldest), taken)


async def prune_others(tx: AsyncConnection, before: datetime, limit: int) -> int:
    """Delete messages, pauses and storms that are over, and the lists of deleted chains in seals."""
    done = or_(message.c.sent_at < before, message.c.given_up_at < before)
    count = await _delete(tx, message, limit, done)
    count += await _delete(tx, hold, limit, or_(hold.c.ended_at < before, hold.c.until < before))
    count += await _delete(tx, storm, limit, storm.c.until < before)
    kept = select(seal.c.id).where(seal.c.leaves.is_not(None)).order_by(seal.c.id).limit(limit)
    old = select(seal.c.id).where(seal.c.id.in_(kept), seal.c.at < before)
    cleared = await tx.execute(update(seal).where(seal.c.id.in_(old)).values(leaves=None))
    return count + int(cleared.rowcount)


async def _delete(tx: AsyncConnection, table: Table, limit: int, *which: ColumnElement[bool]) -> int:
    oldest = select(table.c.id).where(*which).order_by(table.c.id).limit(limit)
    result = await tx.execute(delete(table).where(table.c.id.in_(oldest)))
    return int(result.rowcount)


BATCHES: tuple[Batch, ...] = (prune_runs, prune_episodes, prune_notifications, prune_others)
