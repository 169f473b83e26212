"""The audit: events in chains, each of which holds the hash of the one before it.

A chain is a run, by its id, or something else that people change: `catalog/<remediation>`, `service`. The appending
transaction holds the run's row (or for other chains the lock that `append` takes), so that no two events follow the
same one; the unique (run_id, seq) refuses a fork all the same.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.engine import Row

from app.domain import former_names
from app.domain.model import JsonObject
from app.domain.reasons import Reason
from app.domain.redaction import redact, redact_all
from app.store.db.connection import AsyncConnection
from app.store.db.schema import event, microseconds

ENGINE = "remediator"  # the actor of events without a person
SERVICE = "service"  # the chain of events about the whole service


@dataclass(frozen=True, slots=True)
class Entry:
    """The content of an event beside time and place; `data` is JSON."""

    message: str = ""
    reason: Reason | None = None
    actor: str = ENGINE
    data: JsonObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", redact(self.message))
        object.__setattr__(self, "data", redact_all(self.data))


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a chain; `state` is the run's state after it, empty for other chains."""

    chain: str
    at: datetime
    kind: str
    state: str
    entry: Entry


def catalog_chain(remediation: str) -> str:
    """Return the chain for events of people and records about one remediation."""
    return f"catalog/{remediation}"


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the number and the hash of its last event; 0 and nothing where it has none."""

    seq: int = 0
    hash: str = ""


_INSERT = insert(event)
_HEAD = (
    select(event.c.seq, event.c.hash)
    .where(event.c.run_id == bindparam("chain"), event.c.seq.is_not(None))
    .order_by(event.c.seq.desc())
    .limit(1)
)


async def append(tx: AsyncConnection, new: Sequence[Event], *, are_first: bool = False) -> None:
    """Append to chains, each in the given order; `are_first`: they begin chains that no other transaction knows yet."""
    heads: dict[str, Head] = {}
    rows = []
    for one in new:
        if one.chain not in heads:
            heads[one.chain] = Head() if are_first else await head(tx, one.chain)
        last = heads[one.chain]
        values = _columns(one)
        digest = link(key_of(tx), last, _content(values))
        heads[one.chain] = Head(last.seq + 1, digest)
        rows.append(values | {"seq": last.seq + 1, "hash": digest})
    if rows:
        await tx.execute(_INSERT, rows)


async def head(tx: AsyncConnection, chain: str) -> Head:
    """The end of a chain, which stays that until the transaction ends."""
    if "/" in chain or chain == SERVICE:
        await _lock(tx, chain)
    row = (await tx.execute(_HEAD, {"chain": chain})).one_or_none()
    return Head() if row is None else Head(row.seq, row.hash)


async def _lock(tx: AsyncConnection, chain: str) -> None:
    """Chains that are no run's have no row that could be locked."""
    if tx.dialect.name == "postgresql":
        key = zlib.crc32(f"chain {chain}".encode())
        await tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def key_of(tx: AsyncConnection) -> bytes:
    """The key that the database was opened with; empty where there is none."""
    key: bytes = tx.info.get("audit_key", b"")
    return key


def link(key: bytes, last: Head, content: JsonObject) -> str:
    """Compute the hash of the event after `last`: hexadecimal SHA-256, or HMAC-SHA-256 where there is a key.

    Without the key, write access to the database is not enough to make one.
    """
    return digest(key, [last.hash, last.seq + 1, content])


def digest(key: bytes, value: object) -> str:
    """The hash of a JSON value, the same however a database writes it."""
    canonical = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    data = canonical.encode("utf-8", "surrogatepass")
    return hmac.new(key, data, hashlib.sha256).hexdigest() if key else hashlib.sha256(data).hexdigest()


def _plain(value: object) -> object:
    """PostgreSQL gives 1e22 back as a whole number."""
    if type(value) is str:  # most of the time is here and in the questions below
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _columns(one: Event) -> dict[str, Any]:
    entry = one.entry
    return {
        "run_id": one.chain,
        "at": one.at,
        "kind": one.kind,
        "state": one.state,
        "reason": entry.reason,
        "message": entry.message,
        "actor": entry.actor,
        "data": entry.data,
    }


def content_of(row: Row[Any]) -> JsonObject:
    """Return the content that the hash of a stored event covers."""
    return _content({name: getattr(row, name) for name in _HASHED})


_HASHED = ("run_id", "at", "kind", "state", "reason", "message", "actor", "data")


def _content(values: Mapping[str, Any]) -> JsonObject:
    stored = {"at": microseconds(values["at"]), "reason": former_names.stored_reason(values["reason"])}
    return {name: values[name] for name in _HASHED} | stored
