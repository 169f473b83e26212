"""Whether this replica's catalog is the newest, or another replica has a newer one; the store keeps their order.

The worker tells the store which catalog is served here before it claims anything. A replica with an older catalog
leaves alone the decisions of a newer one: runs, and earned modes.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from app.engine.clock import steady
from app.engine.context import EngineContext, Turn
from app.store.ledger import catalogs
from app.store.ledger.catalogs import Known
from app.store.ledger.runs import Run

_LOOK_SECONDS = 10.0
log = structlog.get_logger()


async def keep_current(parts: EngineContext) -> None:
    """Tell the store which catalog is served here, when it changes and from time to time, and learn of newer ones."""
    digest, current = parts.catalog().digest, parts.currency
    changed = digest != current.served
    if not changed and (parts.database.is_sqlite or steady() - current.looked_at < _LOOK_SECONDS):
        return
    async with parts.turn(lock="catalog", synced=False) as turn:
        alone = _is_alone(parts, await catalogs.known(turn.tx))
        await catalogs.serve(turn.tx, digest, current.served, turn.now, is_alone=alone)
        known = await catalogs.known(turn.tx)
    newer = frozenset(name for name, one in known.items() if one.number > known[digest].number)
    if newer and (changed or not current.newer):
        log.warning("another replica serves a newer catalog; its runs are left to it", digest=digest[:12])
    current.served, current.newer, current.looked_at = digest, newer, steady()


def _is_alone(parts: EngineContext, known: Mapping[str, Known]) -> bool:
    """Say whether no replica serves a newer catalog: none has said so for long, by a clock that cannot be set."""
    if parts.database.is_sqlite:
        return True
    digest, seen, now = parts.catalog().digest, parts.currency.seen, steady()
    newer = {name: one for name, one in known.items() if digest in known and one.number > known[digest].number}
    for name, one in newer.items():
        if name not in seen or seen[name][0] != one.served_at:
            seen[name] = (one.served_at, now)
    return all(now - seen[name][1] >= catalogs.UNSERVED.total_seconds() for name in newer)


async def is_older(turn: Turn, run: Run) -> bool:
    """Whether the catalog here is older than the one that recorded the run, or may be."""
    return await catalogs.is_older(turn.tx, turn.parts.catalog().digest, run.digest, run.created_at, turn.now)


async def is_newest(turn: Turn) -> bool:
    """Whether no replica is known to have a newer catalog than the one here."""
    known = await catalogs.known(turn.tx)
    ours = known.get(turn.parts.catalog().digest)
    return ours is None or ours.number == max(one.number for one in known.values())
