"""Preflight on real systems: what is missing is found before a run needs it, and said with what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.backends.actions import actions
from app.backends.connections import Connections
from app.backends.kubernetes.backend import KubernetesConnection
from app.backends.kubernetes.owners import POD_PERMISSIONS
from app.backends.kubernetes.workloads import POPULATION_PERMISSIONS
from app.backends.notify.backend import NotifyChannel
from app.backends.prometheus.backend import PrometheusConnection
from app.backends.scope import Scope
from app.backends.secrets import SecretSource
from app.domain.findings import Report, Result
from app.domain.permissions import Permission
from app.engine.background.preflight import Preflight
from tests.conftest import StartAlertmanager, StartRedis
from tests.support import shop
from tests.support.aio import run
from tests.support.cluster import Cluster
from tests.support.engine import Engine, engine, sqlite, until
from tests.support.entries import cache, flush, remediation
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port, wait_until
from tests.support.redis import RedisServer, sentinel
from tests.support.shop import Shop, to_postgres

Look = Callable[..., Report]
RESTART = {"steps": [{"action": "kubernetes.rollout_restart"}], "verify": [{"check": "kubernetes.rollout_complete"}]}
SCALE = {
    "steps": [{"action": "kubernetes.scale", "with": {"by": 1, "max": 5}}],
    "verify": [{"check": "kubernetes.ready"}],
}


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """What the preflight finds out about one remediation."""

    def ask(entry: Mapping[str, Any], connections: Connections | None = None, **scope: Any) -> Report:
        async def body() -> Report:
            rules = {"connections": connections or Connections(), "scope": Scope(**scope), "working": False}
            async with engine(sqlite(tmp_path), tmp_path, entry, **rules) as one:
                (report,) = await Preflight(one.parts).look(one.catalog.current.remediations.values())
                return report

        return run(body())

    return ask


def messages(report: Report, result: Result = Result.CANNOT) -> list[str]:
    """What is not well, in words."""
    return [f"{one.subject}: {one.message}" for one in report.findings if one.result is result]


# Kubernetes


def on(kind: str, namespace: str, name: str = "api", **fields: Any) -> dict[str, Any]:
    """A remediation of a workload, without the guard that reads its whole namespace unless said otherwise."""
    target = {"kubernetes": {"kind": kind, "namespace": namespace, "name": name}}
    return remediation(**({"target": target} | fields))


@pytest.fixture
def account(cluster: Cluster, namespace: str) -> Callable[[Sequence[Permission]], Connections]:
    """Connections of a new service account with exactly these permissions in the test's namespace."""
    names = iter(range(1000))

    def make(permissions: Sequence[Permission]) -> Connections:
        name = f"account-{next(names)}"
        kubeconfig = cluster.service_account_kubeconfig(namespace, name)
        rules = [{"apiGroups": [p.group], "resources": [p.resource], "verbs": list(p.verbs)} for p in permissions]
        if rules:
            cluster.grant(namespace, name, rules)
        return Connections(
            kubernetes={"default": KubernetesConnection(kubeconfig=kubeconfig)}, timeout=timedelta(seconds=10)
        )

    return make


Account = Callable[[Sequence[Permission]], Connections]


def singles(permissions: Sequence[Permission]) -> list[Permission]:
    """One permission for each verb and resource."""
    each = [Permission(p.backend, p.group, p.resource, (verb,)) for p in permissions for verb in p.verbs]
    return list(dict.fromkeys(each))


@pytest.mark.parametrize("fields", [RESTART, SCALE], ids=["rollout_restart", "scale"])
def test_each_right_that_is_missing_is_found(
    cluster: Cluster, namespace: str, account: Account, look: Look, fields: dict[str, Any]
) -> None:
    """With all of them it can run; without any single one it cannot, and the message has the rule that is missing."""
    cluster.create_deployment(namespace, "api")
    declared = [*actions()[fields["steps"][0]["action"]].permissions, *POPULATION_PERMISSIONS]
    needed = [
        one
        for one in singles(declared)
        if one.verbs == ("list",) or one.resource.partition("/")[0] in {"deployments", "horizontalpodautoscalers"}
    ]
    entry = on("Deployment", namespace, **fields)
    complete = look(entry, account(needed), kubernetes={"namespaces": [namespace]})
    assert (Result.OK, []) == (complete.result, messages(complete))
    for missing in needed:
        report = look(entry, account([one for one in needed if one != missing]), kubernetes={"namespaces": [namespace]})
        (verb,) = missing.verbs
        rule = f'{{apiGroups: ["{missing.group}"], resources: [{missing.resource}], verbs: [{verb}]}}'
        assert Result.CANNOT is report.result, missing
        assert any(rule in text for text in messages(report)), (missing, messages(report))


