"""The changes of runs that may be taken back, the runs that do so, and changes that are still lent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import and_, bindparam, exists, func, insert, or_, select, update

from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from app.store.db.connection import AsyncConnection
from app.store.db.schema import episode, run, run_episode, step
from app.store.ledger import runs
from app.store.ledger.runs import Run

_CHUNK = 500  # ids per statement, well under SQLite's limit of variables
PERHAPS = (  # why a step failed that may have had its effect all the same
    *(Reason.DEADLINE_EXCEEDED, Reason.OUTCOME_UNKNOWN, Reason.INTERRUPTED, Reason.TARGET_UNREACHABLE),
    Reason.UNEXPECTED,
)
# Why a revert was not begun that says nothing about the target: what was borrowed is still to be given back.
_STILL_OWED = (
    *(Reason.FIRES_AGAIN, Reason.MODE_OBSERVE, Reason.UNEXPECTED, Reason.GUARD_FAILED),
    *(Reason.OUT_OF_SCOPE, Reason.FORBIDDEN, Reason.CONFIG_INVALID),
)
_BORROWS = run.c.spec["revert"].as_string() == "on_resolved"


async def applied(tx: AsyncConnection, run_id: str) -> list[PlannedStep]:
    """Return the steps of a run that changed something, or may have, the last one first.

    A step that lost its answer may have taken effect; its undoing compares with the plan, and leaves alone a change
    that was not made.
    """
    perhaps = or_(step.c.state.in_(("succeeded", "started")), step.c.reason.in_(PERHAPS))
    query = select(step.c.planned).where(step.c.run_id == run_id, perhaps)
    rows = await tx.execute(query.order_by(step.c.rung.desc(), step.c.position.desc()))
    steps = [PlannedStep.model_validate(row.planned) for row in rows]
    return [one for one in steps if one.changes]


async def keep(tx: AsyncConnection, run_id: str) -> Run | None:
    """Lock a run, so that no other transaction begins to take it back until this one ends."""
    row = (await tx.execute(select(run).where(run.c.id == run_id).with_for_update())).one_or_none()
    return None if row is None else runs.from_row(row)


async def taken_back_by(tx: AsyncConnection, undone: Run) -> tuple[str, RunState] | None:
    """The run that takes another one back or has done so, with its state; also one that covers several."""
    goes_or_went = or_(run.c.active, run.c.state == RunState.SUCCEEDED)
    about = or_(run.c.undoes == undone.id, run.c.target_key == undone.target_key)
    query = select(run.c.id, run.c.state, run.c.undoes, run.c.plan).where(
        run.c.purpose != Purpose.REMEDY, goes_or_went, about
    )
    for row in await tx.execute(query.order_by(run.c.id.desc())):
        if undone.id == row.undoes or undone.id in (row.plan or {}).get("undoes", ()):
            return row.id, RunState(row.state)
    return None


async def borrowed(tx: AsyncConnection, remediation: str, target_key: str) -> list[Run]:
    """Return the ended runs that may have lent a change on a target that is still to go back, the last one first.

    An end of a revert settles everything before it: if a person changed it meanwhile, or refused the revert, it is
    theirs. A revert that was refused before it began, for a reason that says nothing about the target, settles nothing.
    """
    here = and_(run.c.remediation == remediation, run.c.target_key == target_key)
    settles = or_(run.c.admitted_at.is_not(None), run.c.reason.not_in(_STILL_OWED))
    settled = select(func.max(run.c.finished_at)).where(
        here, run.c.purpose == Purpose.REVERT, run.c.finished_at.is_not(None), settles
    )
    since: datetime | None = (await tx.execute(settled)).scalar_one_or_none()
    undone = select(run.c.undoes).where(
        here, run.c.purpose == Purpose.UNDO, or_(run.c.active, run.c.admitted_at.is_not(None))
    )
    query = select(run).where(
        here,
        _BORROWS,
        run.c.purpose == Purpose.REMEDY,
        run.c.finished_at.is_not(None),
        run.c.admitted_at.is_not(None),
        run.c.id.not_in(undone),
    )
    if since is not None:
        query = query.where(run.c.finished_at > since)
    return [runs.from_row(row) for row in await tx.execute(query.order_by(run.c.finished_at.desc()).with_for_update())]


async def borrowers(tx: AsyncConnection, episode_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return the remediations and targets of runs that act for episodes and borrow."""
    found: dict[tuple[str, str], None] = {}
    for start in range(0, len(episode_ids), _CHUNK):
        linked = run_episode.c.episode_id.in_(episode_ids[start : start + _CHUNK])
        query = select(run.c.remediation, run.c.target_key).join(run_episode, run_episode.c.run_id == run.c.id)
        query = query.where(linked, _BORROWS, run.c.target_key.is_not(None)).distinct()
        found |= {(row.remediation, row.target_key): None for row in await tx.execute(query)}
    return list(found)


