"""What is not done, and where a person reads why: observe, approval, limits, targets that may not be touched.

One replica with tokens for every role, a real Alertmanager in front of it and a real cluster behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.audit import Audit, kinds
from tests.acceptance.bench import EVERYWHERE, remediation, request, routes, serving
from tests.support import alertmanager, web
from tests.support.alertmanager import Alertmanager
from tests.support.cluster import Cluster
from tests.support.service import Service
from tests.support.web import WebServer

ROLES = ("alertmanager", "viewer", "approver", "admin")
WINDOW = timedelta(seconds=3)


def catalog(target: WebServer) -> list[dict[str, Any]]:
    """A remediation for each way of not acting at once."""
    step = request(f"{target.url}/{{{{ labels.alertname }}}}")
    deployment = {"kind": "Deployment", "namespace": "{{ labels.namespace }}", "name": "{{ labels.deployment }}"}
    restart = [{"action": "kubernetes.rollout_restart"}]
    return [
        remediation("only-watched", step, mode="observe"),
        remediation("asks-first", step, mode="approve"),
        remediation("is-rejected", step, mode="approve"),
        remediation("is-rationed", step, limits={"cooldown": "0s", "rate": "1/3s"}),
        remediation("lacks-a-label", request(f"{target.url}/{{{{ labels.pod }}}}")),
        remediation("is-paused", *restart, target={"kubernetes": deployment}),
        remediation("is-elsewhere", *restart, target={"kubernetes": deployment}),
    ]


@pytest.fixture(scope="module")
def target() -> Iterator[WebServer]:
    """What the steps would ask."""
    with web.serve() as server:
        yield server


@pytest.fixture(scope="module")
def service(cluster: Cluster, target: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One replica, which acts on the cluster as its administrator, so that only the scope keeps it from anything."""
    config = {
        "auth": {"tokens": [{"name": f"the-{role}", "role": role, "value": f"secret-{role}"} for role in ROLES]},
        "scope": EVERYWHERE | {"kubernetes": {"namespaces": ["test-*"]}},
        "connections": {"kubernetes": {"default": {"kubeconfig": str(cluster.kubeconfig)}}},
    }
    with serving(tmp_path_factory.mktemp("service"), catalog(target), config) as running:
        yield running