def test_a_pod_as_target_needs_the_way_to_its_owner(namespace: str, account: Account, look: Look) -> None:
    """Rights of all kinds of workloads, and of what lies between them and a pod."""
    entry = on("Pod", namespace, "{{ labels.pod }}", **RESTART)
    needed = singles([*actions()["kubernetes.rollout_restart"].permissions, *POPULATION_PERMISSIONS, *POD_PERMISSIONS])
    assert Result.OK is look(entry, account(needed), kubernetes={"namespaces": [namespace]}).result
    for missing in singles(POD_PERMISSIONS):
        report = look(entry, account([one for one in needed if one != missing]), kubernetes={"namespaces": [namespace]})
        assert any(f"resources: [{missing.resource}]" in text for text in messages(report)), missing


def test_namespaces_that_alerts_name_are_those_of_the_scope(namespace: str, account: Account, look: Look) -> None:
    """Each of them is asked; without any the remediation can never run; of a pattern nobody can tell."""
    entry = on("Deployment", "{{ labels.namespace }}", "{{ labels.deployment }}", **RESTART)
    needed = singles([*actions()["kubernetes.rollout_restart"].permissions, *POPULATION_PERMISSIONS])
    connections = account(needed)
    assert Result.OK is look(entry, connections, kubernetes={"namespaces": [namespace]}).result
    elsewhere = look(entry, connections, kubernetes={"namespaces": [namespace, "elsewhere"]})
    assert messages(elsewhere)
    assert all("in namespace elsewhere: not allowed to" in text for text in messages(elsewhere))
    assert ["the target in Kubernetes: scope.kubernetes.namespaces names none; every run would be denied"] == messages(
        look(entry, connections)
    )
    wide = look(entry, connections, kubernetes={"namespaces": ["test-*"]})
    assert Result.UNKNOWN is wide.result
    assert all("ClusterRole" in text for text in messages(wide, Result.UNKNOWN))


def test_a_place_out_of_scope_is_found(look: Look) -> None:
    """Without asking anybody."""
    told = (
        "the target in Kubernetes: namespace 'shop' is not in scope; add it to scope.kubernetes.namespaces and restart"
    )
    assert [f"{told}; every run would be denied"] == messages(look(on("Deployment", "shop", **RESTART)))


def test_a_target_that_does_not_exist_is_found(cluster: Cluster, namespace: str, look: Look) -> None:
    """As long as no alert names it."""
    connections = Connections(kubernetes={"default": KubernetesConnection(kubeconfig=cluster.kubeconfig)})
    report = look(
        on("Deployment", namespace, "nothing", **RESTART), connections, kubernetes={"namespaces": [namespace]}
    )
    assert [f"Deployment {namespace}/nothing: Deployment {namespace}/nothing does not exist"] == messages(report)


def test_the_api_server_judges_what_would_be_sent(cluster: Cluster, namespace: str, look: Look) -> None:
    """The dry run leaves the workload as it was; an admission policy that would refuse the patch is found."""
    cluster.deployment(namespace, "api")
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/api"
    connections = Connections(kubernetes={"default": KubernetesConnection(kubeconfig=cluster.kubeconfig)})
    before = cluster.get(path)["metadata"]["generation"]
    for fields in (RESTART, SCALE):
        report = look(on("Deployment", namespace, **fields), connections, kubernetes={"namespaces": [namespace]})
        assert (Result.OK, []) == (report.result, messages(report))
    with policy(cluster, namespace):

        def refused() -> bool:  # the API server takes a moment to know a new policy
            report = look(on("Deployment", namespace, **RESTART), connections, kubernetes={"namespaces": [namespace]})
            return any("not on a Saturday" in text for text in messages(report))

        wait_until(refused, 60, "the policy to be in force")
    assert before == cluster.get(path)["metadata"]["generation"]


