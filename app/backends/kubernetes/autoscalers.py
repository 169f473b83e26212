"""The status of a HorizontalPodAutoscaler, and the ones that keep a workload; pure, no SDK and no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.backends.kubernetes.objects import ObjectRef
from app.backends.kubernetes.origin import Origin, origin
from app.domain.model import JsonObject
from app.domain.plans import Condition
from app.domain.reasons import Reason


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """One reading of a HorizontalPodAutoscaler."""

    ref: ObjectRef
    workload: ObjectRef
    uid: str
    min_replicas: int
    max_replicas: int
    scaled_object: str  # of KEDA, which writes this autoscaler; empty without it
    origin: Origin
    unable: str  # why it cannot act, in words; empty where nothing says so

    def facts(self) -> JsonObject:
        """Return the state before for the audit."""
        return {
            "name": self.ref.name,
            "uid": self.uid,
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
        }

    def objection(self) -> tuple[Condition, ...]:
        """The condition that forbids to rely on it: a minimum is only a promise while the autoscaler cannot act."""
        if not self.unable:
            return ()
        message = f"autoscaler {self.ref.name} should scale {self.workload}, and cannot: {self.unable}; mend it first"
        return (Condition(reason=Reason.OWNED_BY_HPA, message=message, passes=False),)


def autoscalers_of(workload: ObjectRef, found: Iterable[JsonObject]) -> tuple[Autoscaler, ...]:
    """Those of the autoscalers `found` in its namespace that scale `workload`."""
    return tuple(_autoscaler(workload, raw) for raw in found if _scales(raw, workload))


def _scales(raw: JsonObject, workload: ObjectRef) -> bool:
    target = raw["spec"]["scaleTargetRef"]
    # The API version is optional there; an autoscaler that leaves it out is taken for ours rather than overlooked.
    group = target.get("apiVersion", workload.group).partition("/")[0]
    return (group, target["kind"], target["name"]) == (workload.group, workload.kind, workload.name)


def _autoscaler(workload: ObjectRef, raw: JsonObject) -> Autoscaler:
    metadata, spec = raw["metadata"], raw["spec"]
    owners = metadata.get("ownerReferences") or ()
    return Autoscaler(
        ref=ObjectRef("HorizontalPodAutoscaler", workload.namespace, metadata["name"]),
        workload=workload,
        uid=metadata["uid"],
        min_replicas=spec.get("minReplicas", 1),
        max_replicas=spec["maxReplicas"],
        scaled_object=next((owner["name"] for owner in owners if owner["kind"] == "ScaledObject"), ""),
        origin=origin(raw),
        unable=_unable(raw),
    )


def _unable(raw: JsonObject) -> str:
    """Return why the autoscaler cannot act. One without metrics still keeps its minimum."""
    if not raw["spec"]["scaleTargetRef"].get("apiVersion"):
        return "its scaleTargetRef has no apiVersion"
    for condition in (raw.get("status") or {}).get("conditions") or ():
        if condition["type"] == "AbleToScale" and condition["status"] == "False":
            return f"{condition.get('reason', 'AbleToScale is False')}: {condition.get('message', '')}"
    return ""
