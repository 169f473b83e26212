"""People's questions to the ledger: runs and episodes, newest first, by filters and pages; and one whole run.

Only reads. Pages are keyset pages over ids, which sort by time, so that a page costs the same wherever it is. Filters
without an index look at a bounded number of entries: a page may then hold few, and says where to go on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    exists,
    func,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.engine import Row

from app.domain.ids import lowest_id
from app.domain.states import FINAL_STATES, RunState
from app.store.db.connection import AsyncConnection
from app.store.db.dialects import has_label
from app.store.db.schema import episode, event, run, run_episode, step
from app.store.ledger import inbox
from app.store.ledger import outbox as messages

_HEAVY = {"spec", "plan", "decisions"}  # not for lists
_LOOKED_AT = 5_000  # entries, for one page
_MOST_VALUES = 12  # of one filter that an index answers
_ID_STEP = timedelta(milliseconds=1)
_ACTIVE_STATES = [state for state in RunState if state not in FINAL_STATES]
# By their states and not by `active`: an index counts them.
_UNFINISHED = select(
    *(select(func.count()).where(run.c.state == state).scalar_subquery() for state in _ACTIVE_STATES),
    inbox.COUNT_WAITING.scalar_subquery().label("notifications"),
    messages.COUNT_WAITING.scalar_subquery().label("messages"),
)
_LISTED = [column for column in run.columns if column.name not in _HEAVY]


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` entries older than the one with the id `before`."""

    limit: int
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Alerts:
    """The filter of alerts; an empty field does not restrict."""

    alertname: str | None = None
    namespace: str | None = None
    labels: Collection[tuple[str, str]] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """The filter of runs; an empty field does not restrict."""

    alerts: Alerts = field(default_factory=Alerts)
    remediations: Collection[str] = ()
    states: Collection[RunState] | None = None
    effective: bool | None = None
    target: str | None = None  # any part of the target's key


@dataclass(frozen=True, slots=True)
class EpisodeFilter:
    """The filter of episodes; an empty field does not restrict."""

    alerts: Alerts = field(default_factory=Alerts)
    open: bool | None = None
    matched: bool | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page, and the place where the next one begins; None if this one is the last."""

    rows: list[Row[Any]]
    before: str | None


@dataclass(frozen=True, slots=True)
class _Walk:
    """A way through a table from new to old; an index leads past all entries that do not meet its condition."""

    condition: ColumnElement[bool] = field(default_factory=true)
    column: ColumnElement[Any] | None = None
    values: tuple[Any, ...] = ()

    def beside(self) -> ColumnElement[bool]:
        """The condition where another walk is taken: written so that no index is tempting."""
        return self.condition if self.column is None else self.column.concat("").in_(self.values)

    def end(self, ids: ColumnElement[str], span: ColumnElement[bool]) -> ColumnElement[str | None]:
        """The id of the oldest entry that may be looked at; NULL where that is all of them."""
        ways = [self.condition] if self.column is None else [self.column == value for value in self.values]
        step = select(ids).order_by(ids.desc()).limit(1).offset(_LOOKED_AT // len(ways) - 1)
        ends = union_all(*(select(step.where(span, way).subquery()) for way in ways)).subquery()
        return select(func.max(ends.c.id)).scalar_subquery()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that the store knows of a run; rows of the tables of their names."""

    run: Row[Any]
    steps: Sequence[Row[Any]]
    episodes: Sequence[Row[Any]]
    events: Sequence[Row[Any]]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """How many runs are in each state that is not final, notifications not taken in and messages not delivered."""

    runs: dict[RunState, int]
    notifications: int
    messages: int


async def find_runs(tx: AsyncConnection, wanted: RunFilter, page: Page) -> Found:
    """Runs, newest first, without their plans."""
    alerts, conditions = wanted.alerts, list[ColumnElement[bool]]()
    given = {
        run.c.alertname: [alerts.alertname] if alerts.alertname is not None else (),
        run.c.namespace: [alerts.namespace] if alerts.namespace is not None else (),
        run.c.remediation: wanted.remediations,
        run.c.state: wanted.states if wanted.states is not None else (),
    }
    walks = [_Walk(column.in_(values), column, (*values,)) for column, values in given.items() if values]
    if wanted.states is not None and not wanted.states:
        return Found([], None)
    if wanted.effective is not None:
        conditions.append(run.c.effective.is_(wanted.effective))
    if wanted.target is not None:
        conditions.append(run.c.target_key.contains(wanted.target, autoescape=True))
    conditions += [_has_label(tx, run, name, value) for name, value in alerts.labels]
    span = _span(run, run.c.created_at, alerts, page)
    return await _page(tx, select(*_LISTED), run, (walks, conditions, span), page.limit)


