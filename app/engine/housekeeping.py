"""Seals the audit and deletes what is older than the retention; one replica at a time, never for long.

Nothing waits for it. Each batch is one short transaction, and several times as long as it took is left to the others.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from app.domain.errors import StoreUnavailableError
from app.engine.parts import Parts
from app.store import retention, seals
from app.store.leadership import Leadership

_SEAL_SECONDS = 10.0
_SEALED_AT_ONCE = 200  # events: five milliseconds or so, in which nobody is answered on SQLite
_PRUNE_EVERY = timedelta(minutes=10)
_PRUNED_AT_ONCE = 10  # rows, each with twenty index entries: a few milliseconds
_REST = 4  # times as long as a batch took, in which the disk is there for others: a hundred thousand runs in minutes
log = structlog.get_logger()


async def keep_house_forever(parts: Parts, keep: timedelta) -> None:
    """Seal every ten seconds and prune every ten minutes, until cancelled; `keep` 0 prunes nothing."""
    leadership = Leadership(parts.database, "housekeeping")
    next_prune = parts.clock()
    try:
        while True:
            try:
                if await leadership.held():
                    await seal(parts)
                    if keep and parts.clock() >= next_prune:
                        next_prune = parts.clock() + _PRUNE_EVERY
                        await prune(parts, parts.clock() - keep)
            except StoreUnavailableError as error:
                log.debug("housekeeping waits for the store", error=error.message)
            except Exception:  # the loop: what cannot be pruned today must not end sealing
                log.exception("housekeeping failed")
            await asyncio.sleep(_SEAL_SECONDS)
    finally:
        await leadership.close()


async def seal(parts: Parts) -> int:
    """Seal every event that has none yet; how many there were."""
    total = 0
    while True:
        async with parts.turn(lock="seal") as turn:
            sealed = await seals.seal_next(turn.tx, turn.now, _SEALED_AT_ONCE)
        total += sealed.events
        if sealed.events:  # a log that is kept elsewhere shows when the newest seals were taken away
            log.info("audit sealed", events=sealed.events, hash=sealed.hash)
        if sealed.events < _SEALED_AT_ONCE:
            return total


async def prune(parts: Parts, before: datetime) -> int:
    """Delete everything from before that moment; how many rows and runs that were."""
    async with parts.turn(lock="seal") as turn:
        await retention.announce_pass(turn.tx, turn.now, before)
    total = 0
    for batch in retention.BATCHES:
        total += await _all_of(parts, batch, before)
    if total:
        log.info("old records deleted", before=before.isoformat(), rows=total)
    return total


async def _all_of(parts: Parts, batch: retention.Batch, before: datetime) -> int:
    loop = asyncio.get_running_loop()
    total = 0
    while True:
        begun = loop.time()
        async with parts.database.write() as tx:
            count: int = await batch(tx, before, _PRUNED_AT_ONCE)
        total += count
        if count == 0:
            return total
        await asyncio.sleep(_REST * (loop.time() - begun))
