"""What a remediation does when its first answer does not help: the next rung, a person, another attempt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.audit import PATIENCE, Audit, kinds
from tests.acceptance.bench import remediation, request, resolve, routes, serving
from tests.conftest import StartAlertmanager
from tests.support import web
from tests.support.processes import wait_until
from tests.support.service import Service
from tests.support.web import WebServer


def catalog(target: WebServer) -> list[dict[str, Any]]:
    """Remediations with more than one answer."""
    restart, scale = request(f"{target.url}/restart"), request(f"{target.url}/scale")
    tell = {
        "action": "notify.send",
        "with": {"channel": "oncall", "title": "{{ labels.alertname }} goes on", "body": "The restart did not help."},
    }
    broken = request(f"{target.url}/broken", expect_status=[201])
    limits = {"cooldown": "1s", "rate": "1000/1h", "attempts": 2}
    return [
        remediation("second-rung-helps", restart, settle="1s", escalate=[{"steps": [scale], "settle": "1h"}]),
        remediation("nothing-helps", restart, settle="1s", escalate=[{"steps": [tell], "settle": "1s"}]),
        remediation("tell-at-once", broken, escalate=[{"steps": [tell]}]),
        remediation("try-twice", broken, limits=limits),
    ]


@pytest.fixture(scope="module")
def target() -> Iterator[WebServer]:
    """What the steps ask; it also takes the messages to people."""
    with web.serve() as server:
        yield server


@pytest.fixture(scope="module")
def service(target: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One replica with a notification channel."""
    channel = {"urls": [{"value": target.url.replace("http://", "json://")}]}
    config = {"connections": {"notify": {"oncall": channel}}}
    with serving(tmp_path_factory.mktemp("service"), catalog(target), config) as running:
        yield running


@pytest.fixture
def audit(service: Service) -> Audit:
    """What the service says."""
    return Audit(service)


def test_second_rung_is_tried_when_the_first_did_not_help(
    start_alertmanager: StartAlertmanager, service: Service, audit: Audit, target: WebServer
) -> None:
    """The alert goes on after the restart, so that the service is scaled, and the alert resolves: one run."""
    router = start_alertmanager(routes(service.url))
    router.push({"alertname": "second-rung-helps"})
    wait_until(lambda: any(one.path == "/scale" for one in target.requests), PATIENCE, "the second rung")
    resolve(router, {"alertname": "second-rung-helps"})

    run = audit.reached("succeeded", alertname="second-rung-helps")

    assert ("verified", True, 1, 1) == (run["reason"], run["effective"], run["rung"], run["attempt"])
    assert [(0, "succeeded"), (1, "succeeded")] == [(step["rung"], step["state"]) for step in run["steps"]]
    assert [f"POST {target.url}/restart", f"POST {target.url}/scale"] == [step["summary"] for step in run["steps"]]
    assert "alert_still_firing" in [event["reason"] for event in run["events"]]
    assert 1 == sum(one.path == "/scale" for one in target.requests)


@dataclass(frozen=True)
class Told:
    """How a run ends whose last rung is a message."""

    reason: str
    message: str


TOLD = {
    "nothing-helps": Told("alert_still_firing", "the alert still fires 1s after verification"),
    "tell-at-once": Told("action_failed", "answered 200"),
}


@pytest.mark.parametrize("alertname", TOLD)
def test_rung_that_only_tells_people_is_no_success(
    alertname: str, start_alertmanager: StartAlertmanager, service: Service, audit: Audit, target: WebServer
) -> None:
    """The message arrives, the alert goes on, and the run says that it failed and why."""
    start_alertmanager(routes(service.url)).push({"alertname": alertname})

    run = audit.reached("failed", alertname=alertname)

    assert (TOLD[alertname].reason, False, 1) == (run["reason"], run["effective"], run["rung"])
    assert TOLD[alertname].message in run["message"]
    told = [json.loads(one.body)["title"] for one in target.requests if one.path == "/"]
    assert 1 == told.count(f"{alertname} goes on")
    assert 1 == audit.metric("remediator_runs_total", remediation=alertname, state="failed")
    assert 0 == audit.metric("remediator_runs_effective_total", remediation=alertname)


def test_second_attempt_follows_a_failed_run(
    start_alertmanager: StartAlertmanager, service: Service, audit: Audit
) -> None:
    """With `attempts: 2` the alert's second run comes after the cooldown, and no third one."""
    start_alertmanager(routes(service.url, repeat_interval="1s")).push({"alertname": "try-twice"})

    first, second = audit.ended(2, alertname="try-twice")

    assert [("failed", "action_failed", 1), ("failed", "action_failed", 2)] == [
        (run["state"], run["reason"], run["attempt"]) for run in (first, second)
    ]
    assert "next_attempt" in kinds(first)
    assert "next_attempt" not in kinds(second)
    assert first["finished_at"] < second["admitted_at"]
    told = audit.episode(alertname="try-twice")["deliveries"]
    wait_until(lambda: audit.episode(alertname="try-twice")["deliveries"] > told, PATIENCE, "one more delivery")
    assert [second["id"], first["id"]] == [
        run["id"] for run in audit.get("/remediations", alertname="try-twice")["items"]
    ]
