"""The whole way on real parts: Prometheus, Alertmanager, the service as a process, and the target that recovers.

The series that fire are made from the real state of the targets, and the service has no more rights than its actions
and checks declare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import GaugeMetricFamily, Metric

from app.backends.actions import actions
from app.backends.checks import checks
from app.backends.kubernetes.owners import POD_PERMISSIONS
from app.backends.kubernetes.workloads import RESTARTED_AT
from app.domain.permissions import Permission
from tests.acceptance.audit import PATIENCE, Audit, kinds
from tests.acceptance.bench import EVERYWHERE, exporter, remediation, routes, serving
from tests.support import alertmanager, prometheus, redis, shop
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until
from tests.support.prometheus import Prometheus
from tests.support.redis import RedisServer
from tests.support.shop import Shop

PODS, CONNECTIONS, MEMORY = "pods-crash-loop", "connections-high", "memory-high"
PASSWORD = "correct-horse"
LEAKED = 12
RULES = {
    "groups": [
        {
            "name": "shop",
            "rules": [
                {"alert": PODS, "expr": "shop_pod_crashing == 1"},
                {"alert": CONNECTIONS, "expr": "shop_connections > 8", "for": "2s"},
                {"alert": MEMORY, "expr": "shop_memory_used_bytes / shop_memory_max_bytes > 0.7"},
            ],
        }
    ]
}
PROMETHEUS = """
global: {{scrape_interval: 500ms, evaluation_interval: 500ms, scrape_timeout: 500ms}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{router}"]}}]}}]}}
scrape_configs:
  - {{job_name: shop, honor_labels: true, static_configs: [{{targets: ["{shop}"]}}]}}
  - {{job_name: remediator, static_configs: [{{targets: ["127.0.0.1:{remediator}"]}}]}}
"""
BEGINNING = ["recorded", "running", "step_started", "step_succeeded", "verifying", "check"]


@dataclass
class World:
    """The targets as they really are; the exporter tells Prometheus about them at every scrape."""

    cluster: Cluster
    namespace: str
    database: Shop
    cache: RedisServer
    crashing: set[str] = field(default_factory=set)  # Deployments whose pods crash-loop until they are restarted

    def series(self) -> Iterable[Metric]:
        """What an exporter would see now."""
        pods = GaugeMetricFamily("shop_pod_crashing", "Whether a pod crash-loops.", labels=["namespace", "pod"])
        for pod in self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]:
            restarted = RESTARTED_AT in pod["metadata"].get("annotations", {})
            ill = pod["metadata"]["labels"]["app"] in self.crashing and not restarted
            pods.add_metric([self.namespace, pod["metadata"]["name"]], ill)
        yield pods
        yield GaugeMetricFamily("shop_connections", "Sessions of the application.", value=self.sessions())
        with self.cache.client() as client:
            info = client.info("memory")
        yield GaugeMetricFamily("shop_memory_used_bytes", "Memory in use.", value=info["used_memory"])
        yield GaugeMetricFamily("shop_memory_max_bytes", "Memory allowed.", value=info["maxmemory"])

    def sessions(self) -> int:
        """How many sessions the application has."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{self.database.app_role}'"
        return int(self.database.server.execute(query)[0][0])

    def deployment(self, name: str) -> dict[str, Any]:
        """A Deployment as it is."""
        return self.cluster.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}")


@dataclass
class Loop:
    """Everything that runs, from the series to the service."""

    world: World
    prometheus: Prometheus
    audit: Audit

    def counted(self, name: str, **labels: str) -> float:
        """What the service counts, as its Prometheus has scraped it."""
        selector = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return sum(float(one["value"][1]) for one in self.prometheus.query(f"{name}{{{selector}}}"))

    def wait_counted(self, expected: float, name: str, **labels: str) -> None:
        """Wait until the scrape has come that shows a number, and no other."""
        wait_until(lambda: self.counted(name, **labels) >= expected, PATIENCE, f"{name} {labels} to be {expected}")
        assert expected == self.counted(name, **labels)


