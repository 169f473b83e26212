"""Does Alertmanager itself still hold the alert for firing, and want people to hear of it?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.external_facts import Standing
from app.domain.reasons import Reason
from app.guards.base import Facts

_REASONS = {
    Standing.SILENCED: Reason.SILENCED,
    Standing.INHIBITED: Reason.INHIBITED,
    Standing.MUTED: Reason.MUTED,
    Standing.GONE: Reason.NOT_FIRING,
    Standing.UNREACHABLE: Reason.ALERTMANAGER_UNREACHABLE,
}


def fresh(facts: Facts) -> Decision:
    """Defer while the alert is not active there, or while no member answers; a run that has begun may go on."""
    if facts.admitted or not facts.is_remedy:
        return allow("fresh")
    if facts.freshness is None:  # before there is a plan no Alertmanager has been asked yet
        return allow("fresh", "connections.alertmanager is not configured; not asked" if facts.plan else "")
    seen = facts.freshness
    if seen.standing is Standing.ACTIVE:
        return allow("fresh", seen.message)
    reason = _REASONS[seen.standing]
    return Decision(guard="fresh", verdict=Verdict.DEFER, reason=reason, message=seen.message)