async def find_episodes(tx: AsyncConnection, wanted: EpisodeFilter, page: Page) -> Found:
    """Episodes, newest first, whether a remediation matched them or not."""
    alerts, walks, conditions = wanted.alerts, list[_Walk](), list[ColumnElement[bool]]()
    if wanted.open:
        walks.append(_Walk(episode.c.closed_at.is_(None)))
    elif wanted.open is not None:
        conditions.append(episode.c.closed_at.is_not(None))
    if wanted.matched is not None:
        length = func.json_array_length if _is_sqlite(tx) else func.jsonb_array_length
        count = length(episode.c.matched)
        conditions.append(count > 0 if wanted.matched else count == 0)
    if alerts.alertname is not None:
        conditions.append(episode.c.alertname == alerts.alertname)
    if alerts.namespace is not None:
        conditions.append(episode.c.namespace == alerts.namespace)
    conditions += [_has_label(tx, episode, name, value) for name, value in alerts.labels]
    span = _span(episode, episode.c.first_seen_at, alerts, page)
    return await _page(tx, select(episode), episode, (walks, conditions, span), page.limit)


async def runs_of_episodes(tx: AsyncConnection, episode_ids: Collection[str]) -> list[Row[Any]]:
    """The runs (episode_id, id, remediation, state, reason, message) for some episodes, oldest first."""
    columns = (run_episode.c.episode_id, run.c.id, run.c.remediation, run.c.state, run.c.reason, run.c.message)
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


async def count_unfinished(tx: AsyncConnection) -> Unfinished:
    """Count the work that is left in one statement: in a storm each statement costs a scrape some milliseconds."""
    counts = (await tx.execute(_UNFINISHED)).one()
    return Unfinished(dict(zip(_ACTIVE_STATES, counts, strict=False)), counts.notifications, counts.messages)


async def _page(
    tx: AsyncConnection,
    query: Select[Any],
    table: Table,
    filters: tuple[list[_Walk], list[ColumnElement[bool]], ColumnElement[bool]],
    limit: int,
) -> Found:
    """Go along the walk that leads farthest back; compare the other filters entry by entry."""
    walks, conditions, span = filters
    walks = [walk for walk in walks if len(walk.values) <= _MOST_VALUES] or [_Walk()]
    ends = (await tx.execute(select(*(walk.end(table.c.id, span) for walk in walks)))).one()
    end, walk = min(zip(ends, walks, strict=True), key=lambda pair: pair[0] or "")
    others = [other.beside() for other in filters[0] if other is not walk]
    query = query.where(span, walk.condition, *others, *conditions)
    if end is not None:
        query = query.where(table.c.id >= end)
    rows = list((await tx.execute(query.order_by(table.c.id.desc()).limit(limit))).all())
    return Found(rows, rows[-1].id if len(rows) == limit else end)


def _span(table: Table, at: ColumnElement[Any], wanted: Alerts, page: Page) -> ColumnElement[bool]:
    """From when to when, and before which entry; ids lead there, since they sort by time."""
    conditions: list[ColumnElement[bool]] = []
    if page.before is not None:
        conditions.append(table.c.id < page.before)
    if wanted.since is not None:
        conditions += [at >= wanted.since, table.c.id >= lowest_id(wanted.since)]
    if wanted.until is not None:
        conditions += [at < wanted.until, table.c.id < lowest_id(wanted.until + _ID_STEP)]
    return and_(true(), *conditions)


def _has_label(tx: AsyncConnection, table: Table, name: str, value: str) -> ColumnElement[bool]:
    """Whether an alert has a label; of a run, whether any of the alerts that it acts for has it."""
    own = has_label(tx.dialect, table, name, value)
    if table is not run:
        return own
    linked = and_(run_episode.c.run_id == run.c.id, run_episode.c.episode_id == episode.c.id)
    return or_(own, exists().where(linked, has_label(tx.dialect, episode, name, value)))


def _is_sqlite(tx: AsyncConnection) -> bool:
    return tx.dialect.name == "sqlite"
