"""Which workload a target means: named itself, by a pod, or by a pod that is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.backends.kubernetes.owners import POD_PERMISSIONS
from app.domain.errors import PermanentError
from app.domain.plans import Target
from app.domain.reasons import Reason
from tests.support.processes import free_port, wait_until

KINDS = ("Deployment", "StatefulSet", "DaemonSet")


@pytest.fixture
def unreachable(kube: Any, tmp_path: Path) -> Any:
    """The product with a cluster that nobody answers for: any call at all is an error of its own."""
    kubeconfig = tmp_path / "unreachable.kubeconfig"
    text = kube.kubeconfig.read_text()
    kubeconfig.write_text(text.replace(kube.cluster.url, f"http://127.0.0.1:{free_port()}"))
    return type(kube)(kube.cluster, kube.namespace, kubeconfig)


@pytest.mark.parametrize("kind", KINDS)
def test_a_workload_is_its_own_target(kube: Any, kind: str) -> None:
    """Deployment, StatefulSet and DaemonSet are taken as named."""
    kube.create(kind, "api")
    expected = Target(
        backend="kubernetes",
        key=f"kubernetes:{kind}/{kube.namespace}/api",
        kind=kind,
        namespace=kube.namespace,
        name="api",
    )
    assert expected == kube.resolve(kind, "api")


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_workload_is_not_found(kube: Any, kind: str) -> None:
    """What does not exist is no target, and the message names it."""
    _assert_not_found(kube, kind, "nothing", f"{kind} {kube.namespace}/nothing does not exist")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_stands_for_its_workload(kube: Any, kind: str) -> None:
    """A pod leads to what controls it, over its ReplicaSet where there is one, and is remembered."""
    kube.running(kind, "api")
    pod = kube.pods("api")[0]["metadata"]["name"]
    target = kube.resolve("Pod", pod)
    assert (f"kubernetes:{kind}/{kube.namespace}/api", f"Pod {kube.namespace}/{pod}") == (
        target.key,
        target.resolved_from,
    )


def test_all_pods_of_a_workload_share_its_key(kube: Any) -> None:
    """Three alerts for three pods are one target."""
    kube.running("Deployment", "api", 3)
    keys = {kube.resolve("Pod", pod["metadata"]["name"]).key for pod in kube.pods("api")}
    assert {f"kubernetes:Deployment/{kube.namespace}/api"} == keys


def test_a_vanished_pod_leads_to_its_deployment(kube: Any) -> None:
    """A pod that was replaced since the alert still leads to its Deployment, by its ReplicaSet's name."""
    kube.running("Deployment", "api")
    pod = kube.pods("api")[0]["metadata"]["name"]
    path = f"/api/v1/namespaces/{kube.namespace}/pods/{pod}"
    kube.cluster.delete(path)
    wait_until(lambda: not kube.cluster.answers(path), 30, "the pod to be gone")
    target = kube.resolve("Pod", pod)
    assert ("Deployment", "api", f"Pod {kube.namespace}/{pod}") == (target.kind, target.name, target.resolved_from)


def test_a_vanished_pod_leads_to_its_stateful_set_within_its_ordinals(kube: Any) -> None:
    """`db-1` is of a StatefulSet `db` with two replicas, `db-2` is not."""
    kube.create("StatefulSet", "db", 2, pods={"testbed/never-ready": "true"})
    assert ("StatefulSet", "db") == (kube.resolve("Pod", "db-1").kind, kube.resolve("Pod", "db-1").name)
    _assert_not_found(kube, "Pod", "db-2", "its name leads to no workload")


def test_a_vanished_pod_leads_to_its_daemon_set(kube: Any) -> None:
    """The random end of a DaemonSet's pod is left out."""
    kube.create("DaemonSet", "node-agent")
    assert "node-agent" == kube.resolve("Pod", "node-agent-x2x9z").name


def test_a_vanished_pod_with_two_possible_owners_is_not_found(kube: Any) -> None:
    """A name that a ReplicaSet's and a DaemonSet's pod could have had leads to neither."""
    kube.running("Deployment", "api")
    replica_set = kube.pods("api")[0]["metadata"]["name"].rpartition("-")[0]
    kube.create("DaemonSet", replica_set)
    _assert_not_found(kube, "Pod", f"{replica_set}-zzzzz", "may have belonged to")


def test_a_vanished_pod_of_nothing_is_not_found(kube: Any) -> None:
    """A Deployment whose name merely begins like the pod's is not guessed at."""
    kube.create("Deployment", "api")
    _assert_not_found(kube, "Pod", "api-7d9c4b5f6-x2x9z", "its name leads to no workload")


