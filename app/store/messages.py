"""Messages to people, kept until they are delivered: one for one occasion, however often the occasion is noticed.

A replica that sends a message takes it by putting it off, and so no other sends it at the same time. Delivery is at
least once: who dies after sending and before saying so leaves the message to be sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, func, insert, select, update
from sqlalchemy.engine import Row

from app.domain.ids import new_id
from app.domain.redaction import redact
from app.domain.states import RunState
from app.store import events
from app.store.connection import AsyncConnection
from app.store.events import Entry, Event
from app.store.schema import event, message, run

_ASKED = "approval"
_WAITING = and_(message.c.sent_at.is_(None), message.c.given_up_at.is_(None))
COUNT_WAITING = select(func.count()).select_from(message).where(_WAITING)


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that is to be sent; `key` names its occasion."""

    key: str
    channel: str
    title: str
    body: str
    run_id: str | None = None

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


async def queue(tx: AsyncConnection, draft: Draft, now: datetime) -> bool:
    """Have a message sent once this transaction is committed; False when its occasion has had one."""
    known = (await tx.execute(select(message.c.id).where(message.c.key == draft.key))).first()
    if known is not None:
        return False
    row: dict[str, Any] = {"id": new_id(now), "key": draft.key, "run_id": draft.run_id, "channel": draft.channel}
    row |= {"title": draft.title, "body": draft.body, "created_at": now, "not_before": now, "tries": 0}
    await tx.execute(insert(message), [row])
    return True


# An index leads to the events of a run and none to its messages, of which most runs have no question.
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


def ended_key(run_id: str) -> str:
    """The occasion of a run's end."""
    return f"ended:{run_id}"


async def asked(tx: AsyncConnection, run_id: str) -> str | None:
    """The channel that was last asked about a run; None where nobody was asked."""
    row = await _question(tx, run_id)
    return None if row is None else str(row.channel)


async def answer(tx: AsyncConnection, run_id: str, notice: tuple[str, str], now: datetime, *, is_end: bool) -> None:
    """Tell the channel that was asked about a run what became of the question: title and text."""
    row = await _question(tx, run_id)
    if row is not None:
        key = ended_key(run_id) if is_end else f"answer:{row.id}"
        await queue(tx, Draft(key, row.channel, *notice, run_id), now)


async def _question(tx: AsyncConnection, run_id: str) -> Row[Any] | None:
    if (await tx.execute(_WAS_ASKED, {"run": run_id})).one_or_none() is None:
        return None
    return (await tx.execute(_QUESTION, {"run": run_id, "prefix": f"{_ASKED}:"})).one_or_none()


async def take(tx: AsyncConnection, channel: str, now: datetime, until: datetime, limit: int) -> list[Taken]:
    """Take messages of a channel that are due; until then no other replica does."""
    due = (
        select(message)
        .where(_WAITING, message.c.channel == channel, message.c.not_before <= now)
        .order_by(message.c.not_before, message.c.id)
        .limit(limit)
    )
    rows = (await tx.execute(due.with_for_update(skip_locked=True))).all()
    if rows:
        chosen = message.c.id.in_([row.id for row in rows])
        await tx.execute(update(message).where(chosen).values(not_before=until, tries=message.c.tries + 1))
    return [
        Taken(row.id, Draft(row.key, row.channel, row.title, row.body, row.run_id), row.created_at, row.tries + 1)
        for row in rows
    ]


async def next_due(tx: AsyncConnection) -> dict[str, datetime]:
    """When the next message of each channel may be sent that has any."""
    due = func.min(message.c.not_before).label("due")
    query = select(message.c.channel, due).where(_WAITING).group_by(message.c.channel)
    return {row.channel: row.due for row in await tx.execute(query)}


async def settle(tx: AsyncConnection, taken: Taken, **values: Any) -> bool:
    """Write what became of a message; False when it was taken by another replica meanwhile."""
    mine = and_(message.c.id == taken.id, message.c.tries == taken.tries, _WAITING)
    return bool((await tx.execute(update(message).where(mine).values(values))).rowcount)


async def finish(tx: AsyncConnection, taken: Taken, told: tuple[str, Entry], now: datetime, **values: Any) -> None:
    """Write how a message ended, and with it an event (kind and entry) of the run that it is about."""
    about = select(run.c.id, run.c.state).where(run.c.id == taken.draft.run_id).with_for_update()
    row = (await tx.execute(about)).one_or_none()
    if await settle(tx, taken, **values) and row is not None:
        kind, entry = told
        await events.append(tx, [Event(row.id, now, kind, row.state, entry)])