async def needed(tx: AsyncConnection, remediation: str, target_key: str, run_ids: Collection[str]) -> bool:
    """Say whether a borrowed change is still needed: by an alert, or by a run that acts on the target."""
    active = select(run.c.id).where(run.c.active, run.c.remediation == remediation, run.c.target_key == target_key)
    if (await tx.execute(active.where(run.c.purpose == Purpose.REMEDY).limit(1))).first() is not None:
        return True
    firing = (
        select(episode.c.id).join(run_episode).where(run_episode.c.run_id.in_(run_ids), episode.c.closed_at.is_(None))
    )
    return (await tx.execute(firing.limit(1))).first() is not None


async def put_off(tx: AsyncConnection, now: datetime, where: tuple[str, str], until: datetime) -> bool:
    """Let a revert that waits already wait until then; False when there is none (remediation, target)."""
    here = and_(
        run.c.active, run.c.purpose == Purpose.REVERT, run.c.remediation == where[0], run.c.target_key == where[1]
    )
    if (await tx.execute(select(run.c.id).where(here))).first() is None:
        return False
    waits = and_(here, run.c.admitted_at.is_(None), run.c.not_before > now)
    await tx.execute(update(run).where(waits).values(not_before=until, settle_until=until))
    return True


async def fires_again(tx: AsyncConnection, revert: Run) -> list[str]:
    """Return the open episodes of a revert's alerts, and of the same remediation's runs on its target."""
    same = select(episode.c.identity).join(run_episode).where(run_episode.c.run_id == revert.id)
    acting = select(run_episode.c.episode_id).join(run, run.c.id == run_episode.c.run_id)
    acting = acting.where(
        run.c.active,
        run.c.purpose == Purpose.REMEDY,
        run.c.remediation == revert.remediation.name,
        run.c.target_key == revert.target_key,
    )
    query = select(episode.c.id).where(
        episode.c.closed_at.is_(None), or_(episode.c.identity.in_(same), episode.c.id.in_(acting))
    )
    return list((await tx.execute(query)).scalars())


async def follow(tx: AsyncConnection, run_id: str, episode_ids: Collection[str]) -> None:
    """Link a run with these episodes too: their end concerns it."""
    known = select(run_episode.c.episode_id).where(run_episode.c.run_id == run_id)
    has = set((await tx.execute(known)).scalars())
    new = [{"run_id": run_id, "episode_id": one} for one in episode_ids if one not in has]
    if new:
        await tx.execute(insert(run_episode), new)


async def copy_links(tx: AsyncConnection, of: str, to: str) -> None:
    """Link a run with the episodes of another one."""
    query = select(run_episode.c.episode_id).where(run_episode.c.run_id == of)
    await follow(tx, to, list((await tx.execute(query)).scalars()))


# A due run is in work or about to be.
_WAITING = and_(
    run.c.undoes.is_not(None), run.c.active, run.c.purpose == Purpose.REVERT, run.c.not_before > bindparam("now")
)
_THEIRS = (
    exists()
    .select_from(run_episode.join(episode, episode.c.id == run_episode.c.episode_id))
    .where(run_episode.c.run_id == run.c.id, episode.c.identity.in_(bindparam("identities", expanding=True)))
)
_WAKE_FOR_ALERTS = runs.woken(select(run.c.id).where(_WAITING, _THEIRS))
_WAKE_FOR_TARGET = runs.woken(
    select(run.c.id).where(_WAITING, run.c.remediation == bindparam("name"), run.c.target_key == bindparam("key"))
)


async def wake_for_alerts(tx: AsyncConnection, now: datetime, identities: Sequence[str]) -> None:
    """Let reverts look again whose alerts fire again."""
    for start in range(0, len(identities), _CHUNK):
        await tx.execute(_WAKE_FOR_ALERTS, {"now": now, "identities": identities[start : start + _CHUNK]})


async def wake_for_target(tx: AsyncConnection, now: datetime, acting: Run, target_key: str) -> None:
    """Let reverts look again on whose target something is about to be done."""
    await tx.execute(_WAKE_FOR_TARGET, {"now": now, "name": acting.remediation.name, "key": target_key})
