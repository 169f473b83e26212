"""What people ask the ledger: runs and episodes, newest first, by filters and pages; and one run with all of it.

Only reads. Pages are keyset pages over ids, which sort by time, so that a page costs the same wherever it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, Table, Text, and_, exists, func, or_, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.ids import lowest_id
from app.domain.states import RunState
from app.store.schema import episode, event, run, run_episode, step

_HEAVY = {"spec", "plan", "decisions"}  # not for lists
_LISTED = [column for column in run.columns if column.name not in _HEAVY]


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` entries older than the one with the id `before`."""

    limit: int
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Alerts:
    """Which alerts; what is left empty does not restrict."""

    alertname: str | None = None
    namespace: str | None = None
    labels: Collection[tuple[str, str]] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs; what is left empty does not restrict."""

    alerts: Alerts = field(default_factory=Alerts)
    remediations: Collection[str] = ()
    states: Collection[RunState] | None = None
    effective: bool | None = None
    target: str | None = None  # any part of the target's key


@dataclass(frozen=True, slots=True)
class EpisodeFilter:
    """Which episodes; what is left empty does not restrict."""

    alerts: Alerts = field(default_factory=Alerts)
    open: bool | None = None
    matched: bool | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that the store knows of a run; rows of the tables of their names."""

    run: Row[Any]
    steps: Sequence[Row[Any]]
    episodes: Sequence[Row[Any]]
    events: Sequence[Row[Any]]


async def find_runs(tx: AsyncConnection, wanted: RunFilter, page: Page) -> list[Row[Any]]:
    """Runs, newest first, without their plans."""
    query = _page(select(*_LISTED), run, page)
    query = query.where(*_of_alerts(tx, run, run.c.created_at, wanted.alerts))
    if wanted.remediations:
        query = query.where(run.c.remediation.in_(wanted.remediations))
    if wanted.states is not None:
        query = query.where(run.c.state.in_(wanted.states))
    if wanted.effective is not None:
        query = query.where(run.c.effective.is_(wanted.effective))
    if wanted.target is not None:
        query = query.where(run.c.target_key.contains(wanted.target, autoescape=True))
    return list((await tx.execute(query)).all())


async def find_episodes(tx: AsyncConnection, wanted: EpisodeFilter, page: Page) -> list[Row[Any]]:
    """Episodes, newest first, whether a remediation matched them or not."""
    query = _page(select(episode), episode, page)
    query = query.where(*_of_alerts(tx, episode, episode.c.first_seen_at, wanted.alerts))
    if wanted.open is not None:
        ended = episode.c.closed_at
        query = query.where(ended.is_(None) if wanted.open else ended.is_not(None))
    if wanted.matched is not None:
        length = func.json_array_length if _is_sqlite(tx) else func.jsonb_array_length
        count = length(episode.c.matched)
        query = query.where(count > 0 if wanted.matched else count == 0)
    return list((await tx.execute(query)).all())


async def runs_of_episodes(tx: AsyncConnection, episode_ids: Collection[str]) -> list[Row[Any]]:
    """The runs (episode_id, id, remediation, state) for some episodes, oldest first."""
    columns = (run_episode.c.episode_id, run.c.id, run.c.remediation, run.c.state)
    query: Select[Any] = select(*columns).join(run, run.c.id == run_episode.c.run_id)
    query = query.where(run_episode.c.episode_id.in_(episode_ids)).order_by(run.c.id)
    return list((await tx.execute(query)).all())


async def read_run(tx: AsyncConnection, run_id: str) -> RunRecord | None:
    """One run with all of it, or None."""
    row = (await tx.execute(select(run).where(run.c.id == run_id))).one_or_none()
    if row is None:
        return None
    steps = select(step).where(step.c.run_id == run_id).order_by(step.c.rung, step.c.position)
    linked = select(episode).join(run_episode).where(run_episode.c.run_id == run_id).order_by(episode.c.id)
    return RunRecord(
        run=row,
        steps=(await tx.execute(steps)).all(),
        episodes=(await tx.execute(linked)).all(),
        events=await events(tx, run_id),
    )


async def events(tx: AsyncConnection, run_id: str) -> Sequence[Row[Any]]:
    """The events of a run, oldest first; a run that was folded into another one keeps its own."""
    return (await tx.execute(select(event).where(event.c.run_id == run_id).order_by(event.c.id))).all()


async def count_active(tx: AsyncConnection) -> dict[RunState, int]:
    """How many runs are in each state that is not final."""
    query = select(run.c.state, func.count()).where(run.c.active).group_by(run.c.state)
    return {RunState(state): count for state, count in await tx.execute(query)}


def _page(query: Select[Any], table: Table, page: Page) -> Select[Any]:
    if page.before is not None:
        query = query.where(table.c.id < page.before)
    return query.order_by(table.c.id.desc()).limit(page.limit)


def _of_alerts(tx: AsyncConnection, table: Table, at: ColumnElement[Any], wanted: Alerts) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.alertname is not None:
        conditions.append(table.c.alertname == wanted.alertname)
    if wanted.namespace is not None:
        conditions.append(table.c.namespace == wanted.namespace)
    if wanted.since is not None:
        conditions += [at >= wanted.since, table.c.id >= lowest_id(wanted.since)]
    if wanted.until is not None:
        conditions.append(at < wanted.until)
    conditions += [_has_label(tx, table, name, value) for name, value in wanted.labels]
    return conditions


def _has_label(tx: AsyncConnection, table: Table, name: str, value: str) -> ColumnElement[bool]:
    """Whether an alert has a label; of a run, whether any of the alerts that it acts for has it."""
    own = _pair_in(tx, table, name, value)
    if table is not run:
        return own
    linked = and_(run_episode.c.run_id == run.c.id, run_episode.c.episode_id == episode.c.id)
    return or_(own, exists().where(linked, _pair_in(tx, episode, name, value)))


def _pair_in(tx: AsyncConnection, table: FromClause, name: str, value: str) -> ColumnElement[bool]:
    # Label names may hold any character, which the databases' path expressions for JSON cannot spell.
    each = func.json_each if _is_sqlite(tx) else func.jsonb_each_text
    pairs = each(table.c.labels).table_valued("key", "value")
    return exists().select_from(pairs).where(func.cast(pairs.c.key, Text) == name, pairs.c.value == value)


def _is_sqlite(tx: AsyncConnection) -> bool:
    return tx.dialect.name == "sqlite"
