"""Alerts that end: before their run starts, in the middle of it, and those that come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.audit import PATIENCE, Audit, kinds
from tests.acceptance.bench import remediation, request, resolve, routes, serving
from tests.support import alertmanager, web
from tests.support.alertmanager import Alertmanager
from tests.support.processes import wait_until
from tests.support.service import Service
from tests.support.web import WebServer

CAPTURES = Path(__file__).parents[1] / "testdata" / "notifications"
PAUSE = timedelta(seconds=2)


def on_database(number: int) -> dict[str, Any]:
    """A target that several alerts share; the steps here do not touch it."""
    return {"redis": {"instance": "cache", "database": number}}


def catalog(quick: WebServer, slow: WebServer) -> list[dict[str, Any]]:
    """Remediations that have to wait for one reason each, and those that have not."""
    step = request(f"{quick.url}/{{{{ labels.alertname }}}}")
    patient = request(f"{slow.url}/slow")
    return [
        remediation("rests", step, target=on_database(1), limits={"cooldown": "1h", "rate": "1000/1h"}),
        remediation("is-rationed", step, target=on_database(2), limits={"cooldown": "0s", "rate": "1/1h"}),
        remediation("is-in-work", patient, target=on_database(3)),
        remediation("has-to-wait", step, target=on_database(3)),
        remediation("Flap", step, name="flap"),
        remediation("ends-meanwhile", patient, settle="1h"),
        remediation("comes-back", step, limits={"cooldown": "2s", "rate": "1000/1h"}),
    ]


@pytest.fixture(scope="module")
def quick() -> Iterator[WebServer]:
    """A target that answers at once."""
    with web.serve() as server:
        yield server


@pytest.fixture
def hold(slow: WebServer) -> Iterator[WebServer]:
    """The slow target, which answers when its `answering` is set and at the latest after the test."""
    slow.requests.clear()
    slow.answering.clear()
    yield slow
    slow.answering.set()


@pytest.fixture(scope="module")
def slow() -> Iterator[WebServer]:
    """A target that can be made to wait."""
    with web.serve() as server:
        yield server


@pytest.fixture(scope="module")
def service(quick: WebServer, slow: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One replica; the Redis that it names is never asked."""
    config = {"connections": {"redis": {"cache": {"url": {"value": "redis://127.0.0.1:1"}}}, "timeout": "30s"}}
    with serving(tmp_path_factory.mktemp("service"), catalog(quick, slow), config) as running:
        yield running