@contextmanager
def policy(cluster: Cluster, namespace: str) -> Iterator[None]:
    """An admission policy that refuses every change of a Deployment of this namespace."""
    root = "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "not on a Saturday"}],
    }
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    binding = {
        "policyName": namespace,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": selector},
    }
    cluster.create(f"{root}/validatingadmissionpolicies", {"metadata": {"name": namespace}, "spec": spec})
    cluster.create(f"{root}/validatingadmissionpolicybindings", {"metadata": {"name": namespace}, "spec": binding})
    try:
        yield
    finally:
        cluster.delete(f"{root}/validatingadmissionpolicybindings/{namespace}")
        cluster.delete(f"{root}/validatingadmissionpolicies/{namespace}")


def test_a_cluster_that_is_away_is_found(tmp_path: Path, cluster: Cluster, look: Look) -> None:
    """And credentials that cannot be read; neither takes long."""
    dead = tmp_path / "dead.kubeconfig"
    dead.write_text(cluster.kubeconfig.read_text().replace(cluster.url, f"https://127.0.0.1:{free_port()}"))
    for kubeconfig, told in ((dead, "cannot reach the cluster"), (tmp_path / "none", "there is no such file")):
        connections = Connections(kubernetes={"default": KubernetesConnection(kubeconfig=kubeconfig)})
        began = time.monotonic()
        report = look(on("Deployment", "shop", **RESTART), connections, kubernetes={"namespaces": ["shop"]})
        assert Result.CANNOT is report.result
        assert all(told in text for text in messages(report))
        assert time.monotonic() - began < 30


# PostgreSQL


TERMINATE = {
    "steps": [{"action": "postgres.terminate_idle"}],
    "verify": [{"check": "postgres.connections", "with": {"max": 5}}],
}


@pytest.fixture
def the_shop(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Shop]:
    """A database with the roles that the documentation asks for."""
    with shop.build(postgres_server, postgres_database) as built:
        yield built


def terminate(database: str | None) -> dict[str, Any]:
    """A remediation that ends idle sessions."""
    target = {"instance": "main"} | ({} if database is None else {"database": database})
    return remediation(target={"postgres": target}, **TERMINATE)


def test_a_login_without_its_roles_is_found(the_shop: Shop, look: Look) -> None:
    """Each role by its name, with the statement that grants it."""
    scope = {"postgres": {"databases": [f"main/{the_shop.database}"]}}
    for database in (the_shop.database, None):
        assert Result.OK is look(terminate(database), the_shop.connections(), **scope).result
    login = the_shop.remediator_role
    the_shop.server.execute(f"REVOKE pg_signal_backend FROM {login}")
    told = f"login {login} is no member of pg_signal_backend; GRANT pg_signal_backend TO {login}"
    report = look(terminate(the_shop.database), the_shop.connections(), **scope)
    assert [f"PostgreSQL main/{the_shop.database}: {told}"] == messages(report)
    report = look(terminate(the_shop.database), the_shop.connections(the_shop.app_role), **scope)
    assert "pg_read_all_stats, pg_signal_backend" in messages(report)[0]


def test_databases_that_alerts_name_are_those_of_the_scope(the_shop: Shop, look: Look) -> None:
    """One that does not exist is found; one that the configuration does not know is none."""
    entry = terminate("{{ labels.database }}")
    connections = the_shop.connections()
    assert Result.OK is look(entry, connections, postgres={"databases": [f"main/{the_shop.database}", "main/*"]}).result
    report = look(entry, connections, postgres={"databases": ["main/nothing"]})
    assert ['PostgreSQL main/nothing: PostgreSQL: database "nothing" does not exist (3D000)'] == messages(report)
    assert (
        "scope.postgres.databases names none that is configured"
        in messages(look(entry, connections, postgres={"databases": ["other/x"]}))[0]
    )
    assert "is not in scope" in messages(look(terminate(the_shop.database), connections))[0]


def test_a_postgres_that_is_away_is_found(look: Look) -> None:
    """With the reason, and never with its URL."""
    connections = to_postgres(f"postgresql://u:hunter2@127.0.0.1:{free_port()}/orders")
    report = look(terminate("orders"), connections, postgres={"databases": ["main/orders"]})
    assert ["PostgreSQL main/orders: cannot connect to PostgreSQL: connection refused"] == messages(report)


