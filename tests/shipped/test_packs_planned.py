"""What the shipped remediations plan for the alerts of their rules, on real servers named as in the runbooks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.shipped.base_image import ROOT
from tests.shipped.packs import SYSTEMS, alerts
from tests.support.cluster import Cluster, workload
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer

DEPLOYMENTS = {
    "svg-ai-4tier-prod": ["svg-ai-4tier-api", "svg-ai-4tier-worker"],
    "smartcloudops": ["backend", "frontend", "celery-worker"],
    "ai-pipeline": ["ai-pipeline", "triage-agent"],
}
STATEFUL_SETS = {"svg-ai-4tier-prod": ["postgres-4tier"], "smartcloudops": ["redis"]}
DATABASES = {"svg-ai-4tier": "svgai_prod", "smartcloudops": "smartcloudops", "spheroseg": "spheroseg"}

# The remediation, the verdict, the target, the steps.
PLANS = [
    (
        "ai-pipeline-service-down",
        "would_run",
        "kubernetes:Deployment/ai-pipeline/ai-pipeline",
        ["restart Deployment ai-pipeline/ai-pipeline (2 replicas)"],
    ),
    (
        "ai-pipeline-consumer-lag",
        "would_run",
        "kubernetes:Deployment/ai-pipeline/triage-agent",
        ["scale Deployment ai-pipeline/triage-agent from 2 to 5 replicas"],
    ),
    ("ai-pipeline-page", "would_run", "nothing", ["tell channel oncall: AI pipeline: It is so."]),
    (
        "smartcloudops-backend-down",
        "would_run",
        "kubernetes:Deployment/smartcloudops/backend",
        ["restart Deployment smartcloudops/backend (2 replicas)"],
    ),
    (
        "smartcloudops-database-down",
        "would_run",
        "nothing",
        ["tell channel oncall: PostgreSQL of SmartCloudOps takes no connections"],
    ),
    (
        "smartcloudops-idle-connections",
        "would_run",
        "postgres:smartcloudops/smartcloudops",
        ["no session of database smartcloudops is idle for 10m or longer"],
    ),
    (
        "smartcloudops-memory",
        "would_run",
        "kubernetes:Deployment/smartcloudops/backend",
        ["restart Deployment smartcloudops/backend (2 replicas)"],
    ),
    (
        "smartcloudops-scale-backend",
        "would_run",
        "kubernetes:Deployment/smartcloudops/backend",
        ["scale Deployment smartcloudops/backend from 2 to 3 replicas"],
    ),
    (
        "smartcloudops-scale-frontend",
        "would_run",
        "kubernetes:Deployment/smartcloudops/frontend",
        ["scale Deployment smartcloudops/frontend from 2 to 3 replicas"],
    ),
    (
        "smartcloudops-redis-down",
        "would_run",
        "kubernetes:StatefulSet/smartcloudops/redis",
        ["restart StatefulSet smartcloudops/redis (1 replicas)"],
    ),
    (
        "smartcloudops-celery-down",
        "would_run",
        "kubernetes:Deployment/smartcloudops/celery-worker",
        ["restart Deployment smartcloudops/celery-worker (2 replicas)"],
    ),
    (
        "smartcloudops-frontend-down",
        "would_run",
        "kubernetes:Deployment/smartcloudops/frontend",
        ["restart Deployment smartcloudops/frontend (2 replicas)"],
    ),
    (
        "spheroseg-idle-connections",
        "would_run",
        "postgres:spheroseg/spheroseg",
        ["no session of database spheroseg is idle for 10m or longer"],
    ),
    ("spheroseg-cache-full", "would_ask", "redis:spheroseg/0", ["remove all 1 keys of Redis database spheroseg/0"]),
    ("spheroseg-disk", "would_run", "nothing", ["tell channel oncall: SpheroSeg: a disk is nearly full"]),
    ("svg-ai-errors", "would_run", "nothing", ["tell channel oncall: SVG-AI answers requests with errors"]),
    (
        "svg-ai-4tier-database-unavailable",
        "would_run",
        "nothing",
        [
            "tell channel oncall: PostgreSQL of SVG-AI takes no connections",
            "tell channel dba: PostgreSQL of SVG-AI takes no connections",
        ],
    ),
    (
        "svg-ai-4tier-database-restart",
        "would_ask",
        "kubernetes:StatefulSet/svg-ai-4tier-prod/postgres-4tier",
        ["restart StatefulSet svg-ai-4tier-prod/postgres-4tier (1 replicas)"],
    ),
    (
        "svg-ai-4tier-slow-api",
        "would_run",
        "kubernetes:Deployment/svg-ai-4tier-prod/svg-ai-4tier-api",
        ["scale Deployment svg-ai-4tier-prod/svg-ai-4tier-api from 2 to 3 replicas"],
    ),
    (
        "svg-ai-4tier-resources",
        "would_run",
        "kubernetes:Deployment/svg-ai-4tier-prod/svg-ai-4tier-worker",
        ["scale Deployment svg-ai-4tier-prod/svg-ai-4tier-worker from 2 to 3 replicas"],
    ),
    (
        "svg-ai-4tier-quality",
        "would_run",
        "nothing",
        ["tell channel oncall: The quality of SVG-AI's conversions has fallen"],
    ),
    (
        "svg-ai-4tier-redis-memory",
        "would_ask",
        "redis:svg-ai-4tier/0",
        ["remove all 1 keys of Redis database svg-ai-4tier/0"],
    ),
    (
        "svg-ai-4tier-idle-connections",
        "would_run",
        "postgres:svg-ai-4tier/svgai_prod",
        ["no session of database svgai_prod is idle for 10m or longer"],
    ),
    (
        "svg-ai-4tier-disaster",
        "would_run",
        "nothing",
        ["tell channel oncall: SVG-AI: a trigger of the disaster recovery (ExtendedOutage)"],
    ),
    (
        "svg-ai-4tier-disaster",
        "would_run",
        "nothing",
        ["tell channel oncall: SVG-AI: a trigger of the disaster recovery (SiteLost)"],
    ),
]


def _create(cluster: Cluster, namespace: str) -> None:
    cluster.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    for name in DEPLOYMENTS[namespace]:
        cluster.create_deployment(namespace, name, 2)
    path = f"/apis/apps/v1/namespaces/{namespace}/statefulsets"
    for name in STATEFUL_SETS.get(namespace, []):
        body = workload(name, 1, {})
        body["spec"]["serviceName"] = name
        cluster.create(path, body)
    for name in DEPLOYMENTS[namespace]:
        cluster.wait_rolled_out(namespace, name)
    for name in STATEFUL_SETS.get(namespace, []):
        cluster.kubectl("rollout", "status", "--namespace", namespace, f"statefulset/{name}", "--timeout=60s")


@pytest.fixture(scope="module")
def workloads(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the workloads of the three systems that run on Kubernetes."""
    with ExitStack() as stack:
        for namespace in DEPLOYMENTS:
            _create(cluster, namespace)
            stack.callback(cluster.delete, f"/api/v1/namespaces/{namespace}")
        yield cluster


