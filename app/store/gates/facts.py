"""The facts for guards, read (and the place in limits taken) in one transaction.

Mostly there is nothing in a run's way. `glance` says so in one statement, from indexes; its findings are then read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)

from app.domain.durations import Rate
from app.domain.ids import lowest_id
from app.domain.obstacles import TargetHolder
from app.domain.remediation import Purpose, Risk
from app.store.db.connection import AsyncConnection
from app.store.db.dialects import led_by
from app.store.db.schema import REFUSED_BY_PEOPLE, Timestamp, breaker, episode, hold, run, run_episode, storm


@dataclass(frozen=True, slots=True)
class FactsQuery:
    """The subject of a glance: a run, and the rates that it may run into."""

    now: datetime
    run_id: str
    remediation: str
    target_key: str | None
    rate: tuple[Rate, ...]
    global_rate: tuple[Rate, ...]
    target_rate: tuple[Rate, ...]
    storm: tuple[Rate, ...]
    global_storm: tuple[Rate, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """The amount of work, and possible obstacles: False is sure, True is worth a look."""

    runs_in_work: int
    targets_in_work: int
    holds: bool
    breaker: bool
    storms: bool
    rate: bool
    global_rate: bool
    target_rate: bool
    storm: bool
    global_storm: bool
    last_outcome: bool
    holder: bool


async def probe(tx: AsyncConnection, asked: FactsQuery) -> Probe:
    """Where to look."""
    windows: dict[str, tuple[Rate, ...]] = {name: getattr(asked, name) for name in _WINDOWS}
    values: dict[str, Any] = {"now": asked.now, "but": asked.run_id, "name": asked.remediation, "key": asked.target_key}
    for name, rates in windows.items():
        for number, rate in enumerate(rates):
            since = asked.now - rate.window
            is_storm = name in {"storm", "global_storm"}  # more than the rate allows; a rate is full at its count
            values[f"{name}_{number}_since"] = lowest_id(since) if is_storm else since
            values[f"{name}_{number}_count"] = rate.count - (not is_storm)
    statement = _glance(tuple(len(rates) for rates in windows.values()), has_target=asked.target_key is not None)
    return Probe(*(await tx.execute(statement, values)).one())


_WINDOWS = ("rate", "global_rate", "target_rate", "storm", "global_storm")


@cache
def _glance(windows: tuple[int, ...], *, has_target: bool) -> Select[Any]:
    """One row with the fields of Glance; so many windows of each rate."""
    now: BindParameter[datetime] = bindparam("now", type_=Timestamp)
    name: BindParameter[str] = bindparam("name")
    key: BindParameter[str] = bindparam("key")
    own = func.coalesce(func.sum(case((run.c.remediation == name, 1), else_=0)), 0)
    held = select(func.count().label("all"), own.label("own")).where(run.c.holds_target, run.c.id != bindparam("but"))
    in_work = held.subquery("in_work")
    admissions: dict[str, ColumnElement[bool] | None] = {
        "rate": run.c.remediation == name,
        "global_rate": None,
        "target_rate": run.c.target_key == key,
    }
    full = []
    for kind, count in zip(_WINDOWS, windows, strict=True):
        found = [_reached(f"{kind}_{number}", kind, admissions.get(kind)) for number in range(count)]
        full.append(or_(false(), *found))
    on_target = (
        or_(*(ended.exists() for ended in _ended(key, literal(1)))),
        exists().where(run.c.target_key == key, run.c.holds_target),
    )
    return select(
        in_work.c.all,
        in_work.c.own,
        exists().where(hold.c.ended_at.is_(None)),
        exists().where(breaker.c.remediation == name),
        exists().where(storm.c.remediation.in_(("", name)), storm.c.until > now),
        *full,
        *(on_target if has_target else (false(), false())),
    )


def _reached(prefix: str, kind: str, among: ColumnElement[bool] | None) -> ColumnElement[bool]:
    """Whether there are so many at all, by an index alone."""
    if kind in {"storm", "global_storm"}:
        query = select(literal(1)).select_from(episode).where(episode.c.id >= bindparam(f"{prefix}_since"))
    else:
        query = select(literal(1)).select_from(run).where(run.c.admitted_at > bindparam(f"{prefix}_since"))
    if among is not None:
        query = query.where(among)
    return exists(query.limit(1).offset(bindparam(f"{prefix}_count")))


async def last_outcome(tx: AsyncConnection, target_key: str, but: str) -> tuple[datetime, str] | None:
    """When the last run ended that acted on the target or that people refused, and which it was."""
    newest = []
    for ended in _ended(literal(target_key), run.c.finished_at, run.c.id):
        query = ended.where(run.c.id != but).order_by(run.c.finished_at.desc()).limit(1)
        newest.append(select(query.subquery()))
    found = union_all(*newest).subquery()
    row = (await tx.execute(select(found).order_by(found.c.finished_at.desc()).limit(1))).one_or_none()
    return None if row is None else (row.finished_at, row.id)


def _ended(key: ColumnElement[str], *columns: ColumnElement[Any]) -> tuple[Select[Any], Select[Any]]:
    """The runs that begin a cooldown on a target: runs that acted, and runs that people refused.

    If people said no, or nothing, a new question at once would only teach them to say yes without looking.
    """
    here = select(*columns).where(run.c.target_key == key, run.c.finished_at.is_not(None))
    acted = here.where(run.c.admitted_at.is_not(None))
    refused = here.where(literal_column(f"({REFUSED_BY_PEOPLE})", Boolean))
    return led_by(acted, run, "ix_run_target_acted"), led_by(refused, run, "ix_run_target_answered")


async def rate_free_at(
    tx: AsyncConnection, rates: Sequence[Rate], now: datetime, *among: ColumnElement[bool]
) -> tuple[Rate, datetime] | None:
    """The first rate whose window is full, with the time when it has room again; None when all have room.

    Counted are admissions that answered an alert, `among` the runs for which these conditions hold.
    """
    for rate in rates:
        query = select(run.c.admitted_at).where(
            run.c.admitted_at > now - rate.window, run.c.purpose == Purpose.REMEDY, *among
        )
        # The count-th newest admission is the one that must leave the window.
        query = query.order_by(run.c.admitted_at.desc()).offset(rate.count - 1).limit(1)
        oldest: datetime | None = (await tx.execute(query)).scalar_one_or_none()
        if oldest is not None:
            return rate, oldest + rate.window + timedelta(milliseconds=1)
    return None


def of_remediation(name: str) -> ColumnElement[bool]:
    """Runs of one remediation."""
    return run.c.remediation == name


def on_target(target_key: str) -> ColumnElement[bool]:
    """Runs on one target."""
    return run.c.target_key == target_key


async def holder(tx: AsyncConnection, target_key: str, but: str) -> TargetHolder | None:
    """The run that works on the target now, or None."""
    query = select(run.c.id, run.c.remediation, run.c.plan).where(
        run.c.target_key == target_key, run.c.holds_target, run.c.id != but
    )
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    risks = [Risk(step["risk"]) for step in (row.plan or {}).get("steps", ())]
    return TargetHolder(row.id, row.remediation, max(risks, key=lambda risk: risk.rank, default=Risk.LOW))


async def held_targets(tx: AsyncConnection, but: str) -> frozenset[str]:
    """The keys of all targets that other runs work on now."""
    query = select(run.c.target_key).where(run.c.holds_target, run.c.id != but)
    return frozenset((await tx.execute(query)).scalars())


async def rate_exceeded(
    tx: AsyncConnection, rates: Sequence[Rate], now: datetime, remediation: str | None = None
) -> Rate | None:
    """Return the first rate that newly firing alerts exceed: alerts of one remediation, or of any (None)."""
    for rate in rates:
        since = now - rate.window
        triggered = and_(run_episode.c.episode_id == episode.c.id, run_episode.c.run_id == run.c.id)
        if remediation is not None:
            triggered = and_(triggered, run.c.remediation == remediation)
        fresh = and_(episode.c.id >= lowest_id(since), episode.c.first_seen_at > since)
        query = select(episode.c.id).where(fresh, exists().where(triggered))
        # Only whether there is one alert more than the rate allows is asked, not how many there are.
        if (await tx.execute(query.offset(rate.count).limit(1))).first() is not None:
            return rate
    return None