def catalog(database: str) -> list[dict[str, Any]]:
    """What is done about the three kinds of trouble."""
    pod = {"kind": "Pod", "namespace": "{{ labels.namespace }}", "name": "{{ labels.pod }}"}
    idle = {"idle_longer_than": "1s", "exclude_applications": ["listener-*"]}
    return [
        remediation(
            PODS,
            {"action": "kubernetes.rollout_restart"},
            target={"kubernetes": pod},
            verify=[{"check": "kubernetes.rollout_complete", "timeout": "1m"}],
            settle="1m",
        ),
        remediation(
            CONNECTIONS,
            {"action": "postgres.terminate_idle", "with": idle},
            target={"postgres": {"instance": "main", "database": database}},
            verify=[{"check": "postgres.connections", "with": {"max": 5}}],
            settle="1m",
        ),
        remediation(
            MEMORY,
            {"action": "redis.delete_matching", "with": {"pattern": "page:*"}},
            allow_destructive=True,
            target={"redis": {"instance": "pages", "database": 0}},
            verify=[{"check": "redis.memory", "with": {"max_ratio": 0.5}}],
            settle="1m",
        ),
    ]


def declared(backend: str, action: str, check: str) -> list[Permission]:
    """The permissions that an action and a check say they need."""
    return [row for row in (*actions()[action].permissions, *checks()[check].permissions) if row.backend == backend]


def least_kubeconfig(cluster: Cluster, namespace: str) -> Path:
    """A service account that may do what is declared, and nothing else."""
    rows = [*declared("kubernetes", "kubernetes.rollout_restart", "kubernetes.rollout_complete"), *POD_PERMISSIONS]
    rules = [{"apiGroups": [row.group], "resources": [row.resource], "verbs": list(row.verbs)} for row in rows]
    kubeconfig = cluster.service_account_kubeconfig(namespace, "remediator")
    cluster.grant(namespace, "remediator", rules)
    return kubeconfig


def least_redis_user(server: RedisServer) -> str:
    """A Redis user that may do what is declared on the keys it is for; its URL."""
    commands = {f"+{row.resource}" for row in declared("redis", "redis.delete_matching", "redis.memory")}
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "remediator", "on", f">{PASSWORD}", "~page:*", *sorted(commands))
    return f"redis://remediator:{PASSWORD}@{server.host}:{server.port}"


