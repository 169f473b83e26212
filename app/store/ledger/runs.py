"""The run ledger: one row per run, one event per change of it, in the same transaction.

Every write of a worker is fenced by its lease: a worker that lost it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import Select, Update, and_, bindparam, delete, insert, select, update
from sqlalchemy.engine import Row

from app.domain import former_names
from app.domain.decisions import Verdict
from app.domain.episodes import Episode
from app.domain.errors import ConflictError, LeaseLostError, UnreadableError
from app.domain.model import JsonObject, Value
from app.domain.plans import Plan
from app.domain.reasons import Reason
from app.domain.remediation import Purpose, Remediation
from app.domain.states import RunState, may_become
from app.store.audit import chain
from app.store.audit.chain import Entry, Event
from app.store.db.connection import AsyncConnection
from app.store.db.schema import event, run, run_episode

_CHUNK = 500  # ids per statement, well under SQLite's limit of variables
_INDEXED = 500  # characters; PostgreSQL refuses a row whose indexed text is longer than about 2,700 bytes
_MOST_SHARING = 10  # runs on one target that are asked whether they answer another alert, too
_PURPOSE = "purpose"  # in the stored specification of a run that takes another one back
_WAITS = {RunState.PENDING, RunState.DEFERRED}
_FREE = {"lease_owner": None, "lease_until": None}
_UNHINDERED = {"tell_at": None, "unreachable_since": None}


class LastFailure(Value):
    """Why a rung did not help."""

    reason: Reason | None
    message: str


@dataclass(frozen=True, slots=True)
class Run:
    """One row of the ledger."""

    id: str
    remediation: Remediation
    digest: str
    state: RunState
    reason: Reason | None
    message: str
    attempt: int
    rung: int
    labels: dict[str, str]
    annotations: dict[str, str]
    fingerprint: str
    generator_url: str
    alert_starts_at: datetime
    received_at: datetime
    plan: Plan | None
    target_key: str | None
    holds_target: bool
    setback: LastFailure | None
    approved_by: str | None
    created_at: datetime
    updated_at: datetime
    not_before: datetime
    admitted_at: datetime | None
    started_at: datetime | None
    settle_until: datetime | None
    lease_owner: str | None
    lease_epoch: int
    purpose: Purpose = Purpose.REMEDY
    undoes: str | None = None  # the run whose steps this one takes back
    tell_at: datetime | None = None  # when people are told that it waits
    unreachable_since: datetime | None = None  # when planning its rung first failed because nothing answered


def from_row(row: Row[Any]) -> Run:
    """Make a run from a row of its table; raises UnreadableError where another release has written an unknown value."""
    try:
        return _from_row(row)
    except ValueError as error:
        raise UnreadableError from error


def _from_row(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        remediation=_remediation(to_json(row.spec)),
        digest=row.digest,
        state=RunState(row.state),
        reason=Reason(row.reason) if row.reason else None,
        message=row.message,
        attempt=row.attempt,
        rung=row.rung,
        labels=row.labels,
        annotations=row.annotations,
        fingerprint=row.fingerprint,
        generator_url=row.generator_url,
        alert_starts_at=row.alert_starts_at,
        received_at=row.received_at,
        plan=Plan.model_validate(row.plan) if row.plan else None,
        target_key=row.target_key,
        holds_target=row.holds_target,
        setback=LastFailure.model_validate(row.setback) if row.setback else None,
        approved_by=row.approved_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        not_before=row.not_before,
        admitted_at=row.admitted_at,
        started_at=row.started_at,
        settle_until=row.settle_until,
        lease_owner=row.lease_owner,
        lease_epoch=row.lease_epoch,
        purpose=Purpose(row.purpose),
        undoes=row.undoes,
        tell_at=row.tell_at,
        unreachable_since=row.unreachable_since,
    )


_INSERT = insert(run)


@lru_cache(maxsize=1024)
def _remediation(spec: bytes) -> Remediation:
    """Runs of one remediation share it: it is read from the store far more often than it changes."""
    given = former_names.specification(from_json(spec))
    return Remediation.model_validate({key: value for key, value in given.items() if key != _PURPOSE})


async def create(tx: AsyncConnection, new: Sequence[Run], lease_until: datetime | None = None) -> None:
    """Record pending runs, each with its first event; runs with an owner are leased until then."""
    if not new:
        return
    leases = ({"lease_until": lease_until if one.lease_owner is not None else None} for one in new)
    await tx.execute(_INSERT, [_first_columns(one) | lease for one, lease in zip(new, leases, strict=True)])
    await chain.append(tx, [_recorded(one) for one in new], are_first=True)


def _recorded(one: Run) -> Event:
    entry = Entry(one.message, data={"catalog": one.digest, "attempt": one.attempt})
    return Event(one.id, one.created_at, "recorded", one.state, entry)


def _first_columns(one: Run) -> dict[str, Any]:
    return {
        "id": one.id,
        "remediation": one.remediation.name,
        "spec": _stored_spec(one),
        "digest": one.digest,
        "state": one.state,
        "reason": one.reason,
        "message": one.message,
        "active": True,
        "attempt": one.attempt,
        "rung": one.rung,
        "labels": one.labels,
        "annotations": one.annotations,
        "alertname": one.labels.get("alertname", "")[:_INDEXED],
        "namespace": one.labels.get("namespace", "")[:_INDEXED],
        "fingerprint": one.fingerprint,
        "generator_url": one.generator_url,
        "alert_starts_at": one.alert_starts_at,
        "received_at": one.received_at,
        "target_key": one.target_key,
        "holds_target": one.holds_target,
        "decisions": [],
        "created_at": one.created_at,
        "updated_at": one.created_at,
        "not_before": one.not_before,
        "settle_until": one.settle_until,
        "lease_owner": one.lease_owner,
        "lease_epoch": one.lease_epoch,
        "purpose": one.purpose,
        "undoes": one.undoes,
    }


def _stored_spec(one: Run) -> JsonObject:
    """Mark a run that takes another one back: an older release cannot read it, and so does not apply it."""
    return one.remediation.stored | ({} if one.purpose is Purpose.REMEDY else {_PURPOSE: one.purpose.value})


async def get(tx: AsyncConnection, run_id: str) -> Run | None:
    """One run, or None."""
    row = (await tx.execute(select(run).where(run.c.id == run_id))).one_or_none()
    return None if row is None else from_row(row)


async def postpone(tx: AsyncConnection, held: Run, until: datetime, **answers: Any) -> Run:
    """Look at a run again later, without an event: nothing about it changed. Gives the lease back."""
    await fenced(tx, held, {"not_before": until, **_FREE, **answers})
    return replace(held, not_before=until, lease_owner=None)


async def move(tx: AsyncConnection, held: Run, state: RunState, now: datetime, entry: Entry, **changes: Any) -> Run:
    """Change a run's state under its lease, with the event that says why; raises LeaseLostError.

    The lease is given back with it when the run has ended or is put off.
    """
    if state is not held.state and not may_become(held.state, state):
        raise ConflictError(f"a run cannot go from {held.state} to {state}")
    if state not in _WAITS:  # it goes on, or has ended: nothing holds it up any longer
        changes = _UNHINDERED | changes
    columns = {
        key: value.model_dump(mode="json") if isinstance(value, Value) else value for key, value in changes.items()
    }
    if state.is_final:
        columns |= ended_columns(now)
    parked = state.is_final or ("not_before" in changes and changes["not_before"] > now)
    if parked:
        columns |= _FREE
    values = {"state": state, "reason": entry.reason, "message": entry.message, "updated_at": now}
    await fenced(tx, held, values | columns)
    known = {key: value for key, value in changes.items() if key in Run.__dataclass_fields__}
    if parked:
        known["lease_owner"] = None
    moved = replace(held, state=state, reason=entry.reason, message=entry.message, updated_at=now, **known)
    await note(tx, moved, now, state, entry)
    return moved


def ended_columns(now: datetime) -> dict[str, Any]:
    """Return the columns that are the same for every ended run."""
    return {"active": False, "holds_target": False, "finished_at": now, **_FREE, **_UNHINDERED}


async def fenced(tx: AsyncConnection, held: Run, values: Mapping[str, Any]) -> None:
    """Change these columns of a run; raises LeaseLostError, and has changed nothing, unless it is as we know it."""
    given = {f"new_{name}": value for name, value in values.items()}
    given |= {"held_id": held.id, "held_epoch": held.lease_epoch, "held_owner": held.lease_owner}
    given["held_state"] = held.state
    result = await tx.execute(_fenced(tuple(sorted(values))), given)
    if result.rowcount != 1:
        raise LeaseLostError


@cache
def _fenced(names: tuple[str, ...]) -> Update:
    held = and_(run.c.id == bindparam("held_id"), run.c.lease_epoch == bindparam("held_epoch"))
    # A commit that did not wait for the disk may be lost with the database's server, and with it this state.
    held = and_(held, run.c.state == bindparam("held_state"))
    # Also of a run without an owner, such as one that waits for a person's answer.
    owned = run.c.lease_owner.is_not_distinct_from(bindparam("held_owner"))
    return update(run).where(held, owned).values({name: bindparam(f"new_{name}") for name in names})


async def respecify(tx: AsyncConnection, held: Run, remediation: Remediation, digest: str, now: datetime) -> Run:
    """Give a run that has not begun the present form of the remediation; any approval is void by that."""
    changed = remediation != held.remediation
    approved_by = None if changed else held.approved_by
    rung, setback = (0, None) if changed else (held.rung, held.setback)  # it begins from the first rung that it has now
    values = {"spec": remediation.stored, "digest": digest, "approved_by": approved_by, "rung": rung}
    values |= {"setback": None, "unreachable_since": None} if changed else {}
    await fenced(tx, held, values)
    if changed:
        message = "the remediation has changed since; it is decided as it is now"
        await note(tx, held, now, "respecified", Entry(message, data={"catalog": digest}))
    since = None if changed else held.unreachable_since
    known = replace(held, remediation=remediation, digest=digest, approved_by=approved_by, rung=rung, setback=setback)
    return replace(known, unreachable_since=since)


async def speak_for(tx: AsyncConnection, held: Run, one: Episode, now: datetime) -> Run:
    """Make a run that has not begun answer this alert out of its alerts."""
    alert: dict[str, Any] = {
        "labels": one.labels,
        "annotations": one.annotations,
        "fingerprint": one.fingerprint,
        "generator_url": one.generator_url,
        "alert_starts_at": one.starts_at,
    }
    shown = {name: one.labels.get(name, "")[:_INDEXED] for name in ("alertname", "namespace")}
    await fenced(tx, held, alert | shown)
    message = f"it goes on for the alert {one.fingerprint}, since the one before it is over or too old"
    await note(tx, held, now, "speaks_for", Entry(message, data={"fingerprint": one.fingerprint}))
    return replace(held, **alert)


async def check_lease(tx: AsyncConnection, held: Run) -> None:
    """Raise LeaseLostError unless the run is still held; keeps the row locked until the transaction ends."""
    await fenced(tx, held, {"lease_epoch": held.lease_epoch})


async def note(tx: AsyncConnection, of: Run, now: datetime, kind: str, entry: Entry) -> None:
    """Append to a run's events."""
    await chain.append(tx, [Event(of.id, now, kind, of.state, entry)])


