"""The origin of an object's fields: whether Argo CD or Flux reconciles it, and owns a number in it; pure, no I/O.

The object itself says it: by the labels and annotations of these tools, and by `metadata.managedFields`, in which the
API server notes the manager of each field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.domain.plans import Condition
from app.domain.reasons import Reason

FIELD_MANAGER = "remediator"
_ARGO_TRACKING = "argocd.argoproj.io/tracking-id"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_INSTANCE = "app.kubernetes.io/instance"  # Argo CD's older way to mark; many charts set it too
_LONG_AGO = "1970-01-01T00:00:00Z"
_ARGO_MANAGERS = frozenset({"argocd-controller", "argocd-application-controller"})
_FLUX_MARKS = {
    "kustomize.toolkit.fluxcd.io/name": "Flux Kustomization",
    "helm.toolkit.fluxcd.io/name": "Flux HelmRelease",
}
_MANAGERS = _ARGO_MANAGERS | {"kustomize-controller", "helm-controller"}
# A reconciler takes its field back well within this; a manager that still owns it then may keep it.
_TAKEN_BACK_WITHIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Origin:
    """The reconciler of an object, in words, and the entries of managedFields about it."""

    reconciled_by: str  # "Flux Kustomization shop", or empty
    entries: tuple[Mapping[str, Any], ...]
    last_applied: Mapping[str, Any] | None  # the spec of the newest client-side apply, where it was noted
    controller: str  # the object that controls it, in words; empty without one

    def refusal(self, what: str, field: str) -> tuple[Condition, ...]:
        """The condition that forbids to set `spec.<field>`, where another object's operator would set it back."""
        if not self.controller:
            return ()
        message = (
            f"{what} is controlled by {self.controller}, whose operator would take the change of spec.{field} back; "
            f"change the {self.controller.partition(' ')[0]} instead"
        )
        return (Condition(reason=Reason.OWNED_BY_OPERATOR, message=message, passes=False),)

    def others(self, field: str) -> str:
        """Name the managers that have set `spec.<field>` as it is, in words; empty when it was the remediator alone."""
        managers = [owner["manager"] for owner in self._owners(field)]
        if managers and all(manager == FIELD_MANAGER for manager in managers):
            return ""
        return " and ".join(sorted({one for one in managers if one != FIELD_MANAGER})) or "another manager"

    def suspect(self, since: datetime) -> str:
        """Name the managers that have probably removed a field since then; the server only notes setters."""
        others = [one for one in self.entries if one["manager"] != FIELD_MANAGER and not one.get("subresource")]
        later = [one["manager"] for one in others if datetime.fromisoformat(one.get("time", _LONG_AGO)) >= since]
        if later:
            return " or ".join(sorted(set(later)))
        operator = f"the operator of {self.controller}" if self.controller else ""
        return operator or self.reconciled_by or "a manager that managedFields do not name"

    def objection(self, what: str, field: str, now: datetime) -> tuple[Condition, ...]:
        """The condition that forbids to set `spec.<field>`, where its reconciler owns it or may own it."""
        if not self.reconciled_by:
            return ()
        owners = list(self._owners(field))
        known = any(entry["manager"] in _MANAGERS for entry in self.entries)
        whose = next((owner["manager"] for owner in owners if self._is_from_git(owner, field)), "")
        fresh = next((owner["manager"] for owner in owners if _is_fresh(owner, now)), "")
        if known and not whose and not fresh:
            return ()
        if not known:
            why = f"managedFields do not tell which fields it owns, so spec.{field} may be one"
        elif whose:
            why = f"{whose} owns spec.{field}"
        else:
            why = f"{fresh} set spec.{field} less than an hour ago, which it may take back"
        message = (
            f"{what} is reconciled by {self.reconciled_by}, and {why}: the change would be undone; remove spec.{field} "
            "from git, or let the reconciler ignore it (see docs/backends/kubernetes.md)"
        )
        return (Condition(reason=Reason.OWNED_BY_GITOPS, message=message, passes=known and not whose),)

    def _is_from_git(self, owner: Mapping[str, Any], field: str) -> bool:
        """Say whether an owner is a reconciler that may have the field from git.

        A manager that updates, and does not apply on the server's side, owns the server's defaults as well. Then only
        the last applied form of kubectl and Argo CD tells the two apart; Helm notes nothing.
        """
        if owner["manager"] not in _MANAGERS:
            return False
        return owner["operation"] == "Apply" or self.last_applied is None or field in self.last_applied

    def _owners(self, field: str) -> Iterator[Mapping[str, Any]]:
        for entry in self.entries:
            if f"f:{field}" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
                yield entry


def _is_fresh(owner: Mapping[str, Any], now: datetime) -> bool:
    """Say whether another manager set the field so lately that its reconciler may not have noticed.

    The API server notes no time for a field that was set through the scale subresource, as kubectl scale does.
    """
    if owner["manager"] in _MANAGERS | {FIELD_MANAGER} or "time" not in owner:
        return False
    return now - datetime.fromisoformat(owner["time"]) < _TAKEN_BACK_WITHIN


def origin(raw: Mapping[str, Any]) -> Origin:
    """Read it from an object as the API server gave it."""
    metadata = raw["metadata"]
    entries = tuple(metadata.get("managedFields") or ())
    managers = frozenset(entry["manager"] for entry in entries)
    return Origin(_reconciler(metadata, managers), entries, _last_applied(metadata), _controller(metadata))


def _controller(metadata: Mapping[str, Any]) -> str:
    owners = metadata.get("ownerReferences") or ()
    owner = next((one for one in owners if one.get("controller")), None)
    return f"{owner['kind']} {owner['name']} ({owner['apiVersion']})" if owner else ""


def _last_applied(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        spec = json.loads((metadata.get("annotations") or {}).get(_LAST_APPLIED, ""))["spec"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return spec if isinstance(spec, dict) else None


def _reconciler(metadata: Mapping[str, Any], managers: frozenset[str]) -> str:
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    for label, kind in _FLUX_MARKS.items():
        if label in labels:
            place = labels.get(label.replace("/name", "/namespace"), "")
            return f"{kind} {place}/{labels[label]}" if place else f"{kind} {labels[label]}"
    if _ARGO_TRACKING in annotations:
        return f"Argo CD application {annotations[_ARGO_TRACKING].partition(':')[0]}"
    if _INSTANCE in labels and managers & _ARGO_MANAGERS:
        return f"Argo CD application {labels[_INSTANCE]}"
    return ""
