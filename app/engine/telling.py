"""Tells people what they should know, through the outbox: within the transaction of what is told of."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from app.domain.reasons import Reason
from app.domain.remediation import Remediation
from app.engine.parts import Turn
from app.store import messages, runs, undos
from app.store.events import Entry
from app.store.messages import Draft

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told; `key` names the occasion, which is told of once."""

    key: str
    title: str
    body: str
    run_id: str | None = None


async def tell(turn: Turn, about: Remediation | None, notice: Notice) -> None:
    """Queue a message to the remediation's channel, or to the configured one."""
    channel = (about.channel if about is not None else None) or turn.parts.policy.channel
    if channel is None:
        log.warning("nobody is told: no channel is configured", title=notice.title)
        await _not_told(turn, notice)
        return
    draft = Draft(notice.key, channel, notice.title, notice.body, notice.run_id)
    await messages.queue(turn.tx, draft, turn.now)


async def _not_told(turn: Turn, notice: Notice) -> None:
    """Say so on the run that it is about."""
    about = None if notice.run_id is None else await undos.keep(turn.tx, notice.run_id)
    if about is not None:
        entry = Entry(f"nobody was told, no channel is configured: {notice.title}", Reason.CONFIG_INVALID)
        await runs.note(turn.tx, about, turn.now, "not_told", entry)
