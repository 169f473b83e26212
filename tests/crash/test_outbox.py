"""The service is killed while it tells people something: they hear of it all the same, at most once too often."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support import web
from tests.support.alerts import alert, notification
from tests.support.crashing import Crashing, Point
from tests.support.engine import Clock
from tests.support.entries import poke
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port, wait_until

SEND = "app.backends.notify.client.Notifier.send"
TAKE = "app.store.ledger.outbox.take"
FINISH = "app.store.ledger.outbox.finish"
QUEUE = "app.store.ledger.outbox.queue"
# How often the question may arrive when the service dies there.
POINTS = {
    Point(QUEUE, "before", 1): {1},
    Point(QUEUE, "after", 1): {1},
    Point(TAKE, "after", 1): {1},
    Point(SEND, "before", 1): {1},
    Point(SEND, "after", 1): {2},
    Point(FINISH, "after", 1): {2},
}


@pytest.fixture
def people() -> Iterator[web.WebServer]:
    """A real HTTP receiver, with a path for each service."""
    with web.serve() as server:
        yield server


def arguments(home: Path, port: int, people: str, store: str | None) -> list[str]:
    """A service with one remediation that asks."""
    home.mkdir()
    catalog, config = home / "catalog.yaml", home / "config.yaml"
    asks = poke(web.WebServer(url="http://127.0.0.1:9"), mode="approve")
    catalog.write_text(yaml.safe_dump({"remediations": [asks]}))
    channel = {"ops": {"urls": [{"value": people}]}}
    settings = {"channel": "ops", "scope": {"http": {"hosts": ["*"]}}}
    config.write_text(yaml.safe_dump(settings | {"connections": {"notify": channel, "timeout": "30s"}}))
    given = ["serve", "--listen", f"127.0.0.1:{port}", "--catalog", str(catalog)]
    given += ["--data", str(home), "--config", str(config)]
    return given + (["--store", store] if store else [])


def survive(crashing: Crashing, home: Path, people: web.WebServer, point: Point, server: PostgresServer | None) -> int:
    """Let a service die at the point and another one go on; how often the question arrived."""
    port = free_port()
    url = people.url.replace("http://", "json://") + f"/{home.name}"
    environment = {"REMEDIATOR_LEASE": "2s", "REMEDIATOR_LOG__LEVEL": "warning"}
    body = notification(alert(starts_at=Clock()()))

    def start(where: Point | None) -> Any:
        return crashing.start(where, given, environment, home / "service.log")

    with ExitStack() as stack, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        database = stack.enter_context(server.database()) if server else None
        given = arguments(home, port, url, server.database_url(database) if server and database else None)
        process = start(point)
        stack.callback(process.kill)
        dead = partial(crashing.status, process)
        wait_until(lambda: _post(client, body) or dead() is not None, 40, "the notification to be recorded")
        assert crashing.join(process) == -signal.SIGKILL, f"never reached {point}"
        _pass_time(home, server, database)
        process = start(None)
        stack.callback(process.kill)
        wait_until(lambda: _post(client, body), 40, "the notification to be recorded")
        wait_until(lambda: "told" in _kinds(client), 60, f"people to be told after {point}")
        return sum(one.path == f"/{home.name}" and b"Approve?" in one.body for one in people.requests)


def _pass_time(home: Path, server: PostgresServer | None, database: str | None) -> None:
    """The minutes in which only who has taken a message may send it: more than the slowest receiver needs."""
    statement = "UPDATE message SET not_before = created_at"
    if server and database:
        server.execute(statement, database=database)
    else:
        with closing(sqlite3.connect(home / "remediator.db")) as connection, connection:
            connection.execute(statement)


def _post(client: httpx.Client, body: bytes) -> bool:
    try:
        answer = client.post("/webhooks/alertmanager", content=body, headers={"Content-Type": "application/json"})
    except httpx.TransportError:
        return False
    return answer.status_code == 202


def _kinds(client: httpx.Client) -> list[str]:
    items = client.get("/remediations").json()["items"]
    return [event["kind"] for item in items for event in client.get(f"/remediations/{item['id']}").json()["events"]]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_killed_while_people_are_told(
    backend: str, tmp_path: Path, people: web.WebServer, request: pytest.FixtureRequest
) -> None:
    """Before or after sending, and before or after that is written down."""
    crashing = Crashing()
    server = request.getfixturevalue("postgres_server") if backend == "postgresql" else None

    def one(numbered: tuple[int, Point]) -> int:
        number, point = numbered
        return survive(crashing, tmp_path / str(number), people, point, server)

    with ThreadPoolExecutor(3) as pool:
        arrived = dict(zip(POINTS, pool.map(one, enumerate(POINTS)), strict=True))
    assert {} == {str(point): count for point, count in arrived.items() if count not in POINTS[point]}
    first = next(body for body in people.requests if b"Approve?" in body.body)
    assert "/approve" in json.loads(first.body)["message"]