def woken(ids: Select[tuple[str]]) -> Update:
    """Have these runs looked at at `now`.

    A transaction that holds the row of one decides on it already, and may wait for a row of ours: it is left out.
    """
    return update(run).where(run.c.id.in_(ids.with_for_update(skip_locked=True))).values(not_before=bindparam("now"))


async def would_have_acted(tx: AsyncConnection, run_id: str) -> bool:
    """Whether nothing but its mode kept a run from acting, by the guards' latest answers."""
    decisions = (await tx.execute(select(run.c.decisions).where(run.c.id == run_id))).scalar_one()
    harmless = {Verdict.ALLOW, Verdict.OBSERVE, Verdict.NEEDS_APPROVAL}
    return bool(decisions) and all(decision["verdict"] in harmless for decision in decisions)


_ON_TARGET = (
    select(run)
    .where(
        run.c.active,
        run.c.purpose == Purpose.REMEDY,
        run.c.target_key == bindparam("key"),
        run.c.finished_at.is_(None),  # says no more than `active`, and leads to the index
        run.c.remediation == bindparam("name"),
        run.c.id != bindparam("but"),
    )
    .order_by(run.c.created_at, run.c.id)  # by the id alone it would be looked for among all runs of the remediation
    .limit(_MOST_SHARING)
)
_STILL_ACTIVE = select(run).where(run.c.id == bindparam("id"), run.c.active).with_for_update()