# Redis


def user(server: Any, *rules: str) -> Connections:
    """Connections as a new user with these rules."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "robot", "reset", "on", ">pass", "~*", *rules)
    url = f"redis://robot:pass@{server.host}:{server.port}"
    return Connections.model_validate({"redis": {"cache": {"url": {"value": url}}}})


ASK = ("+acl|whoami", "+acl|dryrun")
FLUSH = ("+info", "+dbsize", "+flushdb", "+select")


def test_a_user_without_a_command_is_found(start_redis: StartRedis, look: Look) -> None:
    """Each command by its name, and nothing is run: the keys are all there."""
    server = start_redis()
    with server.client() as client:
        client.set("key", "value")
    assert Result.OK is look(flush(), cache(server), redis={"databases": ["cache/0"]}).result
    assert Result.OK is look(flush(), user(server, *FLUSH, *ASK), redis={"databases": ["cache/0"]}).result
    for missing in FLUSH:
        report = look(flush(), user(server, *(set(FLUSH) - {missing}), *ASK), redis={"databases": ["cache/0"]})
        name = missing.removeprefix("+")
        assert [f"Redis cache/0: user robot may not run {name}; ACL SETUSER robot {missing}"] == messages(report)
    with server.client() as client:
        assert "value" == client.get("key")


def test_a_user_that_is_not_told_its_rights(start_redis: StartRedis, look: Look) -> None:
    """Unknown, with what would make it known."""
    report = look(flush(), user(start_redis(), *FLUSH), redis={"databases": ["cache/0"]})
    assert Result.UNKNOWN is report.result
    assert "+acl|whoami +acl|dryrun" in messages(report, Result.UNKNOWN)[0]


def test_redis_servers_that_would_refuse(start_redis: StartRedis, look: Look) -> None:
    """Away, a replica, a wrong password, a database that it does not have, and one that is not configured."""
    primary = start_redis()
    replica = start_redis({"replicaof": f"127.0.0.1 {primary.port}"})
    away = Connections.model_validate({"redis": {"cache": {"url": {"value": f"redis://127.0.0.1:{free_port()}"}}}})
    wrong = f"redis://robot:wrong@{primary.host}:{primary.port}"
    refused = Connections.model_validate({"redis": {"cache": {"url": {"value": wrong}}}})
    for connections, entry, told in (
        (cache(replica), flush(), "this Redis is a replica"),
        (away, flush(), "cannot connect to Redis"),
        (refused, flush(), "WRONGPASS"),
        (cache(primary), flush("99"), "has no database 99"),
        (Connections(), flush(), "connections.redis has no 'cache'"),
    ):
        (message,) = messages(look(entry, connections, redis={"databases": ["cache/*"]}))
        assert told in message


def test_redis_servers_that_lack_a_command_or_are_no_server(
    start_redis: StartRedis, redis_server: RedisServer, tmp_path: Path, look: Look
) -> None:
    """A renamed command is not the ACL's doing; a Sentinel and a node of a cluster are named as such."""
    for renamed in ('FLUSHDB ""', 'FLUSHDB x\nrename-command ACL ""'):
        (message,) = messages(
            look(flush(), cache(start_redis({"rename-command": renamed})), redis={"databases": ["cache/0"]})
        )
        assert "the server does not know flushdb" in message
        assert "SETUSER" not in message
    node = start_redis({"cluster-enabled": "yes"})
    node.form_cluster()
    assert Result.OK is look(flush(), cache(node), redis={"databases": ["cache/0"]}).result
    (message,) = messages(look(flush("3"), cache(node), redis={"databases": ["cache/3"]}))
    assert "a node of a cluster has database 0 only" in message
    memory = remediation(
        target={"redis": {"instance": "cache", "database": "0"}},
        steps=[{"action": "http.request", "with": {"url": "http://127.0.0.1:9/"}}],
        verify=[{"check": "redis.memory", "with": {"max": "1GB"}}],
    )
    with sentinel(tmp_path, redis_server) as server:
        for entry in (flush(), memory):
            (message,) = messages(look(entry, cache(server), redis={"databases": ["cache/0"]}, http={"hosts": ["*"]}))
            assert "this is a Sentinel" in message


