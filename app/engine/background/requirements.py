"""The needs of each remediation in other systems, from its declaration; `preflight` puts the questions.

A need that several remediations share has the same key and is asked once. A need that only an alert can tell is not
asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from app.backends.action import Action, Context
from app.backends.actions import actions
from app.backends.alertmanager.client import AlertmanagerClient
from app.backends.check import Check
from app.backends.checks import checks
from app.backends.instances import Clients
from app.backends.kubernetes.owners import POD_PERMISSIONS
from app.backends.kubernetes.workloads import POPULATION_PERMISSIONS
from app.backends.postgres.rights import missing_roles
from app.catalog.templates import contains_template
from app.domain.errors import PermanentError
from app.domain.findings import Finding, Result
from app.domain.permissions import Permission
from app.domain.plans import Target
from app.domain.reasons import Reason
from app.domain.remediation import (
    CheckSpec,
    KubernetesTarget,
    Mode,
    PostgresTarget,
    RedisTarget,
    Remediation,
    StepSpec,
    Switchable,
)
from app.domain.scope import Scope
from app.engine.context import EngineContext

_KINDS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
_WILD = frozenset("*?[")
_NO_ALERT = "RemediatorPreflight"  # asked for by name, so that the answer is small
_DENIED = "every run would be denied"
_UNTOLD = "the server does not tell this user its rights; ACL SETUSER … +acl|whoami +acl|dryrun (Redis 7 or later)"


@dataclass(frozen=True, slots=True)
class Need:
    """One question; `ask` raises AppError where the answer is no."""

    key: str
    subject: str
    ask: Callable[[], Awaitable[Finding | None]]  # None: well; else the finding


@dataclass(frozen=True, slots=True)
class _Of:
    """A remediation and where it would work."""

    remediation: Remediation
    parts: EngineContext

    @property
    def clients(self) -> Clients:
        return self.parts.clients

    @property
    def scope(self) -> Scope:
        return self.parts.policy.scope

    @property
    def steps(self) -> Iterator[StepSpec]:
        return (step for rung in self.remediation.rungs for step in rung.steps)

    @property
    def checks(self) -> Iterator[CheckSpec]:
        yield from self.remediation.when
        for rung in self.remediation.rungs:
            yield from rung.verify

    def permissions(self, backend: str) -> list[Permission]:
        """Return the permissions that its actions and checks declare for a backend, each once."""
        used: list[Action[Any] | Check[Any]] = [actions()[step.action] for step in self.steps]
        used += [checks()[check.check] for check in self.checks]
        return list(dict.fromkeys(one for each in used for one in each.permissions if one.backend == backend))


def needs_of(remediation: Remediation, parts: EngineContext) -> list[Need | Finding]:
    """Return the questions to ask, and the answers that need no question."""
    of = _Of(remediation, parts)
    found: list[Need | Finding] = []
    target = remediation.target
    if target is not None and target.kubernetes is not None:
        found += _kubernetes(of, target.kubernetes)
    if target is not None and target.postgres is not None:
        found += _postgres(of, target.postgres)
    if target is not None and target.redis is not None:
        found += _redis(of, target.redis)
    return [*found, *_named(of)]


def _cannot(subject: str, message: str) -> Finding:
    return Finding(subject=subject, result=Result.CANNOT, message=message)


def _unknown(subject: str, message: str) -> Finding:
    return Finding(subject=subject, result=Result.UNKNOWN, message=message)


# Kubernetes


def _kubernetes(of: _Of, target: KubernetesTarget) -> Iterator[Need | Finding]:
    subject = "the target in Kubernetes"
    namespaces: tuple[str, ...] = (target.namespace,)
    if contains_template(target.namespace):
        namespaces = of.scope.namespaces
        if not namespaces:
            yield _cannot(subject, f"scope.namespaces names none; {_DENIED}")
    kind = "" if contains_template(target.kind) else target.kind
    for namespace in namespaces:
        claimed = Target(backend="kubernetes", key="kubernetes:", kind=kind, namespace=namespace)
        # A pattern of the scope is in scope; what matches it and is protected is refused when an alert names it.
        objection = None if _is_pattern(namespace) else of.scope.objection(claimed)
        if objection is not None:
            yield _cannot(subject, f"{objection}; {_DENIED}")
            return
        for permission in _kubernetes_permissions(of, kind):
            yield _access(of, permission, namespace)
    if not contains_template(target.model_dump()):
        yield _dry_run(of, target)


def _kubernetes_permissions(of: _Of, kind: str) -> list[Permission]:
    """Every right that a run may use; of workloads those of the target's kind, where that is known."""
    permissions = [one for one in of.permissions("kubernetes") if one not in POPULATION_PERMISSIONS]
    resource = _KINDS.get(kind)
    if resource is None:
        permissions += POD_PERMISSIONS
    else:
        others = {*_KINDS.values()} - {resource}
        permissions = [one for one in permissions if one.resource.partition("/")[0] not in others]
        permissions.append(Permission("kubernetes", "apps", resource, ("get",)))
    if Switchable.STORM not in of.remediation.without_guards:
        permissions += POPULATION_PERMISSIONS
    verbs: dict[Permission, list[str]] = {}
    for one in permissions:
        verbs.setdefault(replace(one, verbs=()), []).extend(one.verbs)
    return [replace(one, verbs=tuple(dict.fromkeys(found))) for one, found in verbs.items()]


