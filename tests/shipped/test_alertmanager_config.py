"""The shipped configuration of Alertmanager is valid, and leaves people what they had."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.shipped.base_image import ROOT
from tests.shipped.packs import SYSTEMS, alerts, rules
from tests.support.alertmanager import Alertmanager
from tests.support.binaries import find
from tests.support.processes import wait_until
from tests.support.service import Service

FILE = ROOT / "alertmanager" / "alertmanager.yml"


def amtool(*words: str) -> subprocess.CompletedProcess[str]:
    """Run amtool."""
    return subprocess.run([str(find("amtool")), *words], capture_output=True, text=True, check=False)


def test_amtool_accepts_the_configuration() -> None:
    """It is valid for the Alertmanager of the test bed."""
    done = amtool("check-config", str(FILE))
    assert done.returncode == 0, done.stdout + done.stderr


def _routed(labels: Mapping[str, str]) -> list[str]:
    """The receivers that amtool finds for an alert, in the order of the routes."""
    words = [f"{name}={value}" for name, value in labels.items()]
    done = amtool("config", "routes", "test", f"--config.file={FILE}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().split(",")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_alert_of_a_system_reaches_the_remediator_and_its_people(system: str) -> None:
    """The remediator's route takes nothing away, and no alert reaches another system's people."""
    for labels in alerts(system):
        also = ["svg-ai-4tier-dba"] if labels["alertname"] == "DatabaseUnavailable" else []
        assert _routed(labels) == ["remediator", *also, system], labels


def test_every_other_alert_reaches_the_remediator_and_people() -> None:
    """Also one that is called as one of a system, but is not that team's."""
    assert _routed({"alertname": "SomethingElse"}) == ["remediator", "people"]
    assert _routed({"alertname": "ServiceDown", "team": "web", "job": "ai-pipeline"}) == ["remediator", "people"]


def test_the_remediator_hears_of_each_alert_alone_soon_and_to_its_end() -> None:
    """The settings that its decisions rely on."""
    config = yaml.safe_load(FILE.read_text())
    route = config["route"]["routes"][0]
    (receiver,) = [one for one in config["receivers"] if one["name"] == "remediator"]
    (webhook,) = receiver["webhook_configs"]
    assert route == {
        "receiver": "remediator",
        "continue": True,
        "group_by": ["..."],
        "group_wait": "0s",
        "group_interval": "1m",
        "repeat_interval": "15m",
    }
    assert (webhook["send_resolved"], webhook["max_alerts"]) == (True, 0)
    assert list(webhook["http_config"]["authorization"]) == ["credentials_file"]


def test_a_test_alert_arrives_with_the_token(
    start_service: Callable[..., Service], start_alertmanager: Callable[..., Alertmanager], tmp_path: Path
) -> None:
    """The installation's last step: amtool adds an alert and the service lists it; only addresses differ."""
    secret, config = tmp_path / "alertmanager", tmp_path / "config.yaml"
    secret.write_text("swordfish\n")
    tokens = [
        {"name": "alertmanager", "role": "alertmanager", "file": str(secret)},
        {"name": "reader", "role": "viewer", "value": "open-sesame"},
    ]
    config.write_text(yaml.safe_dump({"auth": {"tokens": tokens}}))
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    running = start_service(config=config, catalog=[catalog])
    shipped = FILE.read_text().replace("http://remediator.remediator.svc:8080", running.url)
    alertmanager = start_alertmanager(shipped.replace("/etc/alertmanager/secrets/remediator/alertmanager", str(secret)))
    added = amtool(
        "alert", "add", f"--alertmanager.url={alertmanager.url}", "alertname=RemediatorTest", "severity=info"
    )
    assert added.returncode == 0, added.stderr

    def episodes() -> int:
        headers = {"Authorization": "Bearer open-sesame"}
        return len(
            running.get("/episodes?alertname=RemediatorTest", headers=headers).raise_for_status().json()["items"]
        )

    wait_until(lambda: episodes() == 1, 20, "the test alert to be listed")


def _labels(alertname: str, team: str) -> dict[str, str]:
    """The labels of an alert as the unit tests of its rule have them."""
    return next(labels for labels in alerts(team) if labels["alertname"] == alertname)


_MUTED = [  # the cause, its symptom, and whether the one mutes the other
    ("svg-ai-4tier", "SiteLost", "PostgresConnectionsHigh", True),
    ("svg-ai-4tier", "ExtendedOutage", "ServiceDown", True),
    ("svg-ai-4tier", "ServiceDown", "HighErrorRate", True),
    ("svg-ai-4tier", "DatabaseUnavailable", "SlowResponseTime", True),
    ("svg-ai-4tier", "DatabaseUnavailable", "ServiceDown", False),
    ("svg-ai-4tier", "HighErrorRate", "ErrorRateElevated", True),
    ("svg-ai", "StackDown", "RedisDown", True),
    ("svg-ai", "StackDown", "DiskSpaceLow", False),
    ("svg-ai", "MemoryExhaustion", "HighMemory", True),
    ("smartcloudops", "ApplicationDown", "HighErrorRate", True),
    ("ai-pipeline", "CompleteOutage", "ServiceDown", True),
    ("spheroseg", "ConnectionLimitReached", "ConnectionPoolExhausted", True),
]


def test_causes_mute_their_symptoms_and_nobody_elses(start_alertmanager: Callable[..., Alertmanager]) -> None:
    """Each pair stands in a namespace and project of its own, beside the symptom of another team."""
    pushed, muted = [], []
    for number, (team, cause, symptom, mutes) in enumerate(_MUTED):
        place = {"namespace": f"place-{number}", "project": f"place-{number}"}
        own = _labels(symptom, team) | place
        pushed += [_labels(cause, team) | place, own, own | {"team": "another"}]
        muted += [own] if mutes else []
    config = yaml.safe_load(FILE.read_text())
    config["receivers"] = [{"name": one["name"]} for one in config["receivers"]]  # nobody is to be told here
    alertmanager = start_alertmanager(yaml.safe_dump(config))
    alertmanager.push_all(pushed)
    wait_until(lambda: len(alertmanager.alerts()) == len(pushed), 20, "the alerts to be there")

    def inhibited() -> list[dict[str, Any]]:
        found = [one["labels"] for one in alertmanager.alerts() if one["status"]["inhibitedBy"]]
        return sorted(found, key=lambda one: sorted(one.items()))

    wait_until(
        lambda: inhibited() == sorted(muted, key=lambda one: sorted(one.items())),
        20,
        "the symptoms, and no others, to be muted",
    )


def test_inhibition_names_alerts_that_exist() -> None:
    """Each alternative of a matcher on `alertname` is an alert of a system, but for the one that people raise."""
    names = {rule["alert"] for system in SYSTEMS for rule in rules(system)} | {"DisasterDeclared"}
    config = yaml.safe_load(FILE.read_text())
    matchers = [
        one for rule in config["inhibit_rules"] for side in ("source", "target") for one in rule[f"{side}_matchers"]
    ]
    patterns = [one.partition('"')[2].rstrip('"') for one in matchers if one.startswith("alertname")]
    missing = [
        part for text in patterns for part in text.split("|") if not any(re.fullmatch(part, name) for name in names)
    ]
    assert missing == []
