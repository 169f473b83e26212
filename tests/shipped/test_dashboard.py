"""Every query of the dashboard returns data on a real Prometheus that scrapes a real, busy service."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.shipped.chart import only, rendered
from tests.support import prometheus, service, web
from tests.support.processes import wait_until
from tests.support.prometheus import Prometheus
from tests.support.service import Service
from tools.dashboard import FILE, dashboard

JOB = "remediator"
QUERIES = sorted({target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())})
STATES = {"succeeded", "failed", "observed"}


def catalog(working: str, broken: str) -> str:
    """One remediation that helps, one that fails and one that only looks; each names its alert."""

    def entry(name: str, url: str, **fields: Any) -> dict[str, Any]:
        step = {"action": "http.request", "with": {"url": url}}
        matchers = [f'alertname="{name}"']
        return {"name": name, "summary": name, "matchers": matchers, "mode": "auto", "steps": [step]} | fields

    verify = [{"check": "http.ok", "with": {"url": working}}]
    entries = [
        entry("helps", working, verify=verify, settle="1m"),
        entry("fails", broken),
        entry("looks", working, mode="auto", earn={}),
    ]
    return yaml.safe_dump({"remediations": entries})


def notification(name: str, status: str) -> dict[str, Any]:
    """What Alertmanager posts for one alert."""
    now = datetime.now(UTC)
    began, ended = now - timedelta(minutes=1), now if status == "resolved" else datetime(1, 1, 1, tzinfo=UTC)
    alert = {
        "status": status,
        "labels": {"alertname": name},
        "annotations": {},
        "startsAt": began.isoformat(),
        "endsAt": ended.isoformat(),
        "generatorURL": "",
        "fingerprint": f"{sum(name.encode()):016x}",
    }
    common = {"groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": ""}
    head = {"version": "4", "groupKey": "{}", "truncatedAlerts": 0, "receiver": "remediator", "status": status}
    return {**head, **common, "alerts": [alert]}


def post(running: Service, name: str, status: str = "firing") -> None:
    """Deliver one notification."""
    running.post("/webhooks/alertmanager", json=notification(name, status)).raise_for_status()


def keep_busy(running: Service) -> None:
    """Let it do everything that a panel shows, to the end."""
    for name in ("helps", "fails", "looks", "unknown"):
        post(running, name)

    def states() -> set[str]:
        return {run["state"] for run in running.get("/remediations").json()["items"]}

    wait_until(lambda: "verifying" in states(), 30, "the first run to wait for its alert to resolve")
    post(running, "helps", "resolved")
    wait_until(lambda: states() == STATES, 30, "every run to be over")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen the service before, during and after its work."""
    with ExitStack() as stack:
        home = tmp_path_factory.mktemp("service")
        working, broken = stack.enter_context(web.serve()), stack.enter_context(web.serve())
        broken.status = 400
        (home / "catalog.yaml").write_text(catalog(working.url, broken.url))
        (home / "config.yaml").write_text(yaml.safe_dump({"scope": {"http": {"hosts": ["127.0.0.1"]}}}))
        options = service.ServiceOptions(
            data=home / "data", catalog=[home / "catalog.yaml"], config=home / "config.yaml"
        )
        running = stack.enter_context(service.serve(home, options))
        config = {
            "global": {"scrape_interval": "500ms"},
            "scrape_configs": [
                {"job_name": JOB, "static_configs": [{"targets": [running.url.removeprefix("http://")]}]}
            ],
        }
        server = stack.enter_context(prometheus.serve(tmp_path_factory.mktemp("prometheus"), yaml.safe_dump(config)))
        # A route's series begins with its first answer, and a rate needs a beginning.
        post(running, "early", "resolved")
        scrapes = scrape_counter(server)
        wait_until(lambda: scrapes() >= 2, 30, "two scrapes before the work")
        keep_busy(running)
        seen = scrapes()
        wait_until(lambda: scrapes() >= seen + 2, 30, "two scrapes after the work")
        yield server


def scrape_counter(server: Prometheus) -> Callable[[], float]:
    """How many scrapes have succeeded."""

    def count() -> float:
        found = server.query(f'count_over_time(remediator_build_info{{job="{JOB}"}}[1h])')
        return float(found[0]["value"][1]) if found else 0

    return count


@pytest.mark.parametrize("expression", QUERIES)
def test_every_query_returns_data(scraped: Prometheus, expression: str) -> None:
    """At least one series with a number, with Grafana's variables filled in."""
    series = scraped.query(expression.replace("$__rate_interval", "1m").replace("$job", JOB))
    numbers = [float(one["value"][1]) for one in series]
    assert [number for number in numbers if math.isfinite(number)], f"{expression} gave {series}"


@pytest.mark.parametrize(
    ("title", "labels"),
    [
        ("Succeeded, last day", {}),
        ("Failed, last day", {}),
        ("Runs by remediation", {"remediation": "helps"}),
        ("Effective share by remediation, last day", {"remediation": "helps"}),
        ("Preflight by remediation", {"remediation": "helps"}),
        ("Refusals by reason", {"reason": "mode_observe"}),
        ("Episodes that nothing matches", {}),
        ("Actions by result", {"action": "http.request", "result": "failed"}),
        ("Checks by result", {"check": "http.ok", "result": "held"}),
        ("Notifications by result", {"result": "accepted"}),
        ("Alerts by what they meant", {"receipt": "opened"}),
        ("Requests by status", {"code": "202"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_happened_is_what_the_panel_shows(scraped: Prometheus, title: str, labels: dict[str, str]) -> None:
    """After real work a panel shows more than zero under the label that stands for it."""
    (panel,) = [panel for panel in dashboard()["panels"] if panel["title"] == title]
    query = panel["targets"][0]["expr"].replace("$__rate_interval", "1m").replace("$job", JOB)
    found = [float(one["value"][1]) for one in scraped.query(query) if one["metric"] == labels]
    assert len(found) == 1
    assert found[0] > 0


def test_the_dashboard_is_generated() -> None:
    """The file in the chart is what tools/dashboard.py writes, and what the chart ships."""
    assert json.loads(FILE.read_text()) == dashboard()
    shipped = only(rendered({"dashboard": {"enabled": True}}), "ConfigMap", "-dashboard")
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(shipped["data"]["remediator.json"]) == dashboard()


def test_panels_have_their_own_place_and_words() -> None:
    """No panel overlaps another, leaves the grid or goes unexplained."""
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [panel["title"] for panel in panels if panel["type"] != "row" and not panel["description"]] == []


def test_the_documentation_names_every_panel() -> None:
    """docs/dashboard.md says of each panel what to do about it."""
    text = (Path(FILE).parents[3] / "docs" / "dashboard.md").read_text()
    titles = [panel["title"] for panel in dashboard()["panels"]]
    assert [title for title in titles if f"**{title}**" not in text and f"## {title}" not in text] == []
