"""The status of a Deployment, StatefulSet or DaemonSet, in one vocabulary; pure, no SDK and no I/O.

Actions and checks decide on these values and never on the raw object.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.backends.kubernetes.objects import ObjectRef
from app.backends.kubernetes.origin import Origin, origin
from app.domain.model import JsonObject
from app.domain.permissions import Permission
from app.domain.plans import Condition
from app.domain.reasons import Reason

# The storm guard's facts about the workloads around a target.
POPULATION_PERMISSIONS = (
    Permission("kubernetes", "apps", "deployments", ("list",)),
    Permission("kubernetes", "apps", "statefulsets", ("list",)),
    Permission("kubernetes", "apps", "daemonsets", ("list",)),
)
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"  # the annotation that kubectl sets, so that both tell one story
_REVISION = "deployment.kubernetes.io/revision"
_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


@dataclass(frozen=True, slots=True)
class Workload:
    """One reading of a workload."""

    ref: ObjectRef
    uid: str
    generation: int
    is_observed: bool  # the controller has seen the newest generation, so the numbers below belong to it
    desired: int  # replicas asked for; on a DaemonSet the nodes that should run it
    total: int
    updated: int  # of `total`, those made from the newest pod template
    ready: int
    available: int
    held_back: int  # replicas that a StatefulSet's partition keeps on the old template
    is_rolling: bool  # False: all revisions are the same, against the numbers (StatefulSets only)
    has_stalled: bool  # the progress deadline has passed (Deployments only)
    is_paused: bool
    is_on_delete: bool  # pods are replaced only when someone deletes them
    revision: str
    restarted_at: str
    template_digest: str
    content_digest: str  # of the template but for the time of its restart
    images: tuple[str, ...]
    origin: Origin

    @property
    def stale_or_old_pods(self) -> str:
        """Why a rollout is under way, in words; empty when it is not, or when it has stalled for good."""
        if not self.is_observed:
            return "its controller has not seen the newest change yet"
        if self.has_stalled or not self.is_rolling:
            return ""
        wanted = self.desired - self.held_back
        if self.updated < wanted:
            return f"{self.updated} of {wanted} replicas run the newest pod template"
        if self.ref.kind == "Deployment" and self.total > self.updated:
            return _still_there(self.total - self.updated, "old")
        return ""

    @property
    def unfinished(self) -> str:
        """Why a rollout is not complete, in words; empty when it is complete."""
        if not self.is_observed:
            return "its controller has not seen the newest change yet"
        if self.has_stalled:
            return "it made no progress within its progress deadline"
        if self.stale_or_old_pods:
            return self.stale_or_old_pods
        if self.total > self.desired and self.ref.kind != "DaemonSet":
            return _still_there(self.total - self.desired, "surplus")
        if self.available < self.desired:
            return f"{self.available} of {self.desired} replicas are available"
        return ""

    @property
    def ready_and_new(self) -> int:
        """How many replicas are certainly both ready and of the newest template; the status counts them apart."""
        old = max(self.total - self.updated, 0) if self.is_rolling else 0
        return max(self.ready - old, 0)

    def rollout_conditions(self) -> tuple[Condition, ...]:
        """The condition of a rollout under way, which passes by itself."""
        if not self.stale_or_old_pods:
            return ()
        message = f"{self.ref} is rolling out: {self.stale_or_old_pods}"
        return (Condition(reason=Reason.ROLLOUT_IN_PROGRESS, message=message),)

    def facts(self) -> JsonObject:
        """Return the state before for the audit."""
        return {
            "uid": self.uid,
            "generation": self.generation,
            "replicas": self.desired,
            "ready": self.ready,
            "updated": self.updated,
            "revision": self.revision,
            "restarted_at": self.restarted_at,
            "template": self.template_digest,
            "content": self.content_digest,
            "images": list(self.images),
        } | ({"reconciled_by": self.origin.reconciled_by} if self.origin.reconciled_by else {})

    def numbers(self) -> JsonObject:
        """Return the numbers for a check's report."""
        return {
            "desired": self.desired,
            "total": self.total,
            "updated": self.updated,
            "ready": self.ready,
            "available": self.available,
            "revision": self.revision,
        }


def workload(ref: ObjectRef, raw: Mapping[str, Any]) -> Workload:
    """Read an object as the API server gave it."""
    metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    annotations = metadata.get("annotations") or {}
    template = spec["template"]
    pod_annotations = (template.get("metadata") or {}).get("annotations") or {}
    return Workload(
        ref=ref,
        uid=metadata["uid"],
        generation=metadata["generation"],
        is_observed=status.get("observedGeneration", 0) >= metadata["generation"],
        held_back=_held_back(ref.kind, spec),
        is_rolling=ref.kind != "StatefulSet" or status.get("updateRevision") != status.get("currentRevision"),
        has_stalled=_has_stalled(status),
        is_paused=bool(spec.get("paused")),
        is_on_delete=(spec.get("updateStrategy") or {}).get("type") == "OnDelete",
        revision=str(
            status.get("updateRevision") or annotations.get(_REVISION) or annotations.get(_TEMPLATE_GENERATION, "")
        ),
        restarted_at=pod_annotations.get(RESTARTED_AT, ""),
        template_digest=_digest(template),
        content_digest=_digest(template | {"metadata": _without_restart(template.get("metadata") or {})}),
        images=tuple(container["image"] for container in template["spec"]["containers"]),
        origin=origin(raw),
        **_counts(ref.kind, spec, status),
    )


def is_unhealthy(kind: str, raw: Mapping[str, Any]) -> bool:
    """Whether a workload has less than it asks for, or its own controller says that it is not available."""
    status = raw.get("status") or {}
    counts = _counts(kind, raw["spec"], status)
    return counts["ready"] < counts["desired"] or any(
        condition["type"] == "Available" and condition["status"] == "False"
        for condition in status.get("conditions") or ()
    )


def has_come_back(before: int, goal: int, now: int) -> bool:
    """Whether a number that went from `before` to `goal` has come back some of the way; farther on it has not."""
    return now < goal if goal > before else now > goal if goal < before else now != goal


def _still_there(count: int, which: str) -> str:
    return f"1 {which} replica is still there" if count == 1 else f"{count} {which} replicas are still there"


def _counts(kind: str, spec: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, int]:
    if kind == "DaemonSet":
        return {
            "desired": status.get("desiredNumberScheduled", 0),
            "total": status.get("currentNumberScheduled", 0),
            "updated": status.get("updatedNumberScheduled", 0),
            "ready": status.get("numberReady", 0),
            "available": status.get("numberAvailable", 0),
        }
    return {
        "desired": spec.get("replicas", 1),
        "total": status.get("replicas", 0),
        "updated": status.get("updatedReplicas", 0),
        "ready": status.get("readyReplicas", 0),
        "available": status.get("availableReplicas", 0),
    }


def _held_back(kind: str, spec: Mapping[str, Any]) -> int:
    if kind != "StatefulSet":
        return 0
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    return min(int(rolling.get("partition") or 0), int(spec.get("replicas", 1)))


def _has_stalled(status: Mapping[str, Any]) -> bool:
    return any(
        condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded"
        for condition in status.get("conditions") or ()
    )


def _without_restart(metadata: Mapping[str, Any]) -> dict[str, Any]:
    annotations = {key: text for key, text in (metadata.get("annotations") or {}).items() if key != RESTARTED_AT}
    return {**metadata, "annotations": annotations}


def _digest(template: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]
