"""kubernetes.rollout_restart: replaces the pods of a workload as `kubectl rollout restart` does.

The pod template gets the time of the plan, so that applying the same plan again changes nothing. It never overwrites a
pod template that has changed since the plan.
"""

from __future__ import annotations

from datetime import datetime

from app.backends.action import Action, Context
from app.backends.kubernetes.backend import KUBERNETES
from app.backends.kubernetes.objects import ObjectRef, target_ref
from app.backends.kubernetes.workloads import POPULATION_PERMISSIONS, RESTARTED_AT, Workload, workload
from app.domain.errors import PermanentError
from app.domain.model import JsonObject, Value
from app.domain.permissions import Permission
from app.domain.plans import Condition, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk


class NoParams(Value):
    """A restart has nothing to choose."""


class RolloutRestart(Action[NoParams]):
    """Replaces all pods of a Deployment, StatefulSet or DaemonSet, a few at a time."""

    name = "kubernetes.rollout_restart"
    summary = "Restart the pods of a workload, a few at a time, as kubectl rollout restart does."
    Params = NoParams
    risk = Risk.DISRUPTIVE
    target_backend = "kubernetes"
    repeatable = True
    can_dry_run = True
    can_be_taken_back = True
    drifts = frozenset({"generation", "ready", "updated", "restarted_at"})
    permissions = (
        Permission("kubernetes", "apps", "deployments", ("get", "patch")),
        Permission("kubernetes", "apps", "statefulsets", ("get", "patch")),
        Permission("kubernetes", "apps", "daemonsets", ("get", "patch")),
        *POPULATION_PERMISSIONS,
    )

    async def plan(self, context: Context, params: NoParams) -> PlannedStep:
        """Read the workload; the state to reach is a restart at the time of this plan."""
        client = await KUBERNETES.of(context)
        now = await client.workload(context.target)
        if now.is_on_delete:
            message = f"{now.ref} replaces pods only when they are deleted (OnDelete): a restart would do nothing"
            raise PermanentError(message)
        if now.is_observed and now.desired == 0:
            raise PermanentError(f"{now.ref} has no replicas: a restart would do nothing")
        return self.planned(
            params,
            summary=f"restart {now.ref} ({now.desired} replicas)",
            before=now.facts(),
            desired={"restarted_at": context.now.isoformat()},
            conditions=(*_held_back(now), *now.rollout_conditions()),
        )

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """Write the planned time into the pod template, unless it is there or the template is another one by now."""
        client = await KUBERNETES.of(context)
        target = context.target
        ref = target_ref(target.kind, target.namespace, target.name)
        raw, written = await client.update(ref, lambda found: _restart(ref, found, step))
        return {"written": written, "generation": raw["metadata"]["generation"], **step.desired}

    async def dry_run(self, context: Context, step: PlannedStep) -> None:
        """Send the patch for the API server, its quotas and admission webhooks to judge."""
        client = await KUBERNETES.of(context)
        ref = target_ref(context.target.kind, context.target.namespace, context.target.name)
        await client.update(ref, lambda found: _restart(ref, found, step), dry_run=True)

    async def taken_back(self, context: Context, step: PlannedStep, *, undone: bool) -> str:  # noqa: ARG002 - has none
        """Say whether the same pods run again without the restart; a later deployment replaced them, too."""
        client = await KUBERNETES.of(context)
        now = await client.workload(context.target)
        is_same = now.content_digest == step.before.get("content", now.content_digest)
        if not is_same or _is_restarted(now, step):
            return ""
        who = now.origin.suspect(datetime.fromisoformat(step.desired["restarted_at"]))
        return f"the restart of {now.ref} is gone from its pod template: changed back by {who}"


def _is_restarted(now: Workload, step: PlannedStep) -> bool:
    """Whether the restart, or a later one, is in the pod template."""
    try:
        return datetime.fromisoformat(now.restarted_at) >= datetime.fromisoformat(step.desired["restarted_at"])
    except (ValueError, TypeError):  # nothing, or another person's text
        return False


def _restart(ref: ObjectRef, found: JsonObject, step: PlannedStep) -> JsonObject | None:
    now = workload(ref, found)
    restarted_at = step.desired["restarted_at"]
    if now.uid == step.before["uid"] and now.restarted_at == restarted_at:
        return None
    if now.uid != step.before["uid"]:
        raise _changed(f"{ref} was deleted and made anew since the restart was planned")
    if now.template_digest != step.before["template"]:
        raise _changed(f"the pod template of {ref} changed since the restart was planned, which restarts it anyway")
    if _held_back(now) or now.is_on_delete:
        raise _changed(f"the rollout of {ref} was paused or held back since the restart was planned")
    if now.is_observed and now.desired == 0:
        raise _changed(f"{ref} was scaled to no replicas since the restart was planned")
    return {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: restarted_at}}}}}


def _held_back(now: Workload) -> tuple[Condition, ...]:
    """The condition of a rollout that goes on only when a person lets it."""
    if now.is_paused:
        message = f"the rollout of {now.ref} is paused: a restart would wait until a person resumes the rollout"
    elif now.held_back:
        replicas = f"{now.held_back} of {now.desired} replicas"
        message = f"the partition of {now.ref} holds {replicas} back: a restart would not reach them"
    else:
        return ()
    return (Condition(reason=Reason.ROLLOUT_PAUSED, message=message, passes=False),)


def _changed(message: str) -> PermanentError:
    return PermanentError(message, reason=Reason.CHANGED_SINCE_PLANNED)
