"""Reads the audit as a stream: events with what they are about, in the order in which they became visible."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.engine import Row

from app.store.database import Database
from app.store.events import catalog_chain
from app.store.schema import event, run
from app.store.seals import Cursor, after, settled

_PAGE = 500
_RUN = (run.c.remediation, run.c.alertname, run.c.namespace, run.c.fingerprint, run.c.target_key, run.c.purpose)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; what is left empty does not restrict."""

    remediation: str | None = None
    kinds: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


async def page(database: Database, start: Cursor, wanted: Wanted, limit: int = _PAGE) -> list[Row[Any]]:
    """The next events after a place, with the run that they are of where there is one."""
    async with database.browse() as tx:
        query = select(event, *_RUN).outerjoin(run, run.c.id == event.c.run_id)
        query = query.where(after(tx, start), await settled(tx))
        if wanted.remediation is not None:
            chain = catalog_chain(wanted.remediation)
            query = query.where(or_(run.c.remediation == wanted.remediation, event.c.run_id == chain))
        if wanted.kinds:
            query = query.where(event.c.kind.in_(wanted.kinds))
        if wanted.since is not None:
            query = query.where(event.c.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(event.c.at < wanted.until)
        return list((await tx.execute(query.order_by(event.c.tx, event.c.id).limit(limit))).all())


async def read(database: Database, start: Cursor, wanted: Wanted) -> AsyncIterator[Row[Any]]:
    """Everything after a place that there is now, a page at a time and no transaction open between."""
    while rows := await page(database, start, wanted):
        for row in rows:
            yield row
        start = Cursor(rows[-1].tx, rows[-1].id)


def described(row: Row[Any]) -> dict[str, Any]:
    """An event as JSON for machines; `cursor` is where to go on."""
    about = None
    if row.remediation is not None:
        about = {
            "remediation": row.remediation,
            "purpose": row.purpose,
            "alertname": row.alertname,
            "namespace": row.namespace,
            "fingerprint": row.fingerprint,
            "target": row.target_key,
        }
    return {
        "cursor": str(Cursor(row.tx, row.id)),
        "chain": row.run_id,
        "run": about,
        "at": row.at.isoformat().replace("+00:00", "Z"),
        "kind": row.kind,
        "state": row.state or None,
        "reason": row.reason,
        "message": row.message,
        "actor": row.actor,
        "data": row.data,
        "seq": row.seq,
        "hash": row.hash,
    }
