"""The shipped rules are valid, fire when they should, and say what the shipped remediations wait for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.catalog.catalog import Catalog
from app.catalog.loader import load
from tests.shipped.base_image import ROOT
from tests.support.binaries import find

RULES = sorted((ROOT / "rules").glob("*.yaml"))
TESTS = sorted((ROOT / "rules" / "tests").glob("*.yaml"))
OWN = "remediator"  # about the service itself: no remediation answers them


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [str(find("promtool")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rules(*, own: bool = True) -> Iterator[dict[str, Any]]:
    """Every shipped rule, those about the service itself among them or not."""
    for file in (file for file in RULES if own or file.stem != OWN):
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def expected_alerts(*, own: bool = True) -> Iterator[dict[str, str]]:
    """The labels of every alert that the unit tests of the rules see firing."""
    for file in (file for file in TESTS if own or file.stem != OWN):
        for one in yaml.safe_load(file.read_text())["tests"]:
            for case in one["alert_rule_test"]:
                for alert in case["exp_alerts"]:
                    yield {"alertname": case["alertname"], **alert["exp_labels"]}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The shipped remediations."""
    return load([ROOT / "remediations"], datetime.now(UTC))


def test_promtool_accepts_the_rules() -> None:
    """Every file is valid for the Prometheus of the test bed."""
    done = promtool("check", "rules", *RULES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_the_rules_fire_when_they_should(file: Path) -> None:
    """The unit tests beside the rules hold, unchanged."""
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_seen_firing_and_quiet() -> None:
    """No rule is without a unit test in which it fires and one in which it does not."""
    quiet = {
        case["alertname"]
        for file in TESTS
        for one in yaml.safe_load(file.read_text())["tests"]
        if not any(case["exp_alerts"] for case in one["alert_rule_test"])
        for case in one["alert_rule_test"]
    }
    names = {rule["alert"] for rule in rules()}
    assert (names, names) == ({alert["alertname"] for alert in expected_alerts()}, quiet)


def test_every_alert_has_one_remediation_and_every_remediation_an_alert(catalog: Catalog) -> None:
    """What the rules raise is what the catalog matches."""
    matched = [[found.name for found in catalog.match(alert)] for alert in expected_alerts(own=False)]
    assert sorted(matched) == sorted([name] for name in catalog.remediations)


def test_every_rule_explains_itself(catalog: Catalog) -> None:
    """A person gets a summary, a description and the runbook that the remediation names too."""
    links = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in rules(own=False)}
    runbooks = {
        alert["alertname"]: str(catalog.match(alert)[0].runbook_url)
        for alert in expected_alerts()
        if catalog.match(alert)
    }
    assert links == runbooks
    assert [rule["alert"] for rule in rules() if not {"summary", "description"} <= rule["annotations"].keys()] == []
