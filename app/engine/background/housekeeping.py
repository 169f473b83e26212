"""Seals the audit and deletes records older than the retention; one replica at a time, never for long.

Nothing waits for it. Each batch is one short transaction, and a rest of several times its length follows.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import structlog

from app.domain.errors import LeaseLostError, StoreUnavailableError
from app.engine.clock import steady
from app.engine.context import EngineContext
from app.store.audit import seals
from app.store.db.leadership import HOUSEKEEPING, Fence, Leadership, alone
from app.store.ledger import retention

_SEAL_SECONDS = 10.0
_SEALED_AT_ONCE = 200  # events: five milliseconds or so, in which no request is answered on SQLite
_PRUNE_SECONDS = 600.0
_PRUNED_AT_ONCE = 10  # rows, each with twenty index entries: a few milliseconds
_REST = 4  # times as long as a batch took, in which the disk is there for others: a hundred thousand runs in minutes
log = structlog.get_logger()


async def keep_house_forever(parts: EngineContext, keep: timedelta) -> None:
    """Seal every ten seconds and prune every ten minutes, until cancelled; `keep` 0 prunes nothing."""
    lead = Leadership(parts.database, HOUSEKEEPING, parts.owner, parts.policy.lease)
    next_prune = steady()
    async with lead.sought():
        while True:
            try:
                if lead.is_held:
                    await seal(parts, lead.check)
                    if keep and steady() >= next_prune:
                        next_prune = steady() + _PRUNE_SECONDS
                        await prune(parts, parts.clock() - keep, lead.check)
            except (LeaseLostError, StoreUnavailableError) as error:
                log.debug("housekeeping waits", error=error.message)
            except Exception:  # the loop: a failed deletion must not end sealing
                log.exception("housekeeping failed")
            await asyncio.sleep(min(_SEAL_SECONDS, lead.pause))


async def seal(parts: EngineContext, fence: Fence = alone) -> int:
    """Seal every event that has none yet; how many there were. Raises LeaseLostError where another replica leads."""
    total = 0
    while True:
        async with parts.turn(lock="seal") as turn:
            await fence(turn.tx)
            sealed = await seals.seal_next(turn.tx, turn.now, _SEALED_AT_ONCE)
        total += sealed.events
        if sealed.events:  # a log that is kept elsewhere shows when the newest seals were taken away
            log.info("audit sealed", events=sealed.events, hash=sealed.hash)
        if sealed.events < _SEALED_AT_ONCE:
            return total


async def prune(parts: EngineContext, before: datetime, fence: Fence = alone) -> int:
    """Delete everything from before that moment, and seal meanwhile; how many rows and runs were deleted.

    Raises LeaseLostError where another replica leads.
    """
    async with parts.turn(lock="seal") as turn:
        await fence(turn.tx)
        await retention.announce_pass(turn.tx, turn.now, before)
    loop = asyncio.get_running_loop()
    total, sealed_at = 0, loop.time()
    for batch in retention.BATCHES:
        while count := await _delete(parts, batch, before, fence):
            total += count
            if loop.time() >= sealed_at + _SEAL_SECONDS:  # the first pass of a long audit takes many minutes
                await seal(parts, fence)
                sealed_at = loop.time()
    if total:
        log.info("old records deleted", before=before.isoformat(), rows=total)
    return total


async def _delete(parts: EngineContext, batch: retention.Batch, before: datetime, fence: Fence) -> int:
    """One batch, and the rest after it."""
    loop = asyncio.get_running_loop()
    async with parts.database.write() as tx:
        await fence(tx)
        begun = loop.time()
        count: int = await batch(tx, before, _PRUNED_AT_ONCE)
    if count:
        await asyncio.sleep(_REST * (loop.time() - begun))
    return count