def _access(of: _Of, permission: Permission, namespace: str) -> Need:
    is_pattern = _is_pattern(namespace)
    group = f" ({permission.group})" if permission.group else ""
    where = f"namespaces {namespace}" if is_pattern else f"namespace {namespace}"
    subject = f"{', '.join(permission.verbs)} {permission.resource}{group} in {where}"

    async def ask() -> Finding | None:
        cluster = await of.clients.kubernetes()
        place = "" if is_pattern else namespace
        missing = [verb for verb in permission.verbs if not await cluster.may(verb, permission, place)]
        if not missing:
            return None
        verbs = ", ".join(missing)
        rule = f'{{apiGroups: ["{permission.group}"], resources: [{permission.resource}], verbs: [{verbs}]}}'
        if is_pattern:
            message = f"not allowed to {verbs} in every namespace, and which ones match is not known; name them in "
            message += f"scope.namespaces, or give the service account a ClusterRole with the rule {rule}"
            return _unknown(subject, message)
        return _cannot(subject, f"not allowed to {verbs}; give the service account a Role there with the rule {rule}")

    return Need(f"kubernetes {subject}", subject, ask)


def _dry_run(of: _Of, target: KubernetesTarget) -> Need:
    """Send the steps of now to the API server for a dry run; an objection that only holds now is no finding."""
    subject = f"{target.kind} {target.namespace}/{target.name}"

    async def ask() -> Finding | None:
        cluster = await of.clients.kubernetes()
        resolved = await cluster.resolve(target.kind, target.namespace, target.name)
        context = Context(of.clients, of.scope, "preflight", resolved, of.parts.clock())
        for step in of.steps:
            action = actions()[step.action]
            if action.can_dry_run and not contains_template(step.with_):
                finding = await _dry_run_step(subject, action, context, step)
                if finding is not None:
                    return finding
        return None

    return Need(f"dry run of {of.remediation.name}", subject, ask)


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
            return _cannot(subject, f"{action.name}, tried without effect: {error.message}")
    return None


# PostgreSQL and Redis


def _places(
    named: tuple[str, object], patterns: Collection[str], known: Collection[str]
) -> list[tuple[str, str | None]]:
    """Return the (instance, database) pairs that a target may mean; None stands for the default or any database."""
    instance, database = named
    if not contains_template(instance) and not contains_template(database):
        return [(instance, None if database is None else str(database))]
    found: list[tuple[str, str | None]] = []
    for pattern in patterns:
        outer, _, inner = pattern.partition("/")
        meant = known if contains_template(instance) else {instance}
        found += [(one, None if _is_pattern(inner) else inner) for one in sorted(meant) if fnmatchcase(one, outer)]
    return list(dict.fromkeys(found))


def _postgres(of: _Of, target: PostgresTarget) -> Iterator[Need | Finding]:
    subject = "the target in PostgreSQL"
    places = _places((target.instance, target.database), of.scope.postgres, of.clients.connections.postgres)
    if not places:
        yield _cannot(subject, f"scope.postgres names none that is configured; {_DENIED}")
    roles = tuple(one.resource for one in of.permissions("postgres"))
    for instance, database in places:
        yield _postgres_login(of, instance, database, roles)


def _postgres_login(of: _Of, instance: str, database: str | None, roles: tuple[str, ...]) -> Need:
    subject = f"PostgreSQL {instance}" + (f"/{database}" if database else "")
    needed = f" as member of {', '.join(roles)}" if roles else ""

    async def ask() -> Finding | None:
        client = of.clients.postgres(instance)
        resolved = client.resolve(instance, database)
        objection = of.scope.objection(resolved)
        if objection is not None:
            return _cannot(subject, f"{objection}; {_DENIED}")
        login, missing = await missing_roles(client, resolved.name, roles)
        if not missing:
            return None
        grant = f"GRANT {', '.join(missing)} TO {login}"
        return _cannot(subject, f"login {login} is no member of {', '.join(missing)}; {grant}")

    return Need(f"{subject}{needed}", subject, ask)


