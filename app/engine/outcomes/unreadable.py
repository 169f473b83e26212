"""The consequences for a run that no release here can read: the same as for any end, by the present catalog."""

from __future__ import annotations

from app.domain.remediation import Purpose
from app.domain.tones import Tone
from app.domain.wording import on_target
from app.engine.context import Turn
from app.engine.outcomes.effectiveness import tell_breaker
from app.engine.outcomes.notices import channel_of
from app.engine.outcomes.undo import give_back_to
from app.store.gates import breakers
from app.store.ledger import outbox
from app.store.ledger.leases import Lost
from app.store.ledger.outbox import Draft


async def follow(turn: Turn, lost: Lost) -> None:
    """Let breaker, borrowed targets, metrics and people know of it, in the turn that ended it."""
    remediation = turn.parts.catalog().get(lost.remediation)
    if lost.purpose == Purpose.REMEDY:
        turn.parts.metrics.runs.labels(lost.remediation, "failed").inc()
        if lost.acted and remediation is not None:
            await tell_breaker(turn, remediation, lost.run_id, helped=False)
        else:
            await breakers.give_trial_back(turn.tx, lost.remediation, lost.run_id)
        if not lost.firing and lost.target_key is not None:
            await give_back_to(turn.tx, turn.now, lost.remediation, lost.target_key)
    channel = await outbox.asked(turn.tx, lost.run_id) or channel_of(turn, remediation)
    if channel is None:
        return
    did = "Its steps show its changes." if lost.acted else "It had not begun."
    body = f"Run {lost.run_id}: {lost.message}. {did} It needs a person."
    title = f"Failed: {lost.remediation}{on_target(lost.target_key)}"
    draft = Draft(outbox.ended_key(lost.run_id), channel, title, body, lost.run_id, Tone.FAILURE)
    await outbox.queue(turn.tx, draft, turn.now)
