"""Reads the shipped rules, their unit tests and the remediations that answer their alerts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.shipped.base_image import ROOT

SYSTEMS = ["ai-pipeline", "smartcloudops", "spheroseg", "svg-ai", "svg-ai-4tier"]
OWN = "remediator"  # its rules are about the service itself: no remediation answers them
RULES = [ROOT / "rules" / f"{name}.yaml" for name in [*SYSTEMS, OWN]]
TESTS = [ROOT / "rules" / "tests" / f"{name}_test.yaml" for name in [*SYSTEMS, OWN]]


def rules(system: str) -> list[dict[str, Any]]:
    """Every rule of a system."""
    document = yaml.safe_load((ROOT / "rules" / f"{system}.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def cases(system: str) -> Iterator[dict[str, Any]]:
    """Every evaluation that the unit tests of a system's rules make."""
    document = yaml.safe_load((ROOT / "rules" / "tests" / f"{system}_test.yaml").read_text())
    for test in document["tests"]:
        yield from test["alert_rule_test"]


def alerts(system: str) -> list[dict[str, str]]:
    """The labels of every alert that these unit tests see firing."""
    return [
        {"alertname": case["alertname"], **alert["exp_labels"]}
        for case in cases(system)
        for alert in case["exp_alerts"]
    ]