@pytest.fixture(scope="module")
def router(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """Sends everything on, one alert at a time."""
    with ExitStack() as stack:
        yield stack.enter_context(alertmanager.serve(tmp_path_factory.mktemp("alertmanager"), routes(service.url)))


@pytest.fixture
def audit(service: Service) -> Audit:
    """What the service says."""
    return Audit(service)


def asked(server: WebServer, path: str) -> int:
    """How often a path was asked for."""
    return sum(one.path == path for one in server.requests)


@pytest.mark.parametrize(("alertname", "reason"), [("rests", "cooldown"), ("is-rationed", "rate")])
def test_alert_that_ends_while_its_run_waits_for_a_limit(
    alertname: str, reason: str, router: Alertmanager, audit: Audit, quick: WebServer
) -> None:
    """A first alert has used the limit up; the second one's run waits, its alert ends, and nothing is done."""
    first, second = ({"alertname": alertname, "number": number} for number in ("1", "2"))
    router.push(first)
    audit.reached("succeeded", alertname=alertname, label="number=1")

    router.push(second)
    waiting = audit.reached("deferred", alertname=alertname, label="number=2")
    assert reason == waiting["reason"]
    resolve(router, second)
    ended = audit.reached("cancelled", alertname=alertname, label="number=2")

    assert "resolved_before_start" == ended["reason"]
    assert [None, []] == [ended["effective"], [step for step in ended["steps"] if step["state"] != "planned"]]
    assert 1 == asked(quick, f"/{alertname}")
    assert 1 == audit.metric("remediator_runs_total", remediation=alertname, state="cancelled")


def test_alert_that_ends_while_its_target_is_busy(
    router: Alertmanager, audit: Audit, quick: WebServer, hold: WebServer
) -> None:
    """Another remediation works on the target; meanwhile the alert ends, and the run that waited is cancelled."""
    router.push({"alertname": "is-in-work"})
    wait_until(lambda: hold.requests, PATIENCE, "the first remediation to be in its step")
    router.push({"alertname": "has-to-wait"})
    waiting = audit.reached("deferred", alertname="has-to-wait")
    assert "target_busy" == waiting["reason"]

    resolve(router, {"alertname": "has-to-wait"})
    ended = audit.reached("cancelled", alertname="has-to-wait")
    assert "running" == audit.runs(alertname="is-in-work")[0]["state"]
    hold.answering.set()

    assert "resolved_before_start" == ended["reason"]
    audit.reached("succeeded", alertname="is-in-work")
    assert 0 == asked(quick, "/has-to-wait")


def test_resolve_that_overtook_its_alert(service: Service, audit: Audit, quick: WebServer) -> None:
    """Alertmanager's retries may arrive in another order; an alert that is known to be over starts nothing."""
    for shape in ("flap-resolved", "flap-firing"):
        captured = json.loads((CAPTURES / f"alertmanager-0.33.1-{shape}.json").read_text())
        answer = service.post("/webhooks/alertmanager", json=captured["body"])
        assert 202 == answer.status_code
    wait_until(lambda: audit.metric("remediator_inbox_notifications") == 0, PATIENCE, "everything to be taken in")

    episode = audit.episode(alertname="Flap")
    assert [[], []] == [episode["matched"], episode["runs"]]
    assert "it had resolved before it was first seen, so nothing was matched" == episode["explanation"]
    assert 1 == audit.metric("remediator_alerts_total", receipt="unknown_resolved")
    assert 1 == audit.metric("remediator_alerts_total", receipt="late")
    assert 0 == asked(quick, "/Flap")


def test_alert_that_ends_in_the_middle_of_its_run(router: Alertmanager, audit: Audit, hold: WebServer) -> None:
    """What has begun is finished, and counts as a run that helped."""
    router.push({"alertname": "ends-meanwhile"})
    wait_until(lambda: hold.requests, PATIENCE, "the step to have begun")
    resolve(router, {"alertname": "ends-meanwhile"})
    wait_until(lambda: audit.episode(alertname="ends-meanwhile")["closed_at"], PATIENCE, "the resolve to be known")
    assert "running" == audit.runs(alertname="ends-meanwhile")[0]["state"]
    hold.answering.set()

    run = audit.reached("succeeded", alertname="ends-meanwhile")
    assert ("verified", True) == (run["reason"], run["effective"])
    assert ["recorded", "running", "step_started", "step_succeeded", "verifying", "succeeded"] == kinds(run)
    assert run["resolved_at"] < run["finished_at"]
    assert 1 == len(hold.requests)
    assert 1 == audit.metric("remediator_runs_effective_total", remediation="ends-meanwhile")


def test_alert_that_comes_back(router: Alertmanager, audit: Audit, quick: WebServer) -> None:
    """A second episode of an alert gets a second run, once the target has rested."""
    router.push({"alertname": "comes-back"})
    first = audit.reached("succeeded", alertname="comes-back")
    resolve(router, {"alertname": "comes-back"})
    wait_until(lambda: audit.run(first["id"])["effective"], PATIENCE, "the resolve to be known")

    router.push({"alertname": "comes-back"})
    runs = audit.ended(2, alertname="comes-back")

    assert ["succeeded"] * 2 == [run["state"] for run in runs]
    begun, rested = (datetime.fromisoformat(text) for text in (runs[1]["admitted_at"], runs[0]["finished_at"]))
    assert begun - rested >= PAUSE
    episodes = audit.episodes(alertname="comes-back")
    assert [[runs[0]["id"]], [runs[1]["id"]]] == [[one["id"] for one in episode["runs"]] for episode in episodes]
    assert 2 == asked(quick, "/comes-back")