async def sharing(
    tx: AsyncConnection, candidate: Run, target_key: str, answers: Callable[[Run], bool] = lambda _: True
) -> Run | None:
    """An active run of the same remediation on the same target that answers; active for this transaction."""
    asked = {"key": target_key, "name": candidate.remediation.name, "but": candidate.id}
    for row in (await tx.execute(_ON_TARGET, asked)).all():
        if not _answers(row, answers):
            continue
        kept = (await tx.execute(_STILL_ACTIVE, {"id": row.id})).one_or_none()
        if kept is not None and _answers(kept, answers):  # it may have gone on, or ended, meanwhile
            return from_row(kept)
    return None


def _answers(row: Row[Any], answers: Callable[[Run], bool]) -> bool:
    try:
        return answers(from_row(row))
    except UnreadableError:  # another release knows whether it does
        return False


async def fold(tx: AsyncConnection, folded: Run, into: Run, now: datetime) -> None:
    """Let `into` act for the episodes of a pending run too; the pending run's row goes, its events stay."""
    await check_lease(tx, folded)
    moved = select(run_episode.c.episode_id).where(run_episode.c.run_id == folded.id)
    kept = select(run_episode.c.episode_id).where(run_episode.c.run_id == into.id)
    episodes = [row.episode_id for row in await tx.execute(moved.where(run_episode.c.episode_id.not_in(kept)))]
    if episodes:
        await tx.execute(insert(run_episode), [{"run_id": into.id, "episode_id": one} for one in episodes])
    await tx.execute(delete(run_episode).where(run_episode.c.run_id == folded.id))
    await tx.execute(delete(run).where(run.c.id == folded.id))
    message = f"joined run {into.id}: same remediation, same target, same steps"
    await note(tx, folded, now, "folded", Entry(message, data={"run": into.id}))
    message = f"another alert ({folded.labels.get('alertname') or folded.fingerprint}) shares this run"
    await note(tx, into, now, "joined", Entry(message, data={"labels": folded.labels, "run": folded.id}))


async def folded_into(tx: AsyncConnection, run_id: str) -> str | None:
    """The run that a folded one went into, or None."""
    query = select(event.c.data).where(event.c.run_id == run_id, event.c.kind == "folded")
    data = (await tx.execute(query)).scalar_one_or_none()
    return None if data is None else str(data["run"])
