"""The store commits and its answer is lost: people are told that it is not known, and where they see it.

In each test `committed` is the truth, which the request has to tell that the answer names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import yaml

from tests.conftest import StartService
from tests.support import web
from tests.support.alerts import alert, notification
from tests.support.cutting import Cutting
from tests.support.dial import Dial, turns
from tests.support.dialing import dialing
from tests.support.engine import Clock
from tests.support.entries import asked, poke, request
from tests.support.processes import wait_until
from tests.support.service import Service

PATIENCE = 30
TOKEN = "secret-admin"
either = pytest.mark.parametrize("committed", [True, False])


class Bed:
    """A service whose store is reached through a proxy that can lose an answer."""

    def __init__(self, service: Service, cutting: Cutting, sink: web.WebServer, dial: Dial) -> None:
        self.service = service
        self.cutting = cutting
        self.sink = sink
        self.dial = dial

    def lose(self, path: str, sent: bytes, *, committed: bool, **body: Any) -> httpx.Response:
        """POST something whose commit is not answered; the answer says so, and has nobody send it again unasked."""
        before = self.cutting.cuts
        self.cutting.arm(sent, answered=committed)
        answer = self.service.post(path, **body)
        assert (503, "outcome_unknown", before + 1) == (answer.status_code, answer.json()["reason"], self.cutting.cuts)
        assert "Retry-After" not in answer.headers
        return answer

    def runs(self, count: int, *states: str) -> list[dict[str, Any]]:
        """All runs, newest first, once there are so many, in these states."""

        def there() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = self.service.get("/remediations").json().get("items", [])
            return items if len(items) == count and {item["state"] for item in items} <= {*states} else []

        return wait_until(there, PATIENCE, f"{count} runs to be {' or '.join(states)}")

    def fire(self, **labels: str) -> int:
        """Deliver an alert; the status of the answer."""
        body = notification(alert(starts_at=Clock()(), **labels))
        headers = {"Content-Type": "application/json"}
        return self.service.post("/webhooks/alertmanager", content=body, headers=headers).status_code

    def run(self, state: str) -> dict[str, Any]:
        """The only run, once it is in a state."""
        return self.runs(1, state)[0]


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
        dial = Dial(tmp_path / "dial")
        dial.turn(3)
        limits = {"breaker": 1, "attempts": 1, "cooldown": "0s"}
        fails = [request(sink, "/fails", expect_status=[299])]
        entries = [
            poke(sink, mode="approve"),
            poke(sink, name="broken", matchers=['alertname="Broken"'], steps=fails, limits=limits),
            turns(dial, matchers=['alertname="Turned"']),
        ]
        catalog.write_text(yaml.safe_dump({"remediations": entries}))
        tokens = [{"name": "admin", "role": "admin", "value": TOKEN}]
        config.write_text(
            yaml.safe_dump({"auth": {"tokens": tokens}, "scope": {"http": {"hosts": ["*"]}}, "preflight": "0s"})
        )
        store = postgres_database.replace(f":{server.port}", f":{cutting.port}")
        service = start_service(store=store, catalog=[catalog], config=config, token=TOKEN, module=dialing())
        yield Bed(service, cutting, sink, dial)


@either
def test_an_approval_whose_answer_is_lost(bed: Bed, committed: bool) -> None:
    """It is done or not, and the answer says that nobody knows, and what to ask."""
    assert 202 == bed.fire()
    one = bed.run("awaiting_approval")
    answer = bed.lose(f"/remediations/{one['id']}/approve", b"approved by", committed=committed)
    assert f"GET /remediations/{one['id']} tells" in answer.json()["detail"]
    state = bed.run("succeeded" if committed else "awaiting_approval")
    assert (committed, state["id"]) == (bool(asked(bed.sink)), one["id"])


@either
@pytest.mark.parametrize(
    ("verb", "done", "state"), [("reject", b"rejected by", "denied"), ("cancel", b"cancelled by", "cancelled")]
)
def test_a_no_whose_answer_is_lost(bed: Bed, verb: str, done: bytes, state: str, committed: bool) -> None:
    """The run tells; said again it counts once."""
    bed.fire()
    path = f"/remediations/{bed.run('awaiting_approval')['id']}"
    answer = bed.lose(f"{path}/{verb}", done, committed=committed)
    assert f"GET {path} tells" in answer.json()["detail"]
    shown = bed.service.get(path).json()
    said = [one["actor"] for one in shown["events"] if one["kind"] == done.decode().split()[0]]
    assert (state, ["admin"]) if committed else ("awaiting_approval", []) == (shown["state"], said)
    assert (409 if committed else 200) == bed.service.post(f"{path}/{verb}").status_code
    assert [state] == [one["state"] for one in bed.runs(1, state)]
    assert 0 == asked(bed.sink)


@either
def test_a_retry_whose_answer_is_lost(bed: Bed, committed: bool) -> None:
    """The list tells whether there is a new run; asked for again there is one, and not two."""
    bed.fire()
    path = f"/remediations/{bed.run('awaiting_approval')['id']}"
    assert bed.service.post(f"{path}/reject").is_success
    answer = bed.lose(f"{path}/retry", b"asked for by admin after", committed=committed)
    assert f"GET {path} and GET /remediations tell" in answer.json()["detail"]
    found = bed.service.get("/remediations").json()["items"]
    assert 1 + committed == len(found)
    assert (409 if committed else 201) == bed.service.post(f"{path}/retry").status_code
    assert 2 == len(bed.runs(2, "denied", "awaiting_approval"))


@either
def test_an_undo_whose_answer_is_lost(bed: Bed, committed: bool) -> None:
    """The list has the run that does it, the undone run says that it is recorded; nothing is undone twice."""
    bed.fire(alertname="Turned")
    path = f"/remediations/{bed.run('succeeded')['id']}"
    answer = bed.lose(f"{path}/undo", b"asked for by admin", committed=committed)
    assert f"GET {path} and GET /remediations tell" in answer.json()["detail"]
    told = [one["kind"] for one in bed.service.get(path).json()["events"]]
    found = bed.service.get("/remediations").json()["items"]
    assert (committed, 1 + committed) == ("undo_recorded" in told, len(found))
    assert (409 if committed else 201) == bed.service.post(f"{path}/undo").status_code
    bed.runs(2, "succeeded")
    assert [3, 5, 3] == bed.dial.history


@pytest.mark.parametrize(("waiting", "committed"), [("drop", True), ("drop", False), ("replay", True)])
def test_the_close_of_a_breaker_whose_answer_is_lost(bed: Bed, waiting: str, committed: bool) -> None:
    """GET /catalog/NAME tells; what waited for it is dropped, or decided, or waits still."""
    bed.fire(alertname="Broken")
    bed.run("failed")
    bed.fire(alertname="Broken", pod="another")
    bed.runs(2, "failed", "deferred")
    path = "/catalog/broken/breaker/close"
    answer = bed.lose(path, b"breaker closed by", committed=committed, json={"waiting": waiting})
    assert "GET /catalog/broken tells" in answer.json()["detail"]
    if not committed:
        assert "open" == bed.service.get("/catalog/broken").json()["record"]["breaker"]["state"]
        bed.runs(2, "failed", "deferred")
        assert bed.service.post(path, json={"waiting": waiting}).json()["was_open"]
    elif waiting == "drop":  # what is decided may have opened it again
        assert "closed" == bed.service.get("/catalog/broken").json()["record"]["breaker"]["state"]
    bed.runs(2, "failed", "cancelled" if waiting == "drop" else "failed")
    assert (1 if waiting == "drop" else 2) == asked(bed.sink, "/fails")


@either
def test_a_reload_whose_answer_is_lost(
    bed: Bed, start_service: StartService, postgres_database: str, committed: bool
) -> None:
    """It is done here, and the answer is no other; the other replicas are told again, which does no harm."""
    options = bed.service.options
    other = start_service(
        store=postgres_database, catalog=options.catalog, config=options.config, token=TOKEN, module=dialing()
    )
    before = other.get("/catalog").json()["loaded_at"]
    bed.cutting.arm(b"pg_notify", answered=committed)
    answer = bed.service.post("/-/reload")
    assert (200, 1) == (answer.status_code, bed.cutting.cuts)
    assert bed.service.get("/catalog").json()["warnings"] == answer.json()["warnings"]
    wait_until(lambda: other.get("/catalog").json()["loaded_at"] > before, PATIENCE, "the other one to reload")


@either
def test_a_reload_whose_record_is_not_confirmed(bed: Bed, postgres_database: str, committed: bool) -> None:
    """The answer says what is not known, and GET /events tells."""
    bed.cutting.arm(b"reload by admin", answered=committed)
    answer = bed.service.post("/-/reload")
    assert (200, 1) == (answer.status_code, bed.cutting.cuts)
    assert "GET /events says whether it is there" in answer.json()["warnings"][-1]
    with psycopg.connect(postgres_database) as connection:
        found = connection.execute("SELECT message FROM event WHERE kind = 'reloaded'").fetchall()
    assert committed == bool(found)


@either
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