@pytest.fixture(scope="module")
def loop(cluster: Cluster, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """All servers, with nothing wrong yet."""
    new = tmp_path_factory.mktemp
    with ExitStack() as stack:
        namespace = stack.enter_context(cluster.namespace())
        name = stack.enter_context(postgres_server.database())
        database = stack.enter_context(shop.build(postgres_server, postgres_server.database_url(name)))
        cache = stack.enter_context(redis.serve(new("redis"), {"maxmemory": "12mb", "maxmemory-policy": "noeviction"}))
        connections = {
            "kubernetes": {"default": {"kubeconfig": str(least_kubeconfig(cluster, namespace))}},
            "postgres": {"main": {"url": {"value": postgres_server.database_url(name, database.remediator_role)}}},
            "redis": {"pages": {"url": {"value": least_redis_user(cache)}}},
        }
        config = {"connections": connections, "scope": EVERYWHERE | {"kubernetes": {"namespaces": [namespace]}}}
        service = stack.enter_context(serving(new("service"), catalog(name), config))
        router = stack.enter_context(alertmanager.serve(new("alertmanager"), routes(service.url)))
        world = World(cluster, namespace, database, cache)
        places = {"router": router.port, "shop": stack.enter_context(exporter(world.series))}
        settings = PROMETHEUS.format(**places, remediator=service.port)
        watcher = prometheus.serve(new("prometheus"), settings, {"rules.yml": yaml.safe_dump(RULES)})
        yield Loop(world, stack.enter_context(watcher), Audit(service))


def assert_verified(loop: Loop, run: dict[str, Any], action: str) -> dict[str, Any]:
    """The run has ended well, its alert is over by every account, and the audit has what was before and after."""
    assert ("succeeded", "verified", True) == (run["state"], run["reason"], run["effective"])
    assert run["resolved_at"]
    assert [True] * len(run["episodes"]) == [episode["closed_at"] is not None for episode in run["episodes"]]
    story = [kind for kind in kinds(run) if kind != "joined"]
    assert [*BEGINNING, "succeeded"] == [*story[:6], story[-1]]
    step: dict[str, Any]
    [step] = run["steps"]
    assert (action, "succeeded") == (step["action"], step["state"])
    assert step["before"]
    assert step["desired"]
    assert step["result"]
    name = run["remediation"]
    assert not [one for one in loop.prometheus.alerts() if one["labels"]["alertname"] == name]
    return step


def test_crash_looping_pod_gets_its_deployment_restarted(loop: Loop) -> None:
    """One pod is ill: its Deployment is found and rolled, the new pod is well, the alert resolves."""
    world = loop.world
    before = world.cluster.deployment(world.namespace, "web")
    restarts = loop.audit.metric("remediator_actions_total", action="kubernetes.rollout_restart", result="succeeded")
    ended = loop.audit.metric("remediator_runs_total", remediation=PODS, state="succeeded")
    helped = loop.audit.metric("remediator_runs_effective_total", remediation=PODS)
    world.crashing.add("web")

    target = f"kubernetes:Deployment/{world.namespace}/web"
    run = loop.audit.reached("succeeded", target=target)

    step = assert_verified(loop, run, "kubernetes.rollout_restart")
    after = world.deployment("web")
    template = after["spec"]["template"]["metadata"]["annotations"]
    assert step["desired"]["restarted_at"] == template[RESTARTED_AT]
    assert before["metadata"]["generation"] == step["before"]["generation"]
    assert after["metadata"]["generation"] == step["result"]["generation"] == before["metadata"]["generation"] + 1
    assert run["plan"]["target"]["resolved_from"] == f"Pod {world.namespace}/{run['labels']['pod']}"
    loop.wait_counted(restarts + 1, "remediator_actions_total", action="kubernetes.rollout_restart", result="succeeded")
    loop.wait_counted(ended + 1, "remediator_runs_total", remediation=PODS, state="succeeded")
    loop.wait_counted(helped + 1, "remediator_runs_effective_total", remediation=PODS)


def test_three_crash_looping_pods_of_one_deployment_are_one_rollout(loop: Loop) -> None:
    """Three alerts, three episodes, one run, one change of the Deployment."""
    world = loop.world
    before = world.cluster.deployment(world.namespace, "api", replicas=3)
    world.crashing.add("api")

    run = loop.audit.reached("succeeded", target=f"kubernetes:Deployment/{world.namespace}/api")

    assert_verified(loop, run, "kubernetes.rollout_restart")
    assert 2 == kinds(run).count("joined")
    pods = {episode["labels"]["pod"] for episode in run["episodes"]}
    assert 3 == len(pods) == len(run["episodes"])
    assert before["metadata"]["generation"] + 1 == world.deployment("api")["metadata"]["generation"]
    for episode in loop.audit.episodes(alertname=PODS):
        if episode["labels"]["pod"] in pods:
            assert [run["id"]] == [one["id"] for one in episode["runs"]]


def test_leaked_connections_are_ended(loop: Loop) -> None:
    """Idle sessions pile up in PostgreSQL: they are ended, what is excluded stays, the alert resolves."""
    database = loop.world.database
    for number in range(LEAKED):
        database.session(application=f"web-{number % 3}")
    listener = database.session(application="listener-1")

    run = loop.audit.reached("succeeded", alertname=CONNECTIONS)

    step = assert_verified(loop, run, "postgres.terminate_idle")
    assert LEAKED == step["before"]["qualifying"] == len(step["desired"]["terminated"]) == step["result"]["terminated"]
    assert 1 == loop.world.sessions()
    assert (1,) == listener.execute("SELECT 1").fetchone()
    loop.wait_counted(1, "remediator_actions_total", action="postgres.terminate_idle", result="succeeded")
    loop.wait_counted(1, "remediator_checks_total", check="postgres.connections", result="held")
    loop.wait_counted(1, "remediator_runs_total", remediation=CONNECTIONS, state="succeeded")
    loop.wait_counted(1, "remediator_runs_effective_total", remediation=CONNECTIONS)


def test_full_cache_is_emptied_of_its_pages(loop: Loop) -> None:
    """Pages fill Redis: they go, the sessions stay, the alert resolves."""
    with loop.world.cache.client() as client:
        client.set("session:1", "basket")
        client.mset({f"page:{number}": "x" * 10_000 for number in range(850)})

        run = loop.audit.reached("succeeded", alertname=MEMORY)

        step = assert_verified(loop, run, "redis.delete_matching")
        assert {"matching": 850} == step["before"]
        assert {"matching": 0} == step["desired"]
        assert 850 == step["result"]["removed"]
        assert ["session:1"] == client.keys()
    loop.wait_counted(1, "remediator_actions_total", action="redis.delete_matching", result="succeeded")
    loop.wait_counted(1, "remediator_checks_total", check="redis.memory", result="held")
    loop.wait_counted(1, "remediator_runs_total", remediation=MEMORY, state="succeeded")
    loop.wait_counted(1, "remediator_runs_effective_total", remediation=MEMORY)
