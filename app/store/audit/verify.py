"""Verifies the audit: every chain, every seal, and that the ledger agrees with its events.

Only reads. It cannot find a change made with the key, a change of an event from a release without chains, a removal of
events that are older than the retention by now, and the changes that docs/audit.md lists.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.engine import Row

from app.domain.ids import lowest_id
from app.domain.model import JsonObject
from app.store.audit import seals
from app.store.audit.chain import SERVICE, Head, content_of, digest, key_of, link
from app.store.db.connection import AsyncConnection
from app.store.db.database import Database
from app.store.db.schema import event, run, seal

_PAGE = 2000
_SEALS = 20
_CHUNK = 400
_NEVER = 1 << 62  # beyond every id
_RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-")
# So long after the first seal replicas of a release that makes no hashes may still have run.
_UPGRADE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was recorded."""

    chain: str
    seq: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.chain}#{self.seq}" if self.seq is not None else self.chain
        return f"{place}: {self.message}"


@dataclass
class Report:
    """The counts and findings of a verification."""

    events: int = 0
    chains: int = 0
    seals: int = 0
    unsealed: int = 0  # events that no seal covers yet
    unhashed: int = 0  # of a release without chains
    unkeyed: int = 0  # from before the key was configured
    pruned_before: datetime | None = None
    first_keyed: int = _NEVER  # id of the first event that was made with the key
    last_unkeyed: dict[str, tuple[int, int]] = field(default_factory=dict)  # by chain: id and number in it
    findings: list[Finding] = field(default_factory=list)

    @property
    def hashed(self) -> int:
        """How many events are chained."""
        return self.events - self.unhashed

    @property
    def has_other_key(self) -> bool:
        """Whether not one hash fits: then it is the key that is another one, and nothing can be said of the rest."""
        return bool(self.hashed) and not self.unkeyed and self.first_keyed == _NEVER

    @property
    def is_intact(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def found(self, chain: str, seq: int | None, message: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(chain, seq, message))


async def verify(database: Database, known_seals: Collection[str] = ()) -> Report:
    """Look at everything, page by page; `known_seals` are hashes that the log had, which must be there."""
    report = Report()
    tolerated_to = await _tolerated_to(database)
    async for chain, rows in _chains(database):
        report.chains += 1
        report.events += len(rows)
        async with database.browse() as tx:
            _check_chain(key_of(tx), chain, rows, report)
            await _check_row(tx, chain, rows, report)
        late = [row for row in rows if row.seq is None and row.id > tolerated_to]
        for row in late:
            report.found(chain, None, f"event {row.id} has no hash, long after all replicas make them")
        if chain == SERVICE:
            report.pruned_before = _pruned_before(rows)
    for chain, (last_id, seq) in report.last_unkeyed.items():
        if last_id > report.first_keyed:
            report.found(chain, seq, "was made without the key, after the key had come into use")
    await _check_runs(database, report)
    await _check_seals(database, report, set(known_seals))
    return report


async def _tolerated_to(database: Database) -> int:
    """The highest id that an event without a hash may have."""
    async with database.browse() as tx:
        first = (await seals.of_page(tx, 0, 1)) or None
        if first is None:
            return _NEVER
        later = select(func.min(seal.c.to_id)).where(seal.c.at > first[0].at + _UPGRADE)
        end: int | None = (await tx.execute(later)).scalar_one()
        return _NEVER if end is None else end


async def _chains(database: Database) -> AsyncIterator[tuple[str, list[Row[Any]]]]:
    """All chains, each whole, its events in the order of their ids."""
    last, held = ("", 0), []
    while True:
        async with database.browse() as tx:
            beyond = or_(event.c.run_id > last[0], and_(event.c.run_id == last[0], event.c.id > last[1]))
            query = select(event).where(beyond).order_by(event.c.run_id, event.c.id).limit(_PAGE)
            rows = list((await tx.execute(query)).all())
        held += rows
        groups = [(chain, list(group)) for chain, group in groupby(held, key=lambda row: str(row.run_id))]
        if len(rows) < _PAGE:
            for group in groups:
                yield group
            return
        last, held = (rows[-1].run_id, rows[-1].id), groups[-1][1]
        for group in groups[:-1]:
            yield group


def _check_chain(key: bytes, chain: str, rows: Sequence[Row[Any]], report: Report) -> None:
    end = Head()
    for row in rows:
        if row.seq is None:
            report.unhashed += 1
            continue
        if row.seq != end.seq + 1:
            what = "is missing" if row.seq > end.seq + 1 else "is there twice or out of order"
            report.found(chain, min(row.seq, end.seq + 1), what)
            end = Head(row.seq - 1, "")
        content = content_of(row)
        if row.hash == link(key, end, content):
            report.first_keyed = min(report.first_keyed, row.id)
        elif row.hash == link(b"", end, content):
            report.unkeyed += 1
            report.last_unkeyed[chain] = (row.id, row.seq)
        else:
            report.found(chain, row.seq, f"was changed: event {row.id} ({row.kind}) does not have its hash")
        end = Head(row.seq, row.hash)


async def _check_row(tx: AsyncConnection, chain: str, rows: Sequence[Row[Any]], report: Report) -> None:
    """Check that a run's row agrees with its last event; a folded run has no row."""
    if not _RUN_ID.match(chain):
        return
    # In one statement, since the run may go on, be folded or be deleted while it is looked at.
    newest = select(event.c.kind, event.c.state).where(event.c.run_id == chain).order_by(event.c.id.desc()).limit(1)
    said = newest.subquery()
    state = select(run.c.state).where(run.c.id == chain).scalar_subquery()
    last, row = rows[-1], (await tx.execute(select(said, state.label("is_in")))).one_or_none()
    if row is None:
        if not await _was_pruned_meanwhile(tx, chain):
            report.found(chain, last.seq, "its events have gone while they were looked at")
    elif row.is_in is None and row.kind != "folded":
        report.found(chain, last.seq, "its run is missing from the ledger")
    elif row.is_in is not None and row.is_in != row.state:
        report.found(chain, last.seq, f"its run is {row.is_in}, and its last event says {row.state}")


async def _was_pruned_meanwhile(tx: AsyncConnection, chain: str) -> bool:
    """Whether retention has deleted this chain since its events were read."""
    if (await tx.execute(select(event.c.id).where(event.c.run_id == chain).limit(1))).first() is not None:
        return False
    return _is_before(chain, await _newest_pruned_before(tx))


async def _newest_pruned_before(tx: AsyncConnection) -> datetime | None:
    pruned = select(event.c.kind, event.c.data).where(event.c.run_id == SERVICE, event.c.kind == "pruned")
    return _pruned_before((await tx.execute(pruned.order_by(event.c.id.desc()).limit(1))).all())


async def _check_runs(database: Database, report: Report) -> None:
    """Every run has events."""
    async with database.browse() as tx:
        bare = select(run.c.id).where(~select(event.c.id).where(event.c.run_id == run.c.id).exists())
        for run_id in (await tx.execute(bare.limit(_PAGE))).scalars():
            report.found(run_id, None, "a run without any event")


def _pruned_before(rows: Iterable[Row[Any]]) -> datetime | None:
    """Up to when records were deleted for their age, as the audit itself says."""
    ends = [datetime.fromisoformat(row.data["before"]) for row in rows if row.kind == "pruned" and "before" in row.data]
    return max((end.astimezone(UTC) for end in ends), default=None)


async def _check_seals(database: Database, report: Report, missing: set[str]) -> None:
    previous, last_id, keyed = "", 0, False
    end = seals.Cursor()
    while True:
        async with database.browse() as tx:
            rows = await seals.of_page(tx, last_id, _SEALS)
            for row in rows:
                keyed = _check_seal(key_of(tx), previous, row, report, keyed=keyed)
                await _check_leaves(tx, row, report)
                report.seals += 1
                missing.discard(row.hash)
                previous, last_id, end = row.hash, row.id, seals.end_of(row)
        if len(rows) < _SEALS:
            break
    async with database.browse() as tx:
        query = select(func.count()).select_from(event).where(seals.after(tx, end))
        report.unsealed = int((await tx.execute(query)).scalar_one())
    for known in sorted(missing):
        report.found("seal", None, f"none has the hash {known}: it is gone, or everything up to it was made anew")


def _check_seal(key: bytes, previous: str, row: Row[Any], report: Report, *, keyed: bool) -> bool:
    """Returns whether seals have been made with the key by now."""
    content: JsonObject = {name: getattr(row, name) for name in ("at", "to_id", "leaves_hash")}
    name = f"seal/{row.id}"
    made_with = key if row.hash == seals.seal_hash(key, previous, content) else None
    if made_with is None and not keyed and row.hash == seals.seal_hash(b"", previous, content):
        made_with = b""
    if made_with is None:
        report.found(name, None, "was changed, or the seal before it is missing")
        return keyed
    if row.leaves is not None and row.leaves_hash != digest(made_with, row.leaves):
        report.found(name, None, "was changed: its list of chains does not have its hash")
    return keyed or made_with == key


async def _check_leaves(tx: AsyncConnection, row: Row[Any], report: Report) -> None:
    """Every chain still has the event that was its end then."""
    leaves = row.leaves or []
    for start in range(0, len(leaves), _CHUNK):
        chunk = leaves[start : start + _CHUNK]
        query = select(event.c.run_id, event.c.seq, event.c.hash).where(
            event.c.run_id.in_([leaf[0] for leaf in chunk]), event.c.seq.in_({leaf[1] for leaf in chunk})
        )
        there = {(found.run_id, found.seq): found.hash for found in await tx.execute(query)}
        missing = [leaf for leaf in chunk if there.get((leaf[0], leaf[1])) != leaf[2]]
        before = await _newest_pruned_before(tx) if missing else None
        for chain, seq, _ in missing:
            gone = (chain, seq) not in there
            if gone and _is_before(chain, before):
                continue
            report.found(chain, seq, f"is {'gone' if gone else 'another one'}, and seal {row.id} had it")


def _is_before(chain: str, before: datetime | None) -> bool:
    return before is not None and bool(_RUN_ID.match(chain)) and chain < lowest_id(before)