@pytest.fixture
def config(workloads: Cluster, start_postgres: Any, redis_server: RedisServer, tmp_path: Path) -> Path:
    """A configuration that has all that the shipped remediations need, and keeps to the systems."""
    server: PostgresServer = start_postgres()
    with psycopg.connect(server.url, autocommit=True) as connection:
        for database in DATABASES.values():
            connection.execute(f"CREATE DATABASE {database}")
    told = {"urls": [{"value": "json://127.0.0.1:9/told"}]}
    written = {
        "data": str(tmp_path / "data"),
        "catalog": [str(ROOT / "remediations")],
        "channel": "oncall",
        "scope": {
            "kubernetes": {"namespaces": [*DEPLOYMENTS]},
            "postgres": {"databases": [f"{system}/{database}" for system, database in DATABASES.items()]},
            "redis": {"databases": ["svg-ai-4tier/0", "spheroseg/0"]},
            "http": {"hosts": ["*.svc"]},
        },
        "connections": {
            "kubernetes": {"default": {"kubeconfig": str(workloads.kubeconfig)}},
            "postgres": {system: {"url": {"value": server.database_url(name)}} for system, name in DATABASES.items()},
            "redis": {
                system: {"url": {"value": redis_server.url.rpartition("/")[0]}}
                for system in ("svg-ai-4tier", "spheroseg")
            },
            "notify": {"oncall": told, "dba": told},
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def _plan(config: Path, found: list[dict[str, str]]) -> list[dict[str, Any]]:
    given = json.dumps([{"labels": labels, "annotations": {"summary": "It is so."}} for labels in found])
    command = [sys.executable, "-m", "app", "plan", "--json", "--config", str(config), "--alert", "-"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    explained: list[dict[str, Any]] = json.loads(done.stdout)
    return explained


def _described(prospect: dict[str, Any]) -> tuple[str, str, str, list[str]]:
    """What is planned, without the fingerprint in the key of an alert that has no target."""
    plan = prospect["plan"]
    key = plan["target"]["key"]
    target = "nothing" if key.startswith("none:") else key
    return prospect["remediation"], prospect["verdict"], target, [step["summary"] for step in plan["steps"]]


def test_each_alert_plans_what_its_page_says(workloads: Cluster, config: Path, redis_server: RedisServer) -> None:
    """The same alert of a staging namespace or project plans nothing."""
    with redis_server.client() as client:
        client.set("page:1", "cached")
    pods = workloads.get("/api/v1/namespaces/smartcloudops/pods?labelSelector=app%3Dbackend")["items"]
    found = [labels for system in SYSTEMS for labels in alerts(system)]
    named = {"pod": pods[0]["metadata"]["name"]}
    found = [labels | named if labels["alertname"] == "HighMemoryUsage" else labels for labels in found]
    staging = [labels | {place: "staging" for place in ("namespace", "project") if place in labels} for labels in found]
    explained = _plan(config, found + staging)
    planned = [_described(prospect) for one in explained[: len(found)] for prospect in one["prospects"]]
    assert sorted({str(one): one for one in planned}.values()) == sorted(PLANS)
    assert [one["labels"] for one in explained[len(found) :] if one["prospects"]] == []
