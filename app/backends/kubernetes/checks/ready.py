"""kubernetes.ready: whether enough replicas of the target are ready.

Only looks; whether and how long to wait is the engine's business.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.backends.check import Check, CheckContext, observation
from app.backends.kubernetes.checks._target import PERMISSIONS, look, planned, restarts
from app.domain.model import Value
from app.domain.moments import Count
from app.domain.plans import Observation

_Percent = Annotated[str, Field(pattern=r"^(100|[1-9]?[0-9])%$")]


class ReadyParams(Value):
    """How many replicas are enough."""

    min_ready: Count | _Percent = Field(
        default="100%", description="A number, or a percentage of the desired replicas, rounded up."
    )

    def needed(self, desired: int) -> int:
        """How many of `desired` replicas must be ready; at least one unless 0 was asked for in so many words."""
        if isinstance(self.min_ready, int):
            return self.min_ready
        percent = int(self.min_ready.removesuffix("%"))
        return max(-(-desired * percent // 100), 1) if percent else 0


class Ready(Check[ReadyParams]):
    """Enough replicas of the target are ready, of the number that the run has planned where it scales."""

    name = "kubernetes.ready"
    summary = "At least a number or percentage of the target's desired replicas are ready."
    Params = ReadyParams
    target_backend = "kubernetes"
    permissions = PERMISSIONS

    async def observe(self, context: CheckContext, params: ReadyParams) -> Observation:
        """Look at the target's status once."""
        seen = await look(context)
        if isinstance(seen, Observation):
            return seen
        wanted = planned(context.steps)
        needed = params.needed(seen.desired)
        numbers = {**seen.numbers(), "needed": needed}
        if not seen.is_observed:
            message = f"{seen.ref}: its controller has not seen the newest change yet"
            return observation(held=False, message=message, **numbers)
        if wanted is not None and (missing := wanted.missing(seen)):
            return observation(held=False, message=missing, **numbers, planned=wanted.replicas)
        ready, which = seen.ready, "ready"
        if restarts(context.steps):  # during the rollout the old pods are ready, too
            ready, which = seen.ready_and_new, "new and ready"
        message = f"{seen.ref} has {ready} {which} replicas of {seen.desired}, and {needed} are needed"
        return observation(held=ready >= needed, message=message, **numbers)
