"""Tells people what they should know, through the outbox: within the transaction of what is told of."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from app.domain.remediation import Remediation
from app.engine.parts import Turn
from app.store import messages
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
        return
    draft = Draft(notice.key, channel, notice.title, notice.body, notice.run_id)
    await messages.queue(turn.tx, draft, turn.now)
