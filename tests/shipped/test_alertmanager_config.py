"""The shipped configuration of Alertmanager is valid, and leaves people what they had."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.shipped.base_image import ROOT
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


@pytest.mark.parametrize(
    "labels",
    [
        ("alertname=ServiceDown", "job=ai-pipeline"),
        ("alertname=KafkaConsumerLag", "team=ai-pipeline"),
        ("alertname=PostgresConnectionsHigh", "namespace=svg-ai-4tier-prod"),
        ("alertname=RedisMemoryHigh", "namespace=svg-ai-4tier-prod"),
        ("alertname=SomethingElse",),
    ],
    ids=lambda labels: labels[0],
)
def test_every_alert_reaches_the_remediator_and_people(labels: tuple[str, ...]) -> None:
    """The remediator's route takes nothing away from the others."""
    done = amtool("config", "routes", "test", f"--config.file={FILE}", "--verify.receivers=remediator,people", *labels)
    assert done.returncode == 0, done.stdout + done.stderr


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
