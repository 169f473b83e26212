"""alert.resolved: whether the alert that caused the run has resolved.

Says nothing about health: an alert also resolves when its Prometheus dies or its series disappears.
"""

from __future__ import annotations

from app.backends.check import Check, CheckContext, observation
from app.domain.model import Value
from app.domain.plans import Observation


class ResolvedParams(Value):
    """Nothing to choose."""


class Resolved(Check[ResolvedParams]):
    """Holds when no episode of the run is open."""

    name = "alert.resolved"
    summary = "The alert has resolved."
    Params = ResolvedParams

    async def observe(self, context: CheckContext, params: ResolvedParams) -> Observation:  # noqa: ARG002 - has none
        """Look at Alertmanager's last notification."""
        return observation(not context.firing, "the alert still fires" if context.firing else "the alert has resolved")
