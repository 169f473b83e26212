"""The questions of preflight to a cluster: whether the rights are there, and whether it would take the steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from app.backends.action import Action, Context
from app.backends.actions import actions
from app.backends.base import DEFAULT
from app.backends.kubernetes.backend import KUBERNETES, KubernetesTarget
from app.backends.kubernetes.owners import POD_PERMISSIONS
from app.backends.kubernetes.workloads import POPULATION_PERMISSIONS
from app.backends.preflight import DENIED, Asking, Need, cannot, is_pattern, unknown
from app.domain.errors import PermanentError
from app.domain.findings import Finding
from app.domain.permissions import Permission
from app.domain.reasons import Reason
from app.domain.remediation import StepSpec, Switchable

_KINDS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}


@dataclass(frozen=True, slots=True)
class _Place:
    """A namespace, or a pattern of namespaces, of one cluster."""

    cluster: str
    namespace: str

    def __str__(self) -> str:
        name = self.namespace if self.cluster == DEFAULT else f"{self.cluster}/{self.namespace}"
        return f"namespaces {name}" if is_pattern(self.namespace) else f"namespace {name}"


def needs(asking: Asking, target: KubernetesTarget) -> Iterator[Need | Finding]:
    """Every right in every place, then the dry run where no alert is needed for it."""
    subject = "the target in Kubernetes"
    places = _places(asking, target)
    if not places:
        yield cannot(subject, f"scope.kubernetes.namespaces names none; {DENIED}")
    kind = "" if asking.is_open(target.kind) else target.kind
    for place in places:
        # A pattern of the scope is in scope; what matches it and is protected is refused when an alert names it.
        fields = {"cluster": place.cluster, "namespace": place.namespace, "kind": kind}
        claimed = None if is_pattern(place.namespace) else KUBERNETES.target.known(fields)
        objection = None if claimed is None else asking.scope.objection(claimed)
        if objection is not None:
            yield cannot(subject, f"{objection}; {DENIED}")
            return
        for permission in _permissions(asking, kind):
            yield _access(asking, permission, place)
    if not asking.is_open(target.model_dump()):
        yield _dry_run(asking, target)


def _places(asking: Asking, target: KubernetesTarget) -> list[_Place]:
    """Return the possible places of the target: fixed fields are certain, the scope allows the rest."""
    found = []
    clusters = {DEFAULT, *asking.clients.connections.of(KUBERNETES.name)}
    for outer, inner in asking.scope.of(KUBERNETES.name).pairs():
        meant = clusters if asking.is_open(target.cluster) else {target.cluster}
        named = inner if asking.is_open(target.namespace) else target.namespace
        found += [_Place(one, named) for one in sorted(meant) if fnmatchcase(one, outer)]
    if not asking.is_open(target.cluster) and not asking.is_open(target.namespace):
        return [_Place(target.cluster, target.namespace)]
    return list(dict.fromkeys(found))


def _permissions(asking: Asking, kind: str) -> list[Permission]:
    """Every right that a run may use; of workloads those of the target's kind, where that is known."""
    permissions = [one for one in asking.permissions(KUBERNETES.name) if one not in POPULATION_PERMISSIONS]
    resource = _KINDS.get(kind)
    if resource is None:
        permissions += POD_PERMISSIONS
    else:
        others = {*_KINDS.values()} - {resource}
        permissions = [one for one in permissions if one.resource.partition("/")[0] not in others]
        permissions.append(Permission("kubernetes", "apps", resource, ("get",)))
    if Switchable.STORM not in asking.remediation.without_guards:
        permissions += POPULATION_PERMISSIONS
    verbs: dict[Permission, list[str]] = {}
    for one in permissions:
        verbs.setdefault(replace(one, verbs=()), []).extend(one.verbs)
    return [replace(one, verbs=tuple(dict.fromkeys(found))) for one, found in verbs.items()]


def _access(asking: Asking, permission: Permission, place: _Place) -> Need:
    group = f" ({permission.group})" if permission.group else ""
    subject = f"{', '.join(permission.verbs)} {permission.resource}{group} in {place}"

    async def ask() -> Finding | None:
        cluster = await KUBERNETES.client(asking.clients, place.cluster)
        everywhere = is_pattern(place.namespace)
        namespace = "" if everywhere else place.namespace
        missing = [verb for verb in permission.verbs if not await cluster.may(verb, permission, namespace)]
        if not missing:
            return None
        verbs = ", ".join(missing)
        rule = f'{{apiGroups: ["{permission.group}"], resources: [{permission.resource}], verbs: [{verbs}]}}'
        if everywhere:
            message = f"not allowed to {verbs} in every namespace, and which ones match is not known; name them in "
            message += f"scope.kubernetes.namespaces, or give the service account a ClusterRole with the rule {rule}"
            return unknown(subject, message)
        return cannot(subject, f"not allowed to {verbs}; give the service account a Role there with the rule {rule}")

    return Need(f"kubernetes {subject}", subject, ask)


def _dry_run(asking: Asking, target: KubernetesTarget) -> Need:
    """Send the steps of now to the API server for a dry run; an objection that only holds now is no finding."""
    place = target.namespace if target.cluster == DEFAULT else f"{target.cluster}/{target.namespace}"
    subject = f"{target.kind} {place}/{target.name}"

    async def ask() -> Finding | None:
        kind = KUBERNETES.target
        resolved = await kind.resolve(asking.clients, await kind.claim(asking.clients, target))
        context = Context(asking.clients, asking.scope, "preflight", resolved, asking.now())
        for step in asking.steps:
            action = actions()[step.action]
            if action.can_dry_run and not asking.is_open(step.with_):
                finding = await _dry_run_step(subject, action, context, step)
                if finding is not None:
                    return finding
        return None

    return Need(f"dry run of {asking.remediation.name}", subject, ask)


async def _dry_run_step(subject: str, action: Action[Any], context: Context, step: StepSpec) -> Finding | None:
    try:
        planned = await action.plan(context, action.Params.model_validate(step.with_))
    except PermanentError as error:
        if error.reason is Reason.FORBIDDEN:
            raise
        return None
    if not planned.changes or planned.conditions:
        return None
    try:
        await action.dry_run(context, planned)
    except PermanentError as error:
        if error.reason is not Reason.CHANGED_SINCE_PLANNED:
            return cannot(subject, f"{action.name}, tried without effect: {error.message}")
    return None
