"""Messages to people, kept until they are delivered: one for one occasion, however often the occasion is noticed.

A replica that sends a message takes it by putting it off, and so no other sends it at the same time. Delivery is at
least once: if a replica dies after sending and before saying so, another one sends the message again. Messages to a
channel about one run keep their order: while a question is put off, its answer waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, func, insert, select, update
from sqlalchemy.engine import Row

from app.domain.ids import new_id
from app.domain.redaction import redact
from app.domain.states import RunState
from app.domain.tones import Tone
from app.store.audit import chain
from app.store.audit.chain import Entry, Event
from app.store.db.connection import AsyncConnection
from app.store.db.schema import event, message, run

_ASKED, _WAITS = "approval", "waits"
# The states of a run in which its message is still true; another one comes with the next state.
_SO_WHILE = {
    _ASKED: frozenset({RunState.AWAITING_APPROVAL}),
    _WAITS: frozenset({RunState.PENDING, RunState.DEFERRED}),
}
_WAITING = and_(message.c.sent_at.is_(None), message.c.given_up_at.is_(None))
COUNT_WAITING = select(func.count()).select_from(message).where(_WAITING)
_PLACE = func.row_number().over(
    partition_by=(message.c.channel, message.c.run_id), order_by=(message.c.created_at, message.c.id)
)
_QUEUES = (
    select(message.c.id, message.c.channel, message.c.not_before, _PLACE.label("place")).where(_WAITING).subquery()
)
_IS_FIRST = _QUEUES.c.place == 1


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that is to be sent; `key` names its occasion."""

    key: str
    channel: str
    title: str
    body: str
    run_id: str | None = None
    tone: Tone = Tone.WARNING

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", redact(self.title))
        object.__setattr__(self, "body", redact(self.body))


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that is being sent; `tries` counts this one, and names it against later ones."""

    id: str
    draft: Draft
    created_at: datetime
    tries: int
    is_outdated: bool = False  # its run is in another state by now, or asks another question


async def queue(tx: AsyncConnection, draft: Draft, now: datetime) -> bool:
    """Have a message sent once this transaction is committed; False when its occasion has had one."""
    known = (await tx.execute(select(message.c.id).where(message.c.key == draft.key))).first()
    if known is not None:
        return False
    row: dict[str, Any] = {"id": new_id(now), "key": draft.key, "run_id": draft.run_id, "channel": draft.channel}
    row |= {"title": draft.title, "body": draft.body, "created_at": now, "not_before": now, "tries": 0}
    row["type"] = draft.tone
    await tx.execute(insert(message), [row])
    return True


# An index leads to the events of a run and none to its messages; most runs have no question.
_WAS_ASKED = (
    select(event.c.id).where(event.c.run_id == bindparam("run"), event.c.state == RunState.AWAITING_APPROVAL).limit(1)
)
_QUESTION = (
    select(message.c.id, message.c.channel)
    .where(message.c.run_id == bindparam("run"), message.c.key.startswith(bindparam("prefix")))
    .order_by(message.c.id.desc())
    .limit(1)
)


def question_key(run_id: str, epoch: int) -> str:
    """The occasion of a question about a run."""
    return f"{_ASKED}:{run_id}:{epoch}"


def waits_key(run_id: str) -> str:
    """The occasion that a run has waited for long."""
    return f"{_WAITS}:{run_id}"


def ended_key(run_id: str) -> str:
    """The occasion of a run's end."""
    return f"ended:{run_id}"


async def asked(tx: AsyncConnection, run_id: str) -> str | None:
    """Return the channel that was last asked about a run; None if the run had no question."""
    row = await _question(tx, run_id)
    return None if row is None else str(row.channel)


async def answer(tx: AsyncConnection, run_id: str, notice: tuple[str, str], now: datetime, *, is_end: bool) -> None:
    """Tell the channel that was asked about a run the end of the question: title and text."""
    row = await _question(tx, run_id)
    if row is not None:
        key = ended_key(run_id) if is_end else f"answer:{row.id}"
        await queue(tx, Draft(key, row.channel, *notice, run_id, Tone.INFO), now)


