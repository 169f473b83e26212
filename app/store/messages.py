"""Messages to people, kept until they are delivered: one for one occasion, however often the occasion is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.ids import new_id
from app.store.schema import message


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that is to be sent; `key` names its occasion."""

    key: str
    channel: str
    title: str
    body: str
    run_id: str | None = None


async def queue(tx: AsyncConnection, draft: Draft, now: datetime) -> bool:
    """Have a message sent once this transaction is committed; False when its occasion has had one."""
    known = (await tx.execute(select(message.c.id).where(message.c.key == draft.key))).first()
    if known is not None:
        return False
    row: dict[str, Any] = {"id": new_id(now), "key": draft.key, "run_id": draft.run_id, "channel": draft.channel}
    row |= {"title": draft.title, "body": draft.body, "created_at": now, "not_before": now, "tries": 0}
    await tx.execute(insert(message), [row])
    return True
