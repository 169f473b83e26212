"""Has this remediation failed, or not helped, so often in a row that it should stop?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.guards.base import Facts


def breaker(facts: Facts) -> Decision:
    """Defer while it is open; when its pause is over, let one run through as a trial."""
    state = facts.breaker
    if state.opened_at is None or facts.admitted or not facts.is_remedy:
        return allow("breaker", f"{state.failures} failed in a row" if state.failures else "")
    if state.trial is not None and state.trial != facts.run_id:
        return _open(facts, f"run {state.trial} is its trial")
    if state.trial_at is not None and facts.now >= state.trial_at:
        return allow("breaker", "the trial after the breaker opened")
    return _open(facts, f"a trial follows at {state.trial_at:%Y-%m-%d %H:%M:%S} UTC" if state.trial_at else "")


def _open(facts: Facts, then: str) -> Decision:
    state = facts.breaker
    message = f"the breaker is open after {state.failures} failed or ineffective runs in a row; {then}"
    until = state.trial_at if state.trial is None else None
    return Decision(guard="breaker", verdict=Verdict.DEFER, reason=Reason.BREAKER_OPEN, message=message, until=until)
