"""The chart renders what its values say, refuses what cannot work, and grants what the code declares."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import __version__
from app.catalog.loader import load
from app.settings import load_settings
from tests.shipped.chart import CHART, Manifest, declared_rights, granted_rights, helm, only, rendered

EVERYTHING: dict[str, Any] = {
    "replicas": 2,
    "image": {"repository": "registry.example/remediator", "tag": "1.2.3"},
    "imagePullSecrets": [{"name": "pull"}],
    "config": {"mode": "approve", "scope": {"kubernetes": {"namespaces": ["shop-*"]}}, "log": {"level": "debug"}},
    "catalog": {"shop.yaml": "remediations: []\n"},
    "auth": {"existingSecret": "given", "tokens": [{"name": "am", "role": "alertmanager"}]},
    "connectionsSecret": "targets",
    "store": {"postgresql": {"existingSecret": "database", "key": "uri"}},
    "rbac": {"namespaces": ["shop", "billing"]},
    "serviceAccount": {"name": "fixer", "annotations": {"a": "b"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True, "annotations": {"folder": "Operations"}},
    "podAnnotations": {"c": "d"},
    "podLabels": {"e": "f"},
    "nodeSelector": {"g": "h"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}


def pod_of(manifests: list[Manifest]) -> dict[str, Any]:
    """The pod that the Deployment makes."""
    pod: dict[str, Any] = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return pod


def config_of(manifests: list[Manifest]) -> str:
    """The configuration file that the service reads."""
    text: str = only(manifests, "ConfigMap")["data"]["config.yaml"]
    return text


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    """Strict, with the defaults and with every value set."""
    done = helm("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_service_accepts_the_configuration_that_the_chart_writes(values: dict[str, Any], tmp_path: Path) -> None:
    """Every key that the chart writes is a setting, and the mounted paths are the ones it names."""
    manifests = rendered(values)
    file = tmp_path / "config.yaml"
    file.write_text(config_of(manifests))
    settings = load_settings(file, {})
    mounts = {Path(mount["mountPath"]) for mount in pod_of(manifests)["containers"][0]["volumeMounts"]}
    named = {settings.data, *settings.catalog, *(token.file.parent for token in settings.auth.tokens if token.file)}
    assert settings.scope.kubernetes.own_namespace == "ops"
    assert named | ({settings.store_file.parent} if settings.store_file else set()) <= mounts


def test_the_role_grants_what_the_code_declares_and_nothing_else() -> None:
    """A Role for each namespace, equal to the permissions of actions, checks and owners."""
    manifests = rendered({"rbac": {"namespaces": ["shop", "billing"]}})
    roles = {one["metadata"]["namespace"]: granted_rights(one) for one in manifests if one["kind"] == "Role"}
    assert roles == {"shop": declared_rights(), "billing": declared_rights()}


def test_without_namespaces_nothing_is_granted() -> None:
    """The default touches no workload, and no rights hold for the whole cluster."""
    kinds = {one["kind"] for one in rendered()} | {one["kind"] for one in rendered(EVERYTHING)}
    assert {kind for kind in kinds if kind.startswith("ClusterRole")} == set()
    assert [one for one in rendered() if one["kind"] == "Role"] == []


def test_a_file_has_one_owner_and_a_database_many() -> None:
    """SQLite is handed over, PostgreSQL is shared; several replicas of the first are refused."""
    shared = {"store": {"postgresql": {"existingSecret": "database"}}}
    strategies = [only(rendered(values), "Deployment")["spec"]["strategy"]["type"] for values in ({}, shared)]
    assert strategies == ["Recreate", "RollingUpdate"]
    refused = helm("template", "x", str(CHART), values={"replicas": 2})
    assert "more than one replica needs a store that they share" in refused.stderr


def test_the_pod_is_locked_down() -> None:
    """It passes what Kubernetes calls the restricted profile, on a root file system that cannot be written."""
    pod = pod_of(rendered())
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_nothing_but_the_chart_sets_variables() -> None:
    """For a Service that is named like the release Kubernetes would set REMEDIATOR_PORT, which is no setting."""
    pod = pod_of(rendered())
    assert pod["enableServiceLinks"] is False
    (container,) = pod["containers"]
    (mounted,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "config"]
    assert [{"name": "REMEDIATOR_CONFIG", "value": f"{mounted}/config.yaml"}] == container["env"]


def test_tokens_are_made_where_none_are_given() -> None:
    """Each is long and different; a Secret that is given is used instead."""
    secrets = [only(rendered(), "Secret", "-tokens")["data"] for _ in range(2)]
    assert {len(secret) for secret in secrets} == {2}
    assert len({token for secret in secrets for token in secret.values()}) == 4
    assert [one for one in rendered(EVERYTHING) if one["kind"] == "Secret"] == []


def test_the_configuration_restarts_and_the_catalog_does_not() -> None:
    """A new configuration changes the pod template; a new catalog is picked up by the running pod."""

    def template(values: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = only(rendered(values), "Deployment")["spec"]["template"]
        return found

    assert template({}) == template({"catalog": {"a.yaml": "remediations: []\n"}})
    assert template({}) != template({"config": {"mode": "observe"}})


def test_a_catalog_file_arrives_as_it_was_written() -> None:
    """Templates of a remediation are not helm's, and line breaks stay."""
    text = "remediations:\n\n  - name: a  # {{ labels.pod }}\n    matchers: ['x=~\"a|b\"']\n"
    manifests = rendered({"catalog": {"a.yaml": text}})
    assert only(manifests, "ConfigMap", "-catalog")["data"] == {"a.yaml": text}


def test_the_readme_example_works(tmp_path: Path) -> None:
    """Its values render, and the service accepts the configuration and the catalog in them."""
    example = re.search(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)
    assert example
    manifests = rendered(yaml.safe_load(example[1]))
    (tmp_path / "config.yaml").write_text(config_of(manifests))
    for name, text in only(manifests, "ConfigMap", "-catalog")["data"].items():
        (tmp_path / f"catalog-{name}").write_text(text)
    assert load_settings(tmp_path / "config.yaml", {}).connections.notify.keys() == {"oncall"}
    assert load([tmp_path / "catalog-shop.yaml"], datetime.now(UTC)).remediations.keys() == {"shop-down"}


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 1},
        {"config": {"mode": "yolo"}},
        {"config": {"auth": {}}},
        {"catalog": {"notes.txt": ""}},
        {"auth": {"tokens": [{"name": "a", "role": "root"}]}},
        {"auth": {"tokens": []}},
        {"rbac": {"namespaces": ["*"]}},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_value_that_cannot_work_is_refused(values: dict[str, Any]) -> None:
    """The schema catches it before anything is installed."""
    done = helm("template", "x", str(CHART), values=values)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_the_chart_is_of_this_release() -> None:
    """Chart, default image and code have one version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    image = pod_of(rendered())["containers"][0]["image"]
    assert (chart["appVersion"], image) == (__version__, f"remediator:{__version__}")
