"""Replicas of the service as processes on one PostgreSQL, and what they act on.

`REMEDIATOR_HYPOTHESIS=soak` makes outages a minute long and the load 10,000 alerts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.support import web
from tests.support.alerts import alert, notification
from tests.support.engine import Clock
from tests.support.processes import wait_until
from tests.support.service import Service, ServiceOptions, serve

SOAK = os.environ.get("REMEDIATOR_HYPOTHESIS") == "soak"
PATIENCE = 60.0
TOKEN = "secret-admin"
_JSON = {"Content-Type": "application/json"}
# What a crowd of alerts must not run into unless a test is about it.
AMPLE = {"rate": "100000/1h", "storm": "100000/10m", "concurrency": 1000, "preflight": "0s"}


@dataclass
class Replicas:
    """Services with one store and one catalog; each has a directory and a port of its own."""

    home: Path
    store: str
    entries: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    ends: ExitStack
    members: list[Service] = field(default_factory=list)

    def start(self, **options: Any) -> Service:
        """Start one more."""
        home = self.home / f"replica-{len(self.members)}"
        home.mkdir()
        catalog, config = home / "catalog.yaml", home / "config.yaml"
        catalog.write_text(yaml.safe_dump({"remediations": list(self.entries)}))
        tokens = [{"name": "admin", "role": "admin", "value": TOKEN}]
        given = {"auth": {"tokens": tokens}, "scope": {"http": {"hosts": ["*"]}}, **AMPLE, **self.settings}
        config.write_text(json.dumps(given))
        chosen = {"store": self.store, "catalog": [catalog], "config": config, "token": TOKEN, **options}
        service = self.ends.enter_context(serve(home, ServiceOptions(home / "data", **chosen)))
        self.members.append(service)
        return service

    def rows(self, columns: str = "state, reason, lease_owner") -> list[tuple[Any, ...]]:
        """Columns of every run, as the store has them."""
        with psycopg.connect(self.store) as connection:
            return connection.execute(f"SELECT {columns} FROM run ORDER BY id".encode()).fetchall()

    def owner(self) -> Service:
        """Who works on the only run, or on any."""

        def found() -> Service | None:
            owners = {str(owner) for (owner,) in self.rows("lease_owner") if owner}
            pids = {one.process.pid: one for one in self.members if one.process}
            return next((one for pid, one in pids.items() if any(f"-{pid}-" in owner for owner in owners)), None)

        return wait_until(found, PATIENCE, "a replica to own the run")  # type: ignore[return-value]

    def wait(self, *states: str, count: int = 1, patience: float = PATIENCE) -> None:
        """Wait until there are `count` runs, all in one of these states."""

        def there() -> bool:
            found = [state for (state,) in self.rows("state")]
            return len(found) == count and set(found) <= set(states)

        try:
            wait_until(there, patience, f"{count} runs to be {' or '.join(states)}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; there is {self.rows('state, reason, message, lease_owner')[:20]}") from error


MakeReplicas = Callable[..., Replicas]


@pytest.fixture
def replicas(tmp_path: Path, postgres_database: str, processes: ExitStack) -> MakeReplicas:
    """Makes a set of replicas that none runs of yet: `replicas(entry, lease="3s")`."""

    def make(*entries: Mapping[str, Any], store: str = postgres_database, **settings: Any) -> Replicas:
        return Replicas(tmp_path, store, entries, settings, processes)

    return make


@pytest.fixture
def sink() -> Iterator[web.WebServer]:
    """What remediations act on."""
    with web.serve() as server:
        yield server
        server.answering.set()


def stands_still(service: Service) -> bool:
    """Whether the process has stopped itself."""
    assert service.process, "the service is not started"
    return Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def fire(service: Service, *pods: str, status: str = "firing") -> int:
    """Post one notification with an alert for each of these pods; the status of the answer."""
    alerts = [alert(status, starts_at=Clock()(), pod=pod) for pod in pods or ("one",)]
    return service.post("/webhooks/alertmanager", content=notification(*alerts), headers=_JSON).status_code