@pytest.fixture(scope="module")
def router(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """Sends everything on, with a token that may do nothing else."""
    config = routes(service.url, http_config={"authorization": {"credentials": "secret-alertmanager"}})
    with ExitStack() as stack:
        yield stack.enter_context(alertmanager.serve(tmp_path_factory.mktemp("alertmanager"), config))


@pytest.fixture
def audit(service: Service) -> Audit:
    """What a viewer may see."""
    return Audit(service, "secret-viewer")


def asked(target: WebServer, path: str) -> int:
    """How often a path was asked for."""
    return sum(one.path == path for one in target.requests)


def decision(run: dict[str, Any], guard: str) -> dict[str, Any]:
    """What one guard said about a run."""
    found: dict[str, Any]
    [found] = [one for one in run["decisions"] if one["guard"] == guard]
    return found


def test_alert_that_nothing_matches_is_seen(router: Alertmanager, audit: Audit) -> None:
    """It is among the episodes, with an explanation, and no run was recorded."""
    unmatched = audit.metric("remediator_episodes_unmatched_total")
    router.push({"alertname": "Nobodys"})

    episode = audit.episode(alertname="Nobodys")

    assert [[], []] == [episode["matched"], episode["runs"]]
    assert episode["explanation"].startswith("no remediation of the catalog has matched its labels")
    assert [episode["id"]] == [one["id"] for one in audit.episodes(matched="false", alertname="Nobodys")]
    assert [] == audit.runs(alertname="Nobodys")
    assert unmatched + 1 == audit.metric("remediator_episodes_unmatched_total")


def test_observe_shows_what_it_would_have_done(router: Alertmanager, audit: Audit, target: WebServer) -> None:
    """The run has the plan and every guard's answer, and nothing was asked of the target."""
    router.push({"alertname": "only-watched"})

    run = audit.reached("observed", alertname="only-watched")

    assert ("mode_observe", None) == (run["reason"], run["effective"])
    [step] = run["steps"]
    assert ("planned", f"POST {target.url}/only-watched") == (step["state"], step["summary"])
    assert "observe" == decision(run, "mode")["verdict"]
    assert 16 == len(run["decisions"])
    assert 0 == asked(target, "/only-watched")
    assert 1 <= audit.metric("remediator_refusals_total", verdict="observe", reason="mode_observe")


def test_approval_is_for_approvers(router: Alertmanager, service: Service, audit: Audit, target: WebServer) -> None:
    """The run waits for a person; a viewer is not one, an approver is, and the audit names them."""
    router.push({"alertname": "asks-first"})
    waiting = audit.reached("awaiting_approval", alertname="asks-first")
    assert "approval_required" == waiting["reason"]
    path = f"/remediations/{waiting['id']}/approve"

    refused = audit.post(path)
    assert (403, "forbidden") == (refused.status_code, refused.json()["reason"])
    assert 401 == Audit(service).post(path).status_code
    assert 403 == Audit(service, "secret-alertmanager").post(path).status_code
    assert 0 == asked(target, "/asks-first")
    allowed = Audit(service, "secret-approver").post(path, json={"comment": "go on"})

    assert 200 == allowed.status_code
    run = audit.reached("succeeded", alertname="asks-first")
    assert "the-approver" == run["approved_by"]
    assert ["recorded", "not_told", "awaiting_approval", "approved", "running"] == kinds(run)[:5]
    [word] = [event for event in run["events"] if event["kind"] == "approved"]
    assert ("the-approver", {"comment": "go on"}) == (word["actor"], word["data"])
    assert 1 == asked(target, "/asks-first")
    again = Audit(service, "secret-approver").post(path)
    assert (409, "conflict") == (again.status_code, again.json()["reason"])


def test_rejected_run_does_nothing(router: Alertmanager, service: Service, audit: Audit, target: WebServer) -> None:
    """A person says no: the run is denied and says who said so."""
    router.push({"alertname": "is-rejected"})
    waiting = audit.reached("awaiting_approval", alertname="is-rejected")

    Audit(service, "secret-approver").post(f"/remediations/{waiting['id']}/reject").raise_for_status()

    run = audit.reached("denied", alertname="is-rejected")
    assert ("approval_rejected", "rejected by the-approver") == (run["reason"], run["message"])
    assert 0 == asked(target, "/is-rejected")
    assert 1 == audit.metric("remediator_runs_total", remediation="is-rejected", state="denied")


def test_full_rate_defers_and_is_not_forgotten(router: Alertmanager, audit: Audit, target: WebServer) -> None:
    """The second run of the window waits, says until when, and runs without another notification."""
    router.push({"alertname": "is-rationed", "number": "1"})
    first = audit.reached("succeeded", alertname="is-rationed", label="number=1")
    router.push({"alertname": "is-rationed", "number": "2"})

    second = audit.reached("succeeded", alertname="is-rationed", label="number=2")

    [deferred] = [event for event in second["events"] if event["kind"] == "deferred"]
    assert ("rate", "the remediation's rate 1/3s is used up") == (deferred["reason"], deferred["message"])
    admitted = [datetime.fromisoformat(run["admitted_at"]) for run in (first, second)]
    assert admitted[1] - admitted[0] >= WINDOW
    assert 1 == second["episodes"][0]["deliveries"]
    assert 2 == asked(target, "/is-rationed")


def test_missing_label_is_named(router: Alertmanager, audit: Audit) -> None:
    """A template cannot be filled in: the run fails and names the label and those that there are."""
    router.push({"alertname": "lacks-a-label", "namespace": "shop"})

    run = audit.reached("failed", alertname="lacks-a-label")

    assert "template_failed" == run["reason"]
    for word in ("pod", "alertname", "namespace"):
        assert word in run["message"]


def test_paused_rollout_is_left_alone(cluster: Cluster, namespace: str, router: Alertmanager, audit: Audit) -> None:
    """Somebody has paused the rollout: a restart would do nothing, and is denied."""
    cluster.deployment(namespace, "api")
    cluster.kubectl("rollout", "pause", "deployment/api", "--namespace", namespace)
    before = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/api")

    router.push({"alertname": "is-paused", "namespace": namespace, "deployment": "api"})
    run = audit.reached("denied", alertname="is-paused")

    assert "rollout_paused" == run["reason"]
    assert "deny" == decision(run, "owned_elsewhere")["verdict"]
    after = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/api")
    assert before["spec"] == after["spec"]


@pytest.mark.parametrize("place", ["outside", "kube-system"])
def test_namespace_out_of_scope_is_never_written(
    place: str, cluster: Cluster, router: Alertmanager, audit: Audit
) -> None:
    """The alert names a namespace that the configuration does not allow: the API server saw no write."""
    if place == "outside":
        cluster.create("/api/v1/namespaces", {"metadata": {"name": place}})
    before = cluster.create_deployment(place, "api")

    router.push({"alertname": "is-elsewhere", "namespace": place, "deployment": "api"})
    run = audit.reached("denied", alertname="is-elsewhere", namespace=place)

    assert "out_of_scope" == run["reason"]
    assert repr(place) in run["message"]
    assert [] == run["steps"]
    after = cluster.get(f"/apis/apps/v1/namespaces/{place}/deployments/api")
    assert before["metadata"]["generation"] == after["metadata"]["generation"]
    assert "remediator" not in {entry["manager"] for entry in after["metadata"]["managedFields"]}
    assert before["spec"] == after["spec"]
    cluster.delete(f"/apis/apps/v1/namespaces/{place}/deployments/api")
