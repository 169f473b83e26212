"""Is this one large outage and not many small ones? Then the service changes nothing, and tells people once.

The share of the population follows Cluster API's MachineHealthCheck (`maxUnhealthy`): it is read from the cluster,
workloads under remediation count as unhealthy, and an unknown share is a refusal.
"""

from __future__ import annotations

from app.domain.decisions import Decision, Verdict, allow
from app.domain.external_facts import Population
from app.domain.reasons import Reason
from app.guards.base import Facts

_GUARD = "storm"
# One unhealthy workload of two is half of them and yet no storm.
_NEVER_A_STORM = 2


def storm(facts: Facts) -> Decision:
    """Defer while a storm lasts, and while too much of the population is unhealthy, or an unknown part of it."""
    if facts.admitted or not facts.is_remedy:
        return allow(_GUARD)
    if facts.storms:
        worst = max(facts.storms, key=lambda one: one.until)
        return Decision(
            guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.STORM, message=worst.message, until=worst.until
        )
    if facts.population is not None and facts.plan is not None:
        return _of_population(facts, facts.population, facts.plan.target.key)
    return allow(_GUARD)


def _of_population(facts: Facts, seen: Population, target_key: str) -> Decision:
    if seen.unknown:
        message = f"how many workloads are unhealthy is not known: {seen.unknown}"
        return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.POPULATION_UNKNOWN, message=message)
    unhealthy = len(seen.unhealthy | {target_key})
    share = facts.remediation.limits.max_unhealthy
    allowed = max(share.of(seen.total), _NEVER_A_STORM)
    told = f"{unhealthy} of {seen.total} workloads in {seen.where} are unhealthy or in work"
    if unhealthy <= allowed:
        return allow(_GUARD, told)
    message = f"{told}, more than max_unhealthy ({share}, at least {_NEVER_A_STORM}) allows"
    return Decision(guard=_GUARD, verdict=Verdict.DEFER, reason=Reason.STORM, message=message)
