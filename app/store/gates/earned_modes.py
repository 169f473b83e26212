"""Standings: the mode that each remediation has earned so far, with the marks for and against it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Row

from app.domain.earned_mode import Standing
from app.domain.remediation import Mode
from app.store.audit import chain
from app.store.audit.chain import Entry, Event, catalog_chain
from app.store.db.connection import AsyncConnection
from app.store.db.dialects import insert_missing
from app.store.db.schema import standing


async def get(tx: AsyncConnection, remediation: str) -> Standing | None:
    """The standing of one remediation, or None before it has any."""
    row = (await tx.execute(select(standing).where(standing.c.remediation == remediation))).one_or_none()
    return None if row is None else _from_row(row)


async def get_all(tx: AsyncConnection) -> dict[str, Standing]:
    """Every standing, by the remediation's name; also of remediations that are no longer in the catalog."""
    return {row.remediation: _from_row(row) for row in await tx.execute(select(standing))}


async def begin(tx: AsyncConnection, remediation: str, first: Standing) -> tuple[Standing, bool]:
    """The standing, kept from others until the transaction ends; `first` where there was none (and then True)."""
    statement = insert_missing(tx.dialect, standing).values({"remediation": remediation} | asdict(first))
    is_new = (await tx.execute(statement.returning(standing.c.remediation))).first() is not None
    query = select(standing).where(standing.c.remediation == remediation).with_for_update()
    return _from_row((await tx.execute(query)).one()), is_new


async def put(tx: AsyncConnection, remediation: str, value: Standing) -> None:
    """Write a standing that was begun."""
    await tx.execute(update(standing).where(standing.c.remediation == remediation).values(asdict(value)))


async def note(tx: AsyncConnection, remediation: str, now: datetime, entry: Entry) -> None:
    """Append to the audit of a remediation."""
    await chain.append(tx, [Event(catalog_chain(remediation), now, "standing", "", entry)])


def _from_row(row: Row[Any]) -> Standing:
    return Standing(digest=row.digest, mode=Mode(row.mode), since=row.since, good=row.good, bad=row.bad)
