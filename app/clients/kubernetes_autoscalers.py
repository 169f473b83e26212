"""What a HorizontalPodAutoscaler says about itself, and which ones keep a workload; pure, no SDK and no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.clients.kubernetes_objects import ObjectRef
from app.clients.kubernetes_origin import Origin, origin
from app.domain.model import JsonObject


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """One reading of a HorizontalPodAutoscaler."""

    ref: ObjectRef
    uid: str
    min_replicas: int
    max_replicas: int
    scaled_object: str  # of KEDA, which writes this autoscaler; empty without it
    origin: Origin

    def facts(self) -> JsonObject:
        """What the audit shows as the state before."""
        return {
            "name": self.ref.name,
            "uid": self.uid,
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
        }


def autoscalers_of(workload: ObjectRef, found: Iterable[JsonObject]) -> tuple[Autoscaler, ...]:
    """Those of the autoscalers `found` in its namespace that scale `workload`."""
    return tuple(_autoscaler(workload.namespace, raw) for raw in found if _scales(raw, workload))


def _scales(raw: JsonObject, workload: ObjectRef) -> bool:
    target = raw["spec"]["scaleTargetRef"]
    # The API version is optional there; an autoscaler that leaves it out is taken for ours rather than overlooked.
    group = target.get("apiVersion", workload.group).partition("/")[0]
    return (group, target["kind"], target["name"]) == (workload.group, workload.kind, workload.name)


def _autoscaler(namespace: str, raw: JsonObject) -> Autoscaler:
    metadata, spec = raw["metadata"], raw["spec"]
    owners = metadata.get("ownerReferences") or ()
    return Autoscaler(
        ref=ObjectRef("HorizontalPodAutoscaler", namespace, metadata["name"]),
        uid=metadata["uid"],
        min_replicas=spec.get("minReplicas", 1),
        max_replicas=spec["maxReplicas"],
        scaled_object=next((owner["name"] for owner in owners if owner["kind"] == "ScaledObject"), ""),
        origin=origin(raw),
    )
