"""Reads the audit as a stream: events with their subjects, in the order in which they became visible."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.engine import Row

from app.store.audit.chain import catalog_chain
from app.store.audit.seals import Cursor, beyond, settled, until
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.schema import event, run

_PAGE = 500
_LOOKED_AT = 2_000  # events for one page: on SQLite no request is answered meanwhile
_RUN = (run.c.remediation, run.c.alertname, run.c.namespace, run.c.fingerprint, run.c.target_key, run.c.purpose)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filter of events; an empty field does not restrict."""

    remediation: str | None = None
    kinds: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The wanted ones among the next events, and the place up to which these were looked at."""

    rows: list[Row[Any]]
    end: Cursor
    has_more: bool  # of events, wanted or not


async def page(database: Database, start: Cursor, wanted: Wanted, limit: int = _PAGE) -> Page:
    """Return the next wanted events after a place, each with its run if it has one.

    Other events are passed by, too, and not looked at again from the page's end.
    """
    async with database.follow() as tx:
        here = and_(await beyond(tx, start), await settled(tx))
        end, has_more = await _end(tx, here)
        if end is None:
            return Page([], start, has_more=False)
        query = select(event, *_RUN).outerjoin(run, run.c.id == event.c.run_id)
        query = query.where(here, until(tx, end), *_conditions(wanted))
        rows = list((await tx.execute(query.order_by(event.c.tx, event.c.id).limit(limit))).all())
        await database.on_disk(tx)  # a crash must neither take told events back, nor use this place again
    if len(rows) == limit:
        return Page(rows, Cursor(rows[-1].tx, rows[-1].id), has_more=True)
    return Page(rows, end, has_more)


async def _end(tx: AsyncConnection, here: ColumnElement[bool]) -> tuple[Cursor | None, bool]:
    """The last event that one page looks at, by the index alone, and whether there may be more; None: there is none."""
    places = select(event.c.tx, event.c.id).where(here)
    last = (await tx.execute(places.order_by(event.c.tx.desc(), event.c.id.desc()).limit(1))).one_or_none()
    if last is None:
        return None, False
    far = places.order_by(event.c.tx, event.c.id).limit(1).offset(_LOOKED_AT - 1)
    bound = (await tx.execute(far)).one_or_none()
    return Cursor(*(last if bound is None else bound)), bound is not None


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.remediation is not None:
        chain = catalog_chain(wanted.remediation)
        found.append(or_(run.c.remediation == wanted.remediation, event.c.run_id == chain))
    if wanted.kinds:
        found.append(event.c.kind.in_(wanted.kinds))
    if wanted.since is not None:
        found.append(event.c.at >= wanted.since)
    if wanted.until is not None:
        found.append(event.c.at < wanted.until)
    return found


async def read(database: Database, start: Cursor, wanted: Wanted) -> AsyncIterator[Row[Any]]:
    """Everything after a place that there is now, a page at a time and no transaction open between."""
    has_more = True
    while has_more:
        found = await page(database, start, wanted)
        for row in found.rows:
            yield row
        start, has_more = found.end, found.has_more


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
