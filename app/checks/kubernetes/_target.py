"""The one look at the run's target that the Kubernetes checks share."""

from __future__ import annotations

from app.checks.base import CheckContext, observation
from app.clients.kubernetes_workloads import Workload
from app.domain.errors import ActionError, CheckError
from app.domain.permissions import Permission
from app.domain.plans import Observation
from app.domain.reasons import Reason

PERMISSIONS = (
    Permission("kubernetes", "apps", "deployments", ("get",)),
    Permission("kubernetes", "apps", "statefulsets", ("get",)),
    Permission("kubernetes", "apps", "daemonsets", ("get",)),
)


async def look(context: CheckContext) -> Workload | Observation:
    """The target as it is, or what to report where there is none; raises CheckError where nobody can tell."""
    try:
        client = await context.clients.kubernetes()
        return await client.workload(context.target)
    except ActionError as error:
        if error.reason is Reason.TARGET_NOT_FOUND:
            return observation(held=False, message=error.message)
        raise CheckError(error.message) from error
