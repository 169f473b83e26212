"""Is there room in every window of the remediation's, the target's and the global rate?"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.guards.base import Facts


def rate(facts: Facts) -> Decision:
    """Defer until the fullest window has room; a further rung was admitted with its run.

    The number of runs to take back limits the runs that take them back.
    """
    if facts.admitted or not facts.is_remedy:
        return allow("rate")
    rates = (
        ("the remediation's", facts.rate_full),
        ("the target's", facts.target_rate_full),
        ("the global", facts.global_rate_full),
    )
    full = [(whose, *rate) for whose, rate in rates if rate is not None]
    if not full:
        return allow("rate")
    whose, rate, until = max(full, key=lambda entry: entry[2])
    message = f"{whose} rate {rate} is used up"
    return Decision(guard="rate", verdict=Verdict.DEFER, reason=Reason.RATE, message=message, until=until)
