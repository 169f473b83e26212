"""kubernetes.rollout_complete: whether the target's newest pod template is everywhere, as `kubectl rollout status`.

Only looks; whether and how long to wait is the engine's business.
"""

from __future__ import annotations

from app.backends.check import Check, CheckContext, observation
from app.backends.kubernetes.checks._target import PERMISSIONS, look, planned
from app.domain.model import Value
from app.domain.plans import Observation


class NoParams(Value):
    """A rollout is complete or it is not."""


class RolloutComplete(Check[NoParams]):
    """Every replica of the target runs the newest pod template and is available."""

    name = "kubernetes.rollout_complete"
    summary = "Every replica of the target runs the newest pod template and is available, and no old one is left."
    Params = NoParams
    target_backend = "kubernetes"
    permissions = PERMISSIONS

    async def observe(self, context: CheckContext, params: NoParams) -> Observation:  # noqa: ARG002 - it has none
        """Look at the target's status once."""
        seen = await look(context)
        if isinstance(seen, Observation):
            return seen
        if seen.unfinished:
            return observation(held=False, message=f"{seen.ref}: {seen.unfinished}", **seen.numbers())
        wanted = planned(context.steps)
        if wanted is not None and (missing := wanted.missing(seen)):
            return observation(held=False, message=missing, **seen.numbers(), planned=wanted.replicas)
        if seen.desired == 0 and (wanted is None or wanted.replicas > 0):
            return observation(held=False, message=f"{seen.ref} has no replicas to roll out", **seen.numbers())
        message = f"{seen.ref} is rolled out: {seen.available} of {seen.desired} replicas are available"
        return observation(held=True, message=message, **seen.numbers())