def _redis(of: _Of, target: RedisTarget) -> Iterator[Need | Finding]:
    subject = "the target in Redis"
    places = _places((target.instance, target.database), of.scope.redis, of.clients.connections.redis)
    if not places:
        yield _cannot(subject, f"scope.redis names none that is configured; {_DENIED}")
    commands = tuple(dict.fromkeys(one.resource for one in of.permissions("redis")))
    writes = any(actions()[step.action].target_backend == "redis" for step in of.steps)
    for instance, database in places:
        yield _redis_user(of, (instance, database), commands, writes=writes)


def _redis_user(of: _Of, place: tuple[str, str | None], commands: tuple[str, ...], *, writes: bool) -> Need:
    instance, database = place
    subject = f"Redis {instance}" + (f"/{database}" if database else "")

    async def ask() -> Finding | None:
        client = of.clients.redis(instance)
        resolved = client.resolve(instance, int(database or 0))
        objection = of.scope.objection(resolved) if database else None
        if objection is not None:
            return _cannot(subject, f"{objection}; {_DENIED}")
        async with client.database(int(resolved.name)) as redis:
            told = await client.rights(redis, commands)
            if told is None or not told.forbidden:
                await client.require_data(redis)
            if told is None:
                return _unknown(subject, _UNTOLD)
            if told.objection:
                return _cannot(subject, told.objection)
            if writes:
                await client.require_primary(redis)
        return None

    return Need(f"{subject} {commands} {writes}", subject, ask)


# The names in the configuration, and the servers behind them


def _named(of: _Of) -> Iterator[Need | Finding]:
    """Channels, secrets, hosts and Prometheus, as far as no alert fills them in."""
    specs: list[StepSpec | CheckSpec] = [*of.steps, *of.checks]
    channels = {spec.with_.get("channel") for spec in specs} | {of.remediation.channel}
    if of.remediation.mode is Mode.APPROVE and of.remediation.channel is None:
        channels.add(of.parts.policy.channel)
    for channel in sorted(str(one) for one in channels if one and not contains_template(one)):
        yield _channel(of, channel)
    for secret in sorted({str(spec.with_["bearer_token"]) for spec in specs if spec.with_.get("bearer_token")}):
        if not contains_template(secret):
            yield _secret(of, secret)
    for origin in sorted({_origin(spec.with_.get("url")) for spec in specs} - {""}):
        yield _host(of, origin)
    if any(isinstance(spec, CheckSpec) and spec.check == "prometheus.query" for spec in specs):
        yield _prometheus(of)
    alertmanager = of.clients.alertmanager()
    if alertmanager is not None and Switchable.FRESH not in of.remediation.without_guards:
        yield _alertmanager(alertmanager)


def _channel(of: _Of, channel: str) -> Need:
    async def ask() -> None:
        await of.clients.notifier(channel).verify()

    return Need(f"channel {channel}", f"channel {channel}", ask)


def _secret(of: _Of, name: str) -> Need:
    async def ask() -> Finding | None:
        empty = not of.clients.http().secret(name).read().strip()
        return _cannot(f"secret {name}", "it is empty") if empty else None

    return Need(f"secret {name}", f"secret {name}", ask)


def _host(of: _Of, origin: str) -> Need | Finding:
    """Resolve the name without a connection: the host of a remediation may well be down now."""
    host = urlsplit(origin).hostname or ""
    objection = of.scope.host_objection(host)
    if objection is not None:
        return _cannot(f"host {host}", f"{objection}; {_DENIED}")

    async def ask() -> None:
        await of.clients.http().addresses(origin)

    return Need(f"host {host}", f"host {host}", ask)


def _origin(url: object) -> str:
    """Scheme and authority of a URL, or nothing where an alert fills them in."""
    scheme, _, rest = str(url or "").partition("://")
    authority = rest.partition("/")[0]
    return "" if not authority or contains_template(f"{scheme}{authority}") else f"{scheme}://{authority}/"


def _prometheus(of: _Of) -> Need:
    async def ask() -> None:
        await of.clients.prometheus().query("vector(1)")

    return Need("prometheus", "Prometheus", ask)


def _alertmanager(client: AlertmanagerClient) -> Need:
    """Without any answer of it no run would begin."""
    subject = "Alertmanager"

    async def ask() -> Finding | None:
        answers = await client.of_name(_NO_ALERT)
        return None if answers.groups else _cannot(subject, "; ".join(answers.missing))

    return Need(subject, subject, ask)


def _is_pattern(text: str) -> bool:
    return not _WILD.isdisjoint(text)