def test_a_bare_pod_has_no_workload(kube: Any) -> None:
    """A pod that nothing controls cannot be acted on."""
    spec = {"containers": [{"name": "main", "image": "example/main:1"}]}
    kube.cluster.create(f"/api/v1/namespaces/{kube.namespace}/pods", {"metadata": {"name": "lonely"}, "spec": spec})
    _assert_not_found(kube, "Pod", "lonely", "no workload that can be acted on")


def test_a_pod_of_a_job_has_no_workload(kube: Any) -> None:
    """A Job is nothing that can be restarted or scaled; the message names it."""
    containers = [{"name": "main", "image": "example/main:1"}]
    template = {"metadata": {"labels": {"app": "import"}}, "spec": {"restartPolicy": "Never", "containers": containers}}
    path = f"/apis/batch/v1/namespaces/{kube.namespace}/jobs"
    kube.cluster.create(path, {"metadata": {"name": "import"}, "spec": {"template": template}})
    pods = wait_until(lambda: kube.pods("import"), 30, "the Job's pod")
    _assert_not_found(kube, "Pod", pods[0]["metadata"]["name"], "is controlled by Job import")


def test_a_replica_set_without_deployment_has_no_workload(kube: Any) -> None:
    """A ReplicaSet of its own is named as the end of the way."""
    deployment = {"app": "bare"}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": deployment},
        "template": {
            "metadata": {"labels": deployment},
            "spec": {"containers": [{"name": "main", "image": "example/main:1"}]},
        },
    }
    path = f"/apis/apps/v1/namespaces/{kube.namespace}/replicasets"
    kube.cluster.create(path, {"metadata": {"name": "bare"}, "spec": spec})
    pods = wait_until(lambda: kube.pods("bare"), 30, "the ReplicaSet's pod")
    expected = f"ReplicaSet {kube.namespace}/bare is controlled by nothing"
    _assert_not_found(kube, "Pod", pods[0]["metadata"]["name"], expected)


@pytest.mark.parametrize(
    "name",
    [
        "API",
        "../secrets/token",
        "api\n",
        "a" * 254,
        "",
        "api/scale",
        "api?watch=1",
        "api%2f..",
        "ápi",
        "api..x",
        "-api",
    ],
)
def test_a_hostile_name_reaches_no_url(unreachable: Any, name: str) -> None:
    """What cannot be a name is refused before the cluster is asked."""
    _assert_refused(unreachable, "Deployment", name, "x")


@pytest.mark.parametrize("namespace", ["Shop", "..", "kube-system/pods", "shop\n", "n" * 64, "a.b", " "])
def test_a_hostile_namespace_reaches_no_url(unreachable: Any, namespace: str) -> None:
    """What cannot be a namespace is refused before the cluster is asked."""
    _assert_refused(unreachable, "Pod", "api", namespace)


@pytest.mark.parametrize("kind", ["deployment", "Secret", "ReplicaSet", "Node", "HorizontalPodAutoscaler", ""])
def test_an_unknown_kind_is_refused(unreachable: Any, kind: str) -> None:
    """Only four kinds are targets, written as Kubernetes writes them."""
    _assert_refused(unreachable, kind, "api", "shop")


def test_a_missing_permission_is_named(kube: Any) -> None:
    """The message says which verb on which resource is missing."""
    account = kube.as_account("nobody")
    with pytest.raises(PermanentError, match=r"not allowed to get pods in namespace ") as caught:
        account.resolve("Pod", "api-7d9c4b5f6-x2x9z")
    assert Reason.FORBIDDEN is caught.value.reason


def test_the_declared_permissions_are_enough(kube: Any, declared: Any) -> None:
    """A service account with what resolving declares can resolve, a vanished pod included."""
    kube.running("Deployment", "api")
    pod = kube.pods("api")[0]["metadata"]["name"]
    account = kube.as_account("resolver", *declared(POD_PERMISSIONS))
    assert "api" == account.resolve("Pod", pod).name
    assert "api" == account.resolve("Pod", f"{pod[:-5]}zzzzz").name


def _assert_not_found(kube: Any, kind: str, name: str, message: str) -> None:
    with pytest.raises(PermanentError) as caught:
        kube.resolve(kind, name)
    assert Reason.TARGET_NOT_FOUND is caught.value.reason
    assert message in caught.value.message


def _assert_refused(kube: Any, kind: str, name: str, namespace: str) -> None:
    with pytest.raises(PermanentError) as caught:
        kube.resolve(kind, name, namespace)
    assert Reason.TEMPLATE_FAILED is caught.value.reason
