"""Episodes in the store: the newest of each identity, and their links to runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, exists, func, insert, or_, select, update
from sqlalchemy.engine import Row

from app.domain.episodes import Episode
from app.domain.remediation import Purpose
from app.store.db.connection import AsyncConnection
from app.store.db.schema import episode, from_microseconds, microseconds, run, run_episode

_INDEXED = 500  # characters; PostgreSQL refuses a row whose indexed text is longer than about 2,700 bytes
_CHUNK = 500  # identities per statement, well under SQLite's limit of variables


_AMONG = episode.c.identity.in_(bindparam("identities", expanding=True))
_NEWEST_IDS = select(func.max(episode.c.id)).where(_AMONG).group_by(episode.c.identity)
_NEWEST = (
    select(episode)
    .where(or_(episode.c.id.in_(_NEWEST_IDS), and_(_AMONG, episode.c.closed_at.is_(None))))
    .order_by(episode.c.id)
)


async def newest(tx: AsyncConnection, identities: Iterable[str]) -> dict[str, Episode]:
    """The newest episode of each identity that has one."""
    wanted = list(dict.fromkeys(identities))
    found: dict[str, Episode] = {}
    for start in range(0, len(wanted), _CHUNK):
        for row in await tx.execute(_NEWEST, {"identities": wanted[start : start + _CHUNK]}):
            # Clocks of replicas differ, ids with them; an open episode is the newest one with any id.
            if row.identity not in found or not found[row.identity].is_open:
                found[row.identity] = from_row(row)
    return found


@dataclass(frozen=True, slots=True)
class Opened:
    """The facts about an open episode that a look-up needs."""

    id: str
    firing: frozenset[str]
    deliveries: int


async def all_open(tx: AsyncConnection) -> list[Opened]:
    """Every open episode."""
    query = select(episode.c.id, episode.c.firing, episode.c.deliveries).where(episode.c.closed_at.is_(None))
    return [Opened(row.id, frozenset(row.firing), row.deliveries) for row in await tx.execute(query)]


async def open_among(tx: AsyncConnection, ids: Sequence[str]) -> list[Episode]:
    """Return those of the given episodes that are still open."""
    found: list[Episode] = []
    for start in range(0, len(ids), _CHUNK):
        query = select(episode).where(episode.c.id.in_(ids[start : start + _CHUNK]), episode.c.closed_at.is_(None))
        found += [from_row(row) for row in await tx.execute(query)]
    return found


_INSERT = insert(episode)
_CHANGE = (
    update(episode)
    .where(episode.c.id == bindparam("b_id"))
    .values(
        annotations=bindparam("b_annotations"),
        starts_at=bindparam("b_starts_at"),
        last_seen_at=bindparam("b_last_seen_at"),
        firing=bindparam("b_firing"),
        deliveries=bindparam("b_deliveries"),
        resolved_at=bindparam("b_resolved_at"),
        closed_at=bindparam("b_closed_at"),
        matched=bindparam("b_matched"),
    )
)


async def change(tx: AsyncConnection, changed: Sequence[Episode]) -> None:
    """Update known episodes; before new ones are written, so that a successor may open."""
    if changed:
        in_order = sorted(changed, key=lambda one: one.id)  # in which all lock them
        await tx.execute(_CHANGE, [{f"b_{key}": value for key, value in _columns(one).items()} for one in in_order])


async def create(tx: AsyncConnection, new: Sequence[Episode]) -> None:
    """Insert new episodes."""
    if new:
        rows = [
            _columns(one)
            | {
                "alertname": one.labels.get("alertname", "")[:_INDEXED],
                "namespace": one.labels.get("namespace", "")[:_INDEXED],
            }
            for one in new
        ]
        await tx.execute(_INSERT, rows)


_LINK = insert(run_episode)


async def link(tx: AsyncConnection, pairs: Sequence[tuple[str, str]]) -> None:
    """Connect runs with the episodes that they act for."""
    if pairs:
        await tx.execute(_LINK, [{"run_id": run, "episode_id": one} for run, one in pairs])


async def hand_over(tx: AsyncConnection, episode_id: str, of: str, to: str) -> None:
    """Have another run act for an episode of a run."""
    here = and_(run_episode.c.run_id == of, run_episode.c.episode_id == episode_id)
    await tx.execute(update(run_episode).where(here).values(run_id=to))


_OF_RUN = select(episode).join(run_episode).where(run_episode.c.run_id == bindparam("run")).order_by(episode.c.id)


async def of_run(tx: AsyncConnection, run_id: str) -> list[Episode]:
    """The episodes of a run, oldest first."""
    return [from_row(row) for row in await tx.execute(_OF_RUN, {"run": run_id})]


async def runs_for(tx: AsyncConnection, episode_id: str) -> dict[str, Row[Any]]:
    """The newest run (id, state, attempt) of each remediation that acts for an episode, by the remediation's name."""
    query = select(run.c.remediation, run.c.id, run.c.state, run.c.attempt).join(run_episode)
    answers = and_(run_episode.c.episode_id == episode_id, run.c.purpose == Purpose.REMEDY)
    return {row.remediation: row for row in await tx.execute(query.where(answers).order_by(run.c.id))}


