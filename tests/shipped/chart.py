"""The chart as helm renders and installs it, and what the code says it has to allow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from itertools import chain
from typing import Any

import yaml

from app.backends.actions import actions
from app.backends.checks import checks
from app.backends.kubernetes.owners import POD_PERMISSIONS
from tests.shipped.base_image import ROOT
from tests.support.binaries import find

CHART = ROOT / "helm" / "remediator"

Right = tuple[str, str, str]  # API group, resource, verb
Manifest = dict[str, Any]


def helm(*words: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm with the chart's values on its input; values are JSON, which is YAML."""
    command = [str(find("helm")), *words, "--values", "-"]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)


def rendered(values: Mapping[str, Any] | None = None, namespace: str = "ops") -> list[Manifest]:
    """What an installation of these values would apply."""
    done = helm("template", "remediator", str(CHART), "--namespace", namespace, values=values)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def only(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """The one manifest of this kind whose name ends like this."""
    (found,) = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == f"remediator{suffix}"]
    return found


def declared_rights() -> set[Right]:
    """Every right that actions, checks and the resolution of targets declare for Kubernetes."""
    permissions = chain(
        POD_PERMISSIONS,
        *(action.permissions for action in actions().values()),
        *(check.permissions for check in checks().values()),
    )
    return {
        (permission.group, permission.resource, verb)
        for permission in permissions
        if permission.backend == "kubernetes"
        for verb in permission.verbs
    }


def granted_rights(role: Manifest) -> set[Right]:
    """Every right that a Role gives."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
