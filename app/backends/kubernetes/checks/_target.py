"""The one look at the run's target that the Kubernetes checks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.backends.check import CheckContext, observation
from app.backends.kubernetes.backend import KUBERNETES
from app.backends.kubernetes.workloads import Workload, has_come_back
from app.domain.errors import ActionError, CheckError
from app.domain.permissions import Permission
from app.domain.plans import Observation, PlannedStep
from app.domain.reasons import Reason

PERMISSIONS = (
    Permission("kubernetes", "apps", "deployments", ("get",)),
    Permission("kubernetes", "apps", "statefulsets", ("get",)),
    Permission("kubernetes", "apps", "daemonsets", ("get",)),
)


@dataclass(frozen=True, slots=True)
class Planned:
    """The number of replicas that the run's steps were to bring about."""

    replicas: int
    is_minimum: bool  # of an autoscaler, which may go further
    before: int

    def missing(self, now: Workload) -> str:
        """Why the workload does not ask for this number, in words; empty when it does."""
        asked = f"{now.ref} asks for {now.desired} replicas"
        if self.is_minimum:
            return (
                f"{asked}, and its autoscaler was to raise it to {self.replicas}" if now.desired < self.replicas else ""
            )
        if has_come_back(self.before, self.replicas, now.desired):
            return f"{asked}, and {self.replicas} were planned"
        if now.total > now.desired:
            return f"{now.ref} has {now.total} replicas, and {now.desired} are asked for"
        return ""


def planned(steps: Sequence[PlannedStep]) -> Planned | None:
    """Return the plan of the last step that scales; None without such a step."""
    for step in reversed(steps):
        if "min_replicas" in step.desired:
            return Planned(step.desired["min_replicas"], is_minimum=True, before=step.before["hpa"]["min_replicas"])
        if "replicas" in step.desired:
            return Planned(step.desired["replicas"], is_minimum=False, before=step.before["replicas"])
    return None


def restarts(steps: Sequence[PlannedStep]) -> bool:
    """Whether one of the run's steps replaces the pods."""
    return any("restarted_at" in step.desired for step in steps)


async def look(context: CheckContext) -> Workload | Observation:
    """Return the target as it is, or the report that it is absent; raises CheckError when that is unknown."""
    try:
        client = await KUBERNETES.of(context)
        return await client.workload(context.target)
    except ActionError as error:
        if error.reason is Reason.TARGET_NOT_FOUND:
            return observation(held=False, message=error.message)
        raise CheckError(error.message) from error