_OPEN = (
    select(episode.c.id)
    .select_from(episode.join(run_episode))
    .where(run_episode.c.run_id == bindparam("run"), episode.c.closed_at.is_(None))
)
_ANY_OPEN = select(exists(_OPEN))
_KEEP_OPEN = _OPEN.limit(1).with_for_update(read=True, of=episode)
_ENDS = select(episode.c.resolved_at).join(run_episode).where(run_episode.c.run_id == bindparam("run"))


async def any_open(tx: AsyncConnection, run_id: str) -> bool:
    """Whether any episode of the run is still open."""
    return bool((await tx.execute(_ANY_OPEN, {"run": run_id})).scalar_one())


async def keep_open(tx: AsyncConnection, run_id: str) -> bool:
    """The same for a decision: a yes stays true until the transaction ends, and a resolve that comes waits for it.

    To be asked before the run's row is locked, in the order in which take-in locks the two.
    """
    return (await tx.execute(_KEEP_OPEN, {"run": run_id})).first() is not None


async def last_end(tx: AsyncConnection, run_id: str) -> datetime | None:
    """When the last of the run's episodes ended, by the alerts' own account."""
    ends = [end for (end,) in await tx.execute(_ENDS, {"run": run_id}) if end is not None]
    return max(ends, default=None)


def from_row(row: Row[Any]) -> Episode:
    """An episode from a row of its table."""
    return Episode(
        id=row.id,
        identity=row.identity,
        fingerprint=row.fingerprint,
        labels=row.labels,
        annotations=row.annotations,
        generator_url=row.generator_url,
        starts_at=row.starts_at,
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
        firing=_firing(row),
        matched=frozenset(row.matched),
        deliveries=row.deliveries,
        resolved_at=row.resolved_at,
        closed_at=row.closed_at,
        defect=row.defect,
    )


def _firing(row: Row[Any]) -> dict[str, datetime]:
    if isinstance(row.firing, list):  # written by a release that kept the fingerprints only
        return dict.fromkeys(row.firing, row.starts_at)
    return {name: from_microseconds(began) for name, began in row.firing.items()}


def _columns(one: Episode) -> dict[str, Any]:
    return {
        "id": one.id,
        "identity": one.identity,
        "fingerprint": one.fingerprint,
        "labels": one.labels,
        "annotations": one.annotations,
        "generator_url": one.generator_url,
        "starts_at": one.starts_at,
        "first_seen_at": one.first_seen_at,
        "last_seen_at": one.last_seen_at,
        "firing": {name: microseconds(one.firing[name]) for name in sorted(one.firing)},
        "matched": sorted(one.matched),
        "deliveries": one.deliveries,
        "resolved_at": one.resolved_at,
        "closed_at": one.closed_at,
        "defect": one.defect,
    }
