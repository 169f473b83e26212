"""The guards in order, and the one answer that follows from theirs.

The order is a reviewed decision: facts that are cheap to know and hard to argue with come first. All answers are kept,
so that a person sees every objection and not only the first.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.decisions import Decision, Verdict, allow
from app.domain.reasons import Reason
from app.guards.approval import approval
from app.guards.attempts import attempts
from app.guards.base import Facts, Guard
from app.guards.breaker import breaker
from app.guards.concurrency import concurrency
from app.guards.cooldown import cooldown
from app.guards.freeze import freeze
from app.guards.fresh import fresh
from app.guards.max_age import max_age
from app.guards.mode import mode
from app.guards.not_yet import not_yet
from app.guards.owned_elsewhere import owned_elsewhere
from app.guards.paused import paused
from app.guards.rate import rate
from app.guards.scope import scope
from app.guards.storm import storm
from app.guards.target_busy import target_busy

CHAIN: tuple[Guard, ...] = (
    paused,
    scope,
    freeze,
    mode,
    attempts,
    max_age,
    fresh,
    breaker,
    cooldown,
    rate,
    target_busy,
    owned_elsewhere,
    not_yet,
    concurrency,
    storm,
    approval,  # last: no question about a run that would be refused anyway
)

# Asked again before each call of a run that was let through. The others answer whether to begin: what stands half done
# for the sake of a freeze, a rate or a breaker is worse than what is done.
BETWEEN_STEPS: tuple[Guard, ...] = (paused, freeze, mode, approval)

# A dry run does not wait for a real one: it ends at once, and its decisions show why it would have waited.
_WEIGHT = {Verdict.DENY: 0, Verdict.OBSERVE: 1, Verdict.DEFER: 2, Verdict.NEEDS_APPROVAL: 3, Verdict.ALLOW: 4}


def decide(facts: Facts, chain: Sequence[Guard] = CHAIN) -> list[Decision]:
    """Every guard's answer, in order; a guard that raises refuses (fail closed)."""
    return [_ask(guard, facts) for guard in chain]


def _ask(guard: Guard, facts: Facts) -> Decision:
    name = getattr(guard, "__name__", "guard")
    without: dict[str, str] = {guard.value: why for guard, why in facts.remediation.without_guards.items()}
    if name in without:
        return allow(name, f"turned off by the remediation: {without[name]}")
    try:
        return guard(facts)
    except Exception as error:  # noqa: BLE001 - fail closed: whatever a guard raises is a refusal
        message = f"the guard failed: {type(error).__name__}"
        return Decision(guard=name, verdict=Verdict.DENY, reason=Reason.GUARD_FAILED, message=message)


def outcome(decisions: Sequence[Decision]) -> Decision:
    """The answer that counts: the gravest, and of equals the first in order (of deferrals: the longest)."""
    gravest = min(_WEIGHT[decision.verdict] for decision in decisions)
    candidates = [decision for decision in decisions if _WEIGHT[decision.verdict] == gravest]
    return max(candidates, key=lambda decision: decision.until.timestamp() if decision.until else 0.0)
