"""The store commits and its answer is lost: people are told that it is not known, and where they see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.conftest import StartService
from tests.support import web
from tests.support.alerts import alert, notification
from tests.support.cutting import Cutting
from tests.support.engine import Clock
from tests.support.entries import asked, poke
from tests.support.processes import wait_until
from tests.support.service import Service

PATIENCE = 30
TOKEN = "secret-admin"


class Bed:
    """A service whose store is reached through a proxy that can lose an answer."""

    def __init__(self, service: Service, cutting: Cutting, sink: web.WebServer) -> None:
        self.service = service
        self.cutting = cutting
        self.sink = sink

    def fire(self) -> int:
        """Deliver an alert; the status of the answer."""
        body = notification(alert(starts_at=Clock()()))
        headers = {"Content-Type": "application/json"}
        return self.service.post("/webhooks/alertmanager", content=body, headers=headers).status_code

    def run(self, state: str) -> dict[str, Any]:
        """The only run, once it is in a state."""

        def there() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = self.service.get("/remediations").json().get("items", [])
            return items if [state] == [item["state"] for item in items] else []

        return wait_until(there, PATIENCE, f"the run to be {state}")[0]


@pytest.fixture
def bed(postgres_database: str, start_service: StartService, tmp_path: Path) -> Iterator[Bed]:
    """One replica on PostgreSQL."""
    server = urlsplit(postgres_database)
    assert server.hostname
    assert server.port
    with ExitStack() as ends:
        cutting = Cutting(server.hostname, server.port)
        ends.enter_context(cutting.running())
        sink = ends.enter_context(web.serve())
        catalog, config = tmp_path / "catalog.yaml", tmp_path / "config.yaml"
        catalog.write_text(yaml.safe_dump({"remediations": [poke(sink, mode="approve")]}))
        tokens = [{"name": "admin", "role": "admin", "value": TOKEN}]
        config.write_text(yaml.safe_dump({"auth": {"tokens": tokens}, "scope": {"hosts": ["*"]}, "preflight": "0s"}))
        store = postgres_database.replace(f":{server.port}", f":{cutting.port}")
        service = start_service(store=store, catalog=[catalog], config=config, token=TOKEN)
        yield Bed(service, cutting, sink)


@pytest.mark.parametrize("committed", [True, False])
def test_an_approval_whose_answer_is_lost(bed: Bed, committed: bool) -> None:
    """It is done or not, and the answer says that nobody knows, and what to ask."""
    assert 202 == bed.fire()
    one = bed.run("awaiting_approval")
    bed.cutting.arm(b"approved by", answered=committed)
    answer = bed.service.post(f"/remediations/{one['id']}/approve")
    assert (503, "outcome_unknown", 1) == (answer.status_code, answer.json()["reason"], bed.cutting.cuts)
    assert f"GET /remediations/{one['id']}" in answer.json()["detail"]
    assert "Retry-After" not in answer.headers
    state = bed.run("succeeded" if committed else "awaiting_approval")
    assert (committed, state["id"]) == (bool(asked(bed.sink)), one["id"])


@pytest.mark.parametrize("committed", [True, False])
def test_a_pause_whose_answer_is_lost(bed: Bed, committed: bool) -> None:
    """Put and taken away: GET /pause tells."""
    bed.cutting.arm(b"INSERT INTO hold", answered=committed)
    answer = bed.service.ask("PUT", "/pause", json={"why": "look"})
    assert (503, "outcome_unknown", 1) == (answer.status_code, answer.json()["reason"], bed.cutting.cuts)
    assert "GET /pause" in answer.json()["detail"]
    assert committed == bool(bed.service.get("/pause").json()["items"])
    assert 200 == bed.service.ask("PUT", "/pause", json={"why": "look"}).status_code
    bed.cutting.arm(b"resumed by", answered=committed)
    answer = bed.service.ask("DELETE", "/pause")
    assert (503, "outcome_unknown", 2) == (answer.status_code, answer.json()["reason"], bed.cutting.cuts)
    assert committed != bool(bed.service.get("/pause").json()["items"])


def test_a_pause_stands_though_it_is_not_known_who_has_seen_it(bed: Bed) -> None:
    """It is recorded, and so the answer never says that it is not; what is not known is a warning."""
    asked_last = b"SELECT virtualtransaction"
    bed.cutting.arm(asked_last, answered=False, at=asked_last)
    answer = bed.service.ask("PUT", "/pause", json={"why": "look", "for": "1h"})
    assert (200, 1) == (answer.status_code, bed.cutting.cuts)
    assert ["look"] == [one["why"] for one in answer.json()["items"]]
    assert "may still be begun" in answer.json()["warnings"][0]
    lost = b"SELECT DISTINCT run.target_key"
    bed.cutting.arm(lost, answered=False, at=lost)
    target = "postgres:main/orders"
    answer = bed.service.ask("PUT", "/pause", json={"why": "look", "for": "1h", "target": target})
    assert 200 == answer.status_code
    assert [target] == [one["subject"] for one in answer.json()["items"] if one["scope"] == "target"]


def test_a_notification_whose_answer_is_lost_is_sent_again(bed: Bed) -> None:
    """Alertmanager gets its 503, and what it sends again counts once."""
    bed.cutting.arm(b"INSERT INTO notification")
    assert 503 == bed.fire()
    assert 202 == bed.fire()
    bed.run("awaiting_approval")