# What the configuration names


def test_what_the_configuration_lacks_is_found(tmp_path: Path, look: Look) -> None:
    """Secrets, channels, hosts and Prometheus; what only an alert will tell is not asked."""
    step = {"action": "http.request", "with": {"url": "http://127.0.0.1:9/{{ labels.x }}", "bearer_token": "key"}}
    tell = {"action": "notify.send", "with": {"channel": "oncall", "title": "t", "body": "b"}}
    free = {"action": "http.request", "with": {"url": "http://{{ labels.host }}/"}}
    entry = remediation(steps=[step, tell, free], verify=[{"check": "prometheus.query", "with": {"query": "up == 1"}}])
    denied = "host '127.0.0.1' is not in scope; add it to scope.http.hosts and restart; every run would be denied"
    assert [
        "secret key: connections.secrets has no 'key' (configured: none)",
        f"host 127.0.0.1: {denied}",
        "channel oncall: connections.notify has no 'oncall' (configured: none)",
        "Prometheus: connections.prometheus has no 'default' (configured: none)",
    ] == messages(look(entry))
    (tmp_path / "empty").write_text("")
    connections = Connections(
        secrets={"key": SecretSource(file=tmp_path / "empty")},
        notify={"oncall": NotifyChannel(urls=(SecretSource(value=SecretStr("no-such-service")),))},
        prometheus={"default": PrometheusConnection(url=f"http://127.0.0.1:{free_port()}")},
    )
    found = messages(look(entry, connections, http={"hosts": ["127.0.0.1"]}))
    assert ["URL 1 of the notification channel is not an Apprise URL", "it is empty", "cannot connect"] == [
        told
        for told in ("URL 1 of the notification channel is not an Apprise URL", "it is empty", "cannot connect")
        if any(told in text for text in found)
    ]
    assert 3 == len(found)


def test_an_alertmanager_that_no_member_answers_for_is_found(look: Look, start_alertmanager: StartAlertmanager) -> None:
    """One that answers is enough; who does not ask it does not need it."""
    dead = f"http://127.0.0.1:{free_port()}"
    alive = start_alertmanager("route: {receiver: none}\nreceivers: [{name: none}]\n").url
    entry = remediation(steps=[{"action": "http.request", "with": {"url": "http://{{ labels.host }}/"}}])

    def asking(*urls: str) -> Connections:
        return Connections.model_validate({"alertmanager": {"default": {"urls": urls}}})

    assert Result.OK is look(entry, asking(dead, alive)).result
    (message,) = messages(look(entry, asking(dead)))
    assert message.startswith("Alertmanager: ")
    alone = look(entry | {"without_guards": {"fresh": "a test"}}, asking(dead))
    assert ((), Result.UNKNOWN) == (alone.findings, alone.result)  # nothing was asked, so nothing is known


def test_the_loop_keeps_what_it_found(tmp_path: Path) -> None:
    """For the API and as metrics: at once, after each change of the catalog, and without names that are gone."""
    lacking = remediation(steps=[{"action": "notify.send", "with": {"channel": "x", "title": "t", "body": "b"}}])
    well = remediation(name="well", steps=[{"action": "http.request", "with": {"url": "http://127.0.0.1:9/"}}])

    async def body() -> None:
        async with engine(sqlite(tmp_path), tmp_path, lacking, working=False) as one:
            preflight = Preflight(one.parts)
            loop = asyncio.create_task(preflight.look_forever(timedelta(hours=1)))
            await until(lambda: reported(preflight, "poke"), 10, "the first look")
            assert 0.0 == ok(one, "poke")
            one.catalog.put(well)
            await until(lambda: reported(preflight, "well"), 10, "a look at the new catalog")
            assert (1.0, None) == (ok(one, "well"), ok(one, "poke"))
            assert preflight.report("poke") is None
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    run(body())


async def reported(preflight: Preflight, name: str) -> bool:
    """Whether there is a report."""
    return preflight.report(name) is not None


def ok(one: Engine, name: str) -> float | None:
    """The metric of a remediation."""
    return one.parts.metrics.registry.get_sample_value("remediator_preflight_ok", {"remediation": name})
