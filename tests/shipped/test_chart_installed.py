"""The chart installs on a real API server, and its service account may do what the catalog needs and no more."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.shipped.chart import CHART, Right, declared_rights, helm
from tests.support.cluster import Cluster

NAME = "remediator"
# What the service has no business with, in the namespace that it was given and in its own.
FORBIDDEN: tuple[Right, ...] = (
    ("", "pods", "delete"),
    ("", "pods", "list"),
    ("", "pods/exec", "create"),
    ("", "secrets", "get"),
    ("", "configmaps", "get"),
    ("apps", "deployments", "delete"),
    ("apps", "deployments", "create"),
    ("apps", "deployments", "update"),
    ("batch", "jobs", "create"),
    ("rbac.authorization.k8s.io", "rolebindings", "create"),
)

# The first test of a session waits for the cluster to come up.
pytestmark = pytest.mark.timeout(300)


def install(cluster: Cluster, home: str, work: str, **values: Any) -> None:
    """`helm upgrade --install --wait` into one namespace, with rights in another."""
    given = {"rbac": {"namespaces": [work]}, "store": {"persistence": {"enabled": False}}} | values
    words = ("upgrade", "--install", NAME, str(CHART), "--kubeconfig", str(cluster.kubeconfig), "--namespace", home)
    done = helm(*words, "--wait", "--timeout", "90s", values=given)
    assert done.returncode == 0, done.stderr


def tokens(cluster: Cluster, home: str) -> dict[str, str]:
    """The tokens that the chart made."""
    data = cluster.get(f"/api/v1/namespaces/{home}/secrets/{NAME}-tokens")["data"]
    return {name: base64.b64decode(token).decode() for name, token in data.items()}


@pytest.fixture
def work(cluster: Cluster) -> Iterator[str]:
    """The namespace in which the service may act."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def account(cluster: Cluster, namespace: str, work: str) -> Iterator[httpx.Client]:
    """The API server as the service sees it, with a token of the chart's service account."""
    install(cluster, namespace, work)
    kubeconfig = yaml.safe_load(cluster.service_account_kubeconfig(namespace, NAME).read_text())
    with cluster.client(kubeconfig["users"][0]["user"]["token"]) as client:
        yield client


def is_allowed(client: httpx.Client, namespace: str, right: Right) -> bool:
    """What the API server says to whoever asks about itself."""
    group, resource, verb = right
    resource, _, subresource = resource.partition("/")
    attributes = {"namespace": namespace, "group": group, "resource": resource, "verb": verb}
    review = {"spec": {"resourceAttributes": attributes | {"subresource": subresource}}}
    answer = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review).raise_for_status()
    allowed: bool = answer.json()["status"]["allowed"]
    return allowed


def test_the_account_may_do_what_the_code_declares(account: httpx.Client, work: str) -> None:
    """Every declared permission is granted in the namespace that the values name."""
    assert {right for right in declared_rights() if not is_allowed(account, work, right)} == set()


def test_the_account_may_do_nothing_else(account: httpx.Client, work: str, namespace: str) -> None:
    """Neither more in that namespace, nor anything in its own or elsewhere."""
    assert [right for right in FORBIDDEN if is_allowed(account, work, right)] == []
    elsewhere = [*FORBIDDEN, *declared_rights()]
    assert [
        (place, right) for place in (namespace, "default") for right in elsewhere if is_allowed(account, place, right)
    ] == []


def test_the_account_restarts_a_deployment_and_deletes_no_pod(
    account: httpx.Client, cluster: Cluster, work: str
) -> None:
    """Not only asked, but done: the patch goes through, the deletion does not."""
    cluster.deployment(work, "web")
    patch = {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}}
    kind = {"Content-Type": "application/strategic-merge-patch+json"}
    deployment = f"/apis/apps/v1/namespaces/{work}/deployments/web"
    assert account.patch(deployment, json=patch, headers=kind).status_code == 200
    assert account.delete(f"/api/v1/namespaces/{work}/pods/any").status_code == 403


def test_the_pod_becomes_ready_and_an_upgrade_keeps_the_tokens(cluster: Cluster, namespace: str, work: str) -> None:
    """`helm install --wait` ends, a changed configuration rolls the pod, and Alertmanager need not be told again."""
    install(cluster, namespace, work)
    first = tokens(cluster, namespace)
    install(cluster, namespace, work, config={"mode": "observe"})
    assert tokens(cluster, namespace) == first
    assert sorted(first) == ["admin", "alertmanager"]
    assert {len(token) for token in first.values()} == {43}
    deployment = cluster.wait_rolled_out(namespace, NAME)
    assert deployment["status"]["readyReplicas"] == 1