async def _question(tx: AsyncConnection, run_id: str) -> Row[Any] | None:
    if (await tx.execute(_WAS_ASKED, {"run": run_id})).one_or_none() is None:
        return None
    return (await tx.execute(_QUESTION, {"run": run_id, "prefix": f"{_ASKED}:"})).one_or_none()


async def take(tx: AsyncConnection, channel: str, now: datetime, until: datetime, limit: int) -> list[Taken]:
    """Take messages of a channel that are due, of each run the oldest one only; until then no other replica does."""
    first = select(_QUEUES.c.id).where(_IS_FIRST, _QUEUES.c.channel == channel)
    due = (
        select(message)
        .where(_WAITING, message.c.channel == channel, message.c.not_before <= now, message.c.id.in_(first))
        .order_by(message.c.not_before, message.c.id)
        .limit(limit)
    )
    rows = (await tx.execute(due.with_for_update(skip_locked=True))).all()
    if rows:
        chosen = message.c.id.in_([row.id for row in rows])
        await tx.execute(update(message).where(chosen).values(not_before=until, tries=message.c.tries + 1))
    outdated = await _outdated(tx, rows)
    return [Taken(row.id, _draft(row), row.created_at, row.tries + 1, row.id in outdated) for row in rows]


def _draft(row: Row[Any]) -> Draft:
    tone = Tone(row.type) if row.type in set(Tone) else Tone.WARNING  # another release may have queued it
    return Draft(row.key, row.channel, row.title, row.body, row.run_id, tone)


async def _outdated(tx: AsyncConnection, rows: Sequence[Row[Any]]) -> set[str]:
    """Return the messages about a run that are true no more, and the questions that a newer one replaces."""
    kinds = {row.id: row.key.partition(":")[0] for row in rows if row.run_id is not None}
    about = {row.id: row.run_id for row in rows if kinds.get(row.id) in _SO_WHILE}
    if not about:
        return set()
    found = await tx.execute(select(run.c.id, run.c.state).where(run.c.id.in_(about.values())))
    states = {row.id: row.state for row in found}
    questions = and_(_WAITING, message.c.run_id.in_(about.values()), message.c.key.startswith(f"{_ASKED}:"))
    newer = set((await tx.execute(select(message.c.run_id).where(questions, message.c.id.not_in(about)))).scalars())
    return {
        name
        for name, run_id in about.items()
        if states.get(run_id) not in _SO_WHILE[kinds[name]] or (kinds[name] == _ASKED and run_id in newer)
    }


async def next_due(tx: AsyncConnection) -> dict[str, datetime]:
    """When the next message of each channel may be sent that has any."""
    due = func.min(_QUEUES.c.not_before).label("due")
    query = select(_QUEUES.c.channel, due).where(_IS_FIRST).group_by(_QUEUES.c.channel)
    return {row.channel: row.due for row in await tx.execute(query)}


async def settle(tx: AsyncConnection, taken: Taken, **values: Any) -> bool:
    """Write the result of a message; False when another replica took it meanwhile."""
    mine = and_(message.c.id == taken.id, message.c.tries == taken.tries, _WAITING)
    return bool((await tx.execute(update(message).where(mine).values(values))).rowcount)


async def finish(tx: AsyncConnection, taken: Taken, told: tuple[str, Entry], now: datetime, **values: Any) -> None:
    """Write how a message ended, and with it an event (kind and entry) of the run that it is about."""
    about = select(run.c.id, run.c.state).where(run.c.id == taken.draft.run_id).with_for_update()
    row = (await tx.execute(about)).one_or_none()
    if await settle(tx, taken, **values) and row is not None:
        kind, entry = told
        await chain.append(tx, [Event(row.id, now, kind, row.state, entry)])
