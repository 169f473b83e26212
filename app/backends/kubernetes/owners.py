"""From a pod, present or gone, to the workload that owns it; called by the client when a target is resolved.

An uncertain owner is not found: an owner is named only after its own object was read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from app.backends.kubernetes.objects import WORKLOAD_KINDS, ObjectRef
from app.domain.errors import PermanentError
from app.domain.model import JsonObject
from app.domain.permissions import Permission
from app.domain.reasons import Reason

# The rights for resolving a Pod, beside reading the workload itself.
POD_PERMISSIONS = (
    Permission("kubernetes", "", "pods", ("get",)),
    Permission("kubernetes", "apps", "replicasets", ("get",)),
    Permission("kubernetes", "apps", "deployments", ("get",)),
    Permission("kubernetes", "apps", "statefulsets", ("get",)),
    Permission("kubernetes", "apps", "daemonsets", ("get",)),
)

# Kubernetes draws the random end of a pod's name from these letters, which make no words.
_RANDOM_END = re.compile(r"(?P<owner>.+)-[bcdfghjklmnpqrstvwxz2456789]{5}", re.ASCII)
_ORDINAL_END = re.compile(r"(?P<owner>.+)-(?P<ordinal>0|[1-9][0-9]{0,9})", re.ASCII)


class Reader(Protocol):
    """The part of the client that is needed here."""

    async def find(self, ref: ObjectRef) -> JsonObject | None:
        """One object, or None."""


async def workload_of_pod(reader: Reader, pod: ObjectRef) -> ObjectRef:
    """The workload that owns `pod`; raises PermanentError where there is none, or more than one it may have been."""
    found = await reader.find(pod)
    if found is not None:
        return await _workload_above(reader, pod, found)
    owners = await _possible_owners(reader, pod)
    if not owners:
        raise _not_found(f"{pod} does not exist and its name leads to no workload")
    if len(owners) > 1:
        names = " or ".join(str(owner) for owner in owners)
        raise _not_found(f"{pod} does not exist and may have belonged to {names}")
    return owners[0]


async def _possible_owners(reader: Reader, pod: ObjectRef) -> list[ObjectRef]:
    owners = []
    if match := _RANDOM_END.fullmatch(pod.name):
        replica_set = ObjectRef("ReplicaSet", pod.namespace, match["owner"])
        if found := await reader.find(replica_set):
            owners.append(await _workload_above(reader, pod, found, through=replica_set))
        daemon_set = ObjectRef("DaemonSet", pod.namespace, match["owner"])
        if await reader.find(daemon_set):
            owners.append(daemon_set)
    if match := _ORDINAL_END.fullmatch(pod.name):
        stateful_set = ObjectRef("StatefulSet", pod.namespace, match["owner"])
        found = await reader.find(stateful_set)
        if found and int(match["ordinal"]) in _ordinals(found["spec"]):
            owners.append(stateful_set)
    return owners


async def _workload_above(
    reader: Reader, pod: ObjectRef, owned: Mapping[str, Any], through: ObjectRef | None = None
) -> ObjectRef:
    """Follow the controlling owner of `owned`: the pod itself, or the ReplicaSet that made it."""
    owner = next((ref for ref in owned["metadata"].get("ownerReferences") or () if ref.get("controller")), None)
    if owner is None:
        raise _not_found(f"{through or pod} is controlled by nothing: it has no workload that can be acted on")
    known = ("ReplicaSet",) if through is None else ()
    if owner["apiVersion"].partition("/")[0] != "apps" or owner["kind"] not in (*WORKLOAD_KINDS, *known):
        controller = f"{owner['kind']} {owner['name']}"
        raise _not_found(f"{pod} is controlled by {controller}: it has no workload that can be acted on")
    ref = ObjectRef(owner["kind"], pod.namespace, owner["name"])
    found = await reader.find(ref)
    if found is None or found["metadata"]["uid"] != owner["uid"]:
        raise _not_found(f"{pod} belonged to {ref}, which does not exist any more")
    return ref if ref.kind in WORKLOAD_KINDS else await _workload_above(reader, pod, found, through=ref)


def _ordinals(spec: Mapping[str, Any]) -> range:
    start = int((spec.get("ordinals") or {}).get("start") or 0)
    return range(start, start + int(spec.get("replicas", 1)))


def _not_found(message: str) -> PermanentError:
    return PermanentError(message, reason=Reason.TARGET_NOT_FOUND)
