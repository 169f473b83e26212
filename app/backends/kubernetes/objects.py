"""Names and addresses of the Kubernetes objects that the remediator knows; no SDK and no I/O.

Every address is made here, from a name that was checked first: a label value never reaches a URL unchecked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.backends.base import DEFAULT
from app.domain.errors import PermanentError
from app.domain.reasons import Reason

# RFC 1123 as Kubernetes applies it: lower case, ASCII, no trailing newline (hence fullmatch).
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)
_MAX_NAME = 253
_SHOWN = 80

# kind -> (API group, version, plural)
_RESOURCES = {
    "Deployment": ("apps", "v1", "deployments"),
    "StatefulSet": ("apps", "v1", "statefulsets"),
    "DaemonSet": ("apps", "v1", "daemonsets"),
    "ReplicaSet": ("apps", "v1", "replicasets"),
    "Pod": ("", "v1", "pods"),
    "HorizontalPodAutoscaler": ("autoscaling", "v2", "horizontalpodautoscalers"),
    "SelfSubjectAccessReview": ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
}
WORKLOAD_KINDS = ("Deployment", "StatefulSet", "DaemonSet")
TARGET_KINDS = (*WORKLOAD_KINDS, "Pod")


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One object of the API, or with an empty name the collection of its kind in its namespace."""

    kind: str
    namespace: str
    name: str = ""

    def __post_init__(self) -> None:
        if _LABEL.fullmatch(self.namespace) is None:
            raise _invalid("namespace", self.namespace)
        if self.name and (len(self.name) > _MAX_NAME or _SUBDOMAIN.fullmatch(self.name) is None):
            raise _invalid(f"name of a {self.kind}", self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def group(self) -> str:
        """The API group, empty for the core group."""
        return _RESOURCES[self.kind][0]

    @property
    def resource(self) -> str:
        """The plural that URLs and roles use."""
        return _RESOURCES[self.kind][2]

    @property
    def path(self) -> str:
        """The path below the API server's address."""
        group, version, plural = _RESOURCES[self.kind]
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        collection = f"{root}/namespaces/{self.namespace}/{plural}"
        return f"{collection}/{self.name}" if self.name else collection


def target_ref(kind: str, namespace: str, name: str) -> ObjectRef:
    """The object that a target names; raises PermanentError where a value can be no such thing."""
    if kind not in TARGET_KINDS:
        message = f"{_shown(kind)} is not a kind that can be a target; use one of {', '.join(TARGET_KINDS)}"
        raise PermanentError(message, reason=Reason.TEMPLATE_FAILED)
    if not name:
        raise _invalid(f"name of a {kind}", name)
    return ObjectRef(kind, namespace, name)


def target_key(ref: ObjectRef, cluster: str = DEFAULT) -> str:
    """Return the key for the target lock of this object; it does not name the default cluster."""
    place = "" if cluster == DEFAULT else f"{cluster}/"
    return f"kubernetes:{place}{ref.kind}/{ref.namespace}/{ref.name}"


def _invalid(what: str, value: str) -> PermanentError:
    return PermanentError(f"{_shown(value)} cannot be the {what}", reason=Reason.TEMPLATE_FAILED)


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
