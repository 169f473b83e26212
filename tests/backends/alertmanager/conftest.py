"""A real Alertmanager that notifies a web server, and what tests ask of it beside alerts: silences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.backends.connections import Connections
from tests.support import quiet, web
from tests.support.alertmanager import Alertmanager
from tests.support.processes import wait_until

# The name needs quoting in a pattern, which Alertmanager does when it notifies.
RECEIVER = "team.shop+remediator"
CONFIG = """
route:
  receiver: nobody
  group_by: ['...']
  group_wait: 0s
  group_interval: 1s
  routes:
    - {{receiver: team.shop+remediator, matchers: ['alertname!="Private"'], continue: true}}
    - {{receiver: nobody}}
inhibit_rules:
  - {{source_matchers: [alertname="Outage"], target_matchers: [alertname="Down"]}}
receivers:
  - name: nobody
  - name: team.shop+remediator
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


@dataclass
class Bed:
    """One Alertmanager, or more in a cluster, and the web server that they notify."""

    members: list[Alertmanager]
    webhook: web.WebServer

    def connections(self, **fields: Any) -> Connections:
        """A configuration that asks all members."""
        given = {"urls": [member.url for member in self.members]} | fields
        return Connections.model_validate({"alertmanager": {"default": given}, "timeout": "5s"})

    def push(self, alertname: str = "Down", *, age: float = 0, **labels: str) -> None:
        """Send one alert to all members, as Prometheus does; it began `age` seconds ago."""
        starts_at = datetime.now(UTC) - timedelta(seconds=age)
        for member in self.members:
            member.push({"alertname": alertname} | labels, starts_at=starts_at)

    def end(self, alertname: str = "Down", **labels: str) -> None:
        """Resolve one alert at all members, and wait until none has it."""
        for member in self.members:
            member.push({"alertname": alertname} | labels, ends_at=datetime.now(UTC) - timedelta(milliseconds=1))
        wait_until(lambda: not any(self.holds(member, alertname) for member in self.members), 10, "the alert to end")

    def holds(self, member: Alertmanager, alertname: str) -> bool:
        """Whether a member has an alert of this name."""
        return any(one["labels"]["alertname"] == alertname for one in member.alerts())

    def wait_grouped(self, alertname: str = "Down") -> None:
        """Wait until every member has put the alert into its group."""
        query = {"filter": f'alertname="{alertname}"'}
        for member in self.members:
            wait_until(lambda: _get(member, "alerts/groups", query), 10, f"{alertname} to be grouped")  # noqa: B023

    def silence(self, member: Alertmanager, alertname: str = "Down") -> str:
        """Silence an alert at one member for an hour; the silence's id."""
        now = datetime.now(UTC)
        body = {
            "matchers": [{"name": "alertname", "value": alertname, "isRegex": False, "isEqual": True}],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=1)).isoformat(),
            "createdBy": "test",
            "comment": "maintenance",
        }
        answer = httpx.post(f"{member.url}/api/v2/silences", json=body, trust_env=False).raise_for_status()
        return str(answer.json()["silenceID"])

    def unsilence(self, member: Alertmanager, silence: str) -> None:
        """End a silence."""
        httpx.delete(f"{member.url}/api/v2/silence/{silence}", trust_env=False).raise_for_status()

    def notifications(self) -> list[dict[str, Any]]:
        """What was notified so far."""
        return [json.loads(one.body) for one in self.webhook.requests]


def _get(member: Alertmanager, path: str, query: dict[str, str]) -> Any:
    return httpx.get(f"{member.url}/api/v2/{path}", params=query, trust_env=False).raise_for_status().json()


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    with quiet.plain_logs():
        yield


@pytest.fixture
def webhook() -> Iterator[web.WebServer]:
    """What Alertmanager notifies."""
    with web.serve() as server:
        yield server


@pytest.fixture
def sink() -> Iterator[web.WebServer]:
    """What remediations act on."""
    with web.serve() as server:
        yield server


@pytest.fixture
def bed(start_alertmanager: Callable[..., Alertmanager], webhook: web.WebServer) -> Bed:
    """A single Alertmanager."""
    return Bed([start_alertmanager(CONFIG.format(url=webhook.url))], webhook)


@pytest.fixture
def pair(start_alertmanager: Callable[..., Alertmanager], webhook: web.WebServer) -> Bed:
    """Two Alertmanagers in a cluster."""
    config = CONFIG.format(url=webhook.url)
    first = start_alertmanager(config, peers=[])
    second = start_alertmanager(config, peers=[first.cluster_address])
    for member in (first, second):
        wait_until(lambda: member.peer_count() == 2, 15, "the pair to be complete")  # noqa: B023 - called at once
    return Bed([first, second], webhook)
