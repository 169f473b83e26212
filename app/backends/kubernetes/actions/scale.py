"""kubernetes.scale: sets the number of replicas of a workload, or the minimum of the autoscaler that keeps it.

The plan names the number to reach, so that applying it again changes nothing. It never leaves the bounds that its
author gave, never moves against the direction that was asked for, and never fights an autoscaler or a reconciler.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import Field, model_validator

from app.backends.action import Action, Context
from app.backends.kubernetes.autoscalers import Autoscaler, autoscalers_of
from app.backends.kubernetes.backend import KUBERNETES
from app.backends.kubernetes.objects import ObjectRef, target_ref
from app.backends.kubernetes.origin import origin
from app.backends.kubernetes.workloads import POPULATION_PERMISSIONS, Workload, has_come_back
from app.domain.errors import PermanentError
from app.domain.model import JsonObject, Value
from app.domain.moments import MAX_COUNT, Count, Positive
from app.domain.permissions import Permission
from app.domain.plans import Condition, PlannedStep, Target
from app.domain.reasons import Reason
from app.domain.remediation import Risk

_MAX_WITHOUT_BOUND = 100  # `to` may come from a label: without a `max` of its own it must not ask for anything


class ScaleParams(Value):
    """How many replicas: a number to reach, or a difference within bounds."""

    to: Count | None = Field(default=None, description="The number of replicas to reach.")
    by: int | None = Field(
        default=None, ge=-MAX_COUNT, le=MAX_COUNT, description="How many replicas more, or with a minus fewer."
    )
    min: Count = Field(default=1, description="Never fewer than this.")
    max: Positive | None = Field(default=None, description="Never more than this; required when `by` adds replicas.")

    @model_validator(mode="after")
    def _consistent(self) -> ScaleParams:
        for is_wrong, message in (
            ((self.to is None) == (self.by is None), "exactly one of to and by must be given"),
            (self.by == 0, "by must not be 0"),
            (self.by is not None and self.by > 0 and self.max is None, "max is required when by adds replicas"),
            (self.max is not None and self.min > self.max, "min must not be more than max"),
            (self.to is not None and self.to < self.min, f"to must not be less than min, which is {self.min}"),
            (self.to is not None and self.to > self.ceiling, f"to must not be more than max, which is {self.ceiling}"),
        ):
            if is_wrong:
                raise ValueError(message)
        return self

    @property
    def ceiling(self) -> int:
        """The upper bound that holds."""
        return _MAX_WITHOUT_BOUND if self.max is None else self.max


class Scale(Action[ScaleParams]):
    """Sets the replicas of a Deployment or StatefulSet, within bounds."""

    name = "kubernetes.scale"
    summary = "Set the number of replicas of a workload, or the minimum of its autoscaler, within bounds."
    Params = ScaleParams
    risk = Risk.DISRUPTIVE
    target_backend = "kubernetes"
    repeatable = True
    can_dry_run = True
    can_undo = True
    can_be_taken_back = True
    drifts = frozenset({"generation", "ready", "updated"})
    permissions = (
        Permission("kubernetes", "apps", "deployments", ("get",)),
        Permission("kubernetes", "apps", "deployments/scale", ("patch",)),
        Permission("kubernetes", "apps", "statefulsets", ("get",)),
        Permission("kubernetes", "apps", "statefulsets/scale", ("patch",)),
        Permission("kubernetes", "autoscaling", "horizontalpodautoscalers", ("get", "list", "patch")),
        *POPULATION_PERMISSIONS,
    )

    async def plan(self, context: Context, params: ScaleParams) -> PlannedStep:
        """Read the workload and its autoscalers; the state to reach is a number of replicas."""
        if context.target.kind == "DaemonSet":
            raise PermanentError("a DaemonSet has one pod per node and cannot be scaled")
        client = await KUBERNETES.of(context)
        now = await client.workload(context.target)
        found = await client.list(ObjectRef("HorizontalPodAutoscaler", now.ref.namespace))
        autoscalers = autoscalers_of(now.ref, found)
        if foreign := _kept_by_others(now, autoscalers):
            return self._plan_refused(params, now, foreign)
        # An autoscaler does nothing while its workload is at zero; then the workload itself must be started.
        if autoscalers and now.desired > 0:
            return self._plan_minimum(params, now, autoscalers[0], context.now)
        return self._plan_replicas(params, now, context.now)

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """Go from the planned state before to the state to reach, and from no other."""
        dial = _dial(context.target, step)
        client = await KUBERNETES.of(context)
        turn = lambda found: dial.turn(found, dial.before, dial.desired)  # noqa: E731 - what the client asks for
        _, written = await client.update(dial.ref, turn, dial.subresource)
        return {"written": written, "object": str(dial.ref), dial.field: dial.desired}

    async def plan_undo(self, context: Context, step: PlannedStep) -> PlannedStep:
        """Name the way back; its present keeper may stand against it."""
        dial = _dial(context.target, step)
        client = await KUBERNETES.of(context)
        now = await client.workload(context.target)
        autoscalers = autoscalers_of(
            now.ref, await client.list(ObjectRef("HorizontalPodAutoscaler", now.ref.namespace))
        )
        kept = _kept_by_others(now, autoscalers)
        if kept is None and dial.field == "replicas" and autoscalers and now.desired > 0:
            message = f"autoscaler {autoscalers[0].ref.name} keeps {now.ref} by now"
            kept = Condition(reason=Reason.OWNED_BY_HPA, message=message, passes=False)
        summary = f"set {dial.field} of {dial.ref} back from {dial.desired} to {dial.before}"
        return step.model_copy(update={"summary": summary, "conditions": () if kept is None else (kept,)})

    async def undo(self, context: Context, step: PlannedStep) -> JsonObject:
        """Go back, unless another manager has set the number since, even to the same one."""
        dial = _dial(context.target, step)
        client = await KUBERNETES.of(context)
        _, written = await client.update(dial.ref, dial.turn_back, dial.subresource)
        return {"written": written, "object": str(dial.ref), dial.field: dial.before}

    async def taken_back(self, context: Context, step: PlannedStep, *, undone: bool) -> str:
        """Say whether the number has come back from where it was set; a number farther on stays with its manager."""
        dial = _dial(context.target, step)
        client = await KUBERNETES.of(context)
        found = await client.get(dial.ref)
        now = found["spec"].get(dial.field, 1)
        start, goal = (dial.desired, dial.before) if undone else (dial.before, dial.desired)
        if not has_come_back(start, goal, now):
            return ""
        return (
            f"{dial.ref} has {dial.field} {now}, and {goal} was set: changed back by {origin(found).others(dial.field)}"
        )

    async def dry_run(self, context: Context, step: PlannedStep) -> None:
        """Send the number for the API server and its admission webhooks to judge."""
        dial = _dial(context.target, step)
        client = await KUBERNETES.of(context)
        turn = lambda found: dial.turn(found, dial.before, dial.desired)  # noqa: E731 - what the client asks for
        await client.update(dial.ref, turn, dial.subresource, dry_run=True)

    def _plan_replicas(self, params: ScaleParams, now: Workload, at: datetime) -> PlannedStep:
        goal = _goal(params, str(now.ref), now.desired, (params.min, params.ceiling))
        return self.planned(
            params,
            summary=f"scale {now.ref} from {now.desired} to {goal} replicas",
            before=now.facts(),
            desired={"replicas": goal},
            changes=goal != now.desired,
            conditions=(
                *now.origin.refusal(str(now.ref), "replicas"),
                *now.origin.objection(str(now.ref), "replicas", at),
                *now.rollout_conditions(),
            ),
        )

    def _plan_minimum(self, params: ScaleParams, now: Workload, keeper: Autoscaler, at: datetime) -> PlannedStep:
        # Only a minimum above the present number adds replicas.
        is_raise = params.by is not None and params.by > 0
        base = max(keeper.min_replicas, now.desired) if is_raise else keeper.min_replicas
        bounds = (max(params.min, 1), min(params.ceiling, keeper.max_replicas))
        goal = _goal(params, f"{now.ref}, kept by autoscaler {keeper.ref.name},", base, bounds)
        return self.planned(
            params,
            summary=f"set the minimum of {keeper.ref}, which keeps {now.ref}, from {keeper.min_replicas} to {goal}",
            before={**now.facts(), "hpa": keeper.facts()},
            desired={"hpa": keeper.ref.name, "min_replicas": goal},
            changes=goal != keeper.min_replicas,
            conditions=(
                *keeper.objection(),
                *keeper.origin.refusal(str(keeper.ref), "minReplicas"),
                *keeper.origin.objection(str(keeper.ref), "minReplicas", at),
                *now.rollout_conditions(),
            ),
        )

    def _plan_refused(self, params: ScaleParams, now: Workload, condition: Condition) -> PlannedStep:
        return self.planned(params, summary=f"scale {now.ref}", before=now.facts(), conditions=(condition,))


@dataclass(frozen=True, slots=True)
class _Dial:
    """The one number that a planned step turns: its place, its value before and its planned value."""

    ref: ObjectRef
    uid: str
    subresource: str
    field: str
    before: int
    desired: int

    def turn(self, found: JsonObject, start: int, goal: int) -> JsonObject | None:
        """The patch that leads from `start` to `goal`, None at the goal; raises PermanentError from elsewhere."""
        now = found["spec"].get(self.field, 1)
        if found["metadata"]["uid"] != self.uid:
            raise _changed(f"{self.ref} was deleted and made anew since its scaling was planned")
        if now == goal:
            return None
        if now != start:
            raise _changed(f"{self.ref} has {self.field} {now}, which is neither {start} nor {goal} as planned")
        return {"spec": {self.field: goal}}

    def turn_back(self, found: JsonObject) -> JsonObject | None:
        """The patch that leads back; raises PermanentError where the number is not the remediator's own any more."""
        patch = self.turn(found, self.desired, self.before)
        other = origin(found).others(self.field)
        if patch is not None and other:
            raise _changed(f"{self.ref} has {self.field} {self.desired} by {other}, set after the step")
        return patch


def _dial(target: Target, step: PlannedStep) -> _Dial:
    before, desired = step.before, step.desired
    if not desired:
        raise PermanentError(step.conditions[0].message, reason=step.conditions[0].reason)
    if "hpa" in desired:
        ref = ObjectRef("HorizontalPodAutoscaler", target.namespace, desired["hpa"])
        hpa = before["hpa"]
        return _Dial(ref, hpa["uid"], "", "minReplicas", hpa["min_replicas"], desired["min_replicas"])
    ref = target_ref(target.kind, target.namespace, target.name)
    return _Dial(ref, before["uid"], "scale", "replicas", before["replicas"], desired["replicas"])


def _kept_by_others(now: Workload, autoscalers: tuple[Autoscaler, ...]) -> Condition | None:
    """Return why only its keeper should scale it; None where that is not so."""
    for autoscaler in autoscalers:
        if autoscaler.scaled_object:
            message = f"{now.ref} is scaled by KEDA's ScaledObject {autoscaler.scaled_object}, which would undo it"
            return Condition(reason=Reason.OWNED_BY_KEDA, message=message, passes=False)
    if len(autoscalers) > 1:
        names = ", ".join(autoscaler.ref.name for autoscaler in autoscalers)
        message = f"{now.ref} is scaled by several autoscalers ({names}), and they fight each other already"
        return Condition(reason=Reason.OWNED_BY_HPA, message=message, passes=False)
    return None


def _goal(params: ScaleParams, what: str, base: int, bounds: tuple[int, int]) -> int:
    """The number to reach within `bounds`; a relative one never moves against its sign."""
    lowest, highest = bounds
    if params.to is not None:
        if not lowest <= params.to <= highest:
            raise _out_of_bounds(f"{what} cannot have {params.to} replicas: the bounds are {lowest} to {highest}")
        return params.to
    by = params.by or 0
    goal, bound = (min(base + by, highest), highest) if by > 0 else (max(base + by, lowest), lowest)
    if (goal - base) * by <= 0:
        side = "maximum" if by > 0 else "minimum"
        raise _out_of_bounds(f"{what} is at {base} and the {side} is {bound}")
    return goal


def _out_of_bounds(message: str) -> PermanentError:
    return PermanentError(message, reason=Reason.BOUNDS_REACHED)


def _changed(message: str) -> PermanentError:
    return PermanentError(message, reason=Reason.CHANGED_SINCE_PLANNED)
