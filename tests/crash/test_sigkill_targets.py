"""The same for what acts on a cluster and a database, and for what is given back: counted where it happens."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.crash.replica import Replica
from tests.support.alerts import alert, notification
from tests.support.cluster import Cluster
from tests.support.crashing import Crashing, Point
from tests.support.engine import Clock, remediation
from tests.support.postgres import PostgresServer

CALLS = (
    "app.backends.kubernetes.actions.rollout_restart.RolloutRestart.plan",
    "app.backends.kubernetes.actions.rollout_restart.RolloutRestart.apply",
    "app.backends.kubernetes.actions.scale.Scale.plan",
    "app.backends.kubernetes.actions.scale.Scale.apply",
    "app.backends.kubernetes.actions.scale.Scale.undo",
    "app.backends.postgres.actions.terminate_idle.TerminateIdle.plan",
    "app.backends.postgres.actions.terminate_idle.TerminateIdle.apply",
)
_CROWDED = {"storm": "many services work on one namespace at a time"}
POINTS = [Point(call, moment, 1) for call in CALLS for moment in ("before", "after")]
PARALLEL = 5
USER = "crash_app"
_numbers = count(1)


@dataclass
class Bed:
    """Workloads and a database; each service has two Deployments and an idle session of its own."""

    cluster: Cluster
    namespace: str
    database: PostgresServer
    crashing: Crashing

    def path(self, name: str) -> str:
        """Where the API server has a Deployment."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}"

    def changes(self, name: str) -> int:
        """How often a Deployment's specification was changed since it was made."""
        return int(self.cluster.get(self.path(name))["metadata"]["generation"]) - 1

    def session(self, number: int) -> psycopg.Connection[Any]:
        """Open a session that one service is to end; its user has no special rights, or it would be left alone."""
        url = self.database.database_url("postgres", USER)
        return psycopg.connect(url, application_name=f"app-{number}", autocommit=True)

    def sessions(self, number: int) -> int:
        """How many sessions there are of what one service is to end."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'app-{number}'"
        return int(self.database.execute(query)[0][0])


@pytest.fixture(scope="module")
def bed(cluster: Cluster, postgres_server: PostgresServer) -> Iterator[Bed]:
    """A namespace for all of them."""
    postgres_server.execute(f"CREATE ROLE {USER} LOGIN")
    with cluster.namespace() as namespace:
        yield Bed(cluster, namespace, postgres_server, Crashing())


def _entries(bed: Bed, number: int) -> list[dict[str, Any]]:
    """One that restarts, one that scales and gives back, one that ends sessions."""
    ended = {"idle_longer_than": "0s", "applications": [f"app-{number}"]}
    return [
        remediation(
            name="restart",
            target={"kubernetes": {"kind": "Deployment", "namespace": bed.namespace, "name": f"restart-{number}"}},
            steps=[{"action": "kubernetes.rollout_restart"}],
            without_guards=_CROWDED,
        ),
        remediation(
            name="scale",
            target={"kubernetes": {"kind": "Deployment", "namespace": bed.namespace, "name": f"scale-{number}"}},
            steps=[{"action": "kubernetes.scale", "with": {"to": 2}}],
            revert="on_resolved",
            revert_after="1s",
            without_guards=_CROWDED,
        ),
        remediation(
            name="terminate",
            target={"postgres": {"instance": "main", "database": "postgres"}},
            steps=[{"action": "postgres.terminate_idle", "with": ended}],
        ),
    ]


def _survive(bed: Bed, home: Path, store: str | None, point: Point) -> None:
    """Let a service die at the point and another one go on, from the alert to what was borrowed being given back."""
    number = next(_numbers)
    config = {
        "connections": {
            "kubernetes": {"default": {"kubeconfig": str(bed.cluster.kubeconfig)}},
            "postgres": {"main": {"url": {"value": bed.database.url}}},
        },
        "scope": {"kubernetes": {"namespaces": [bed.namespace]}, "postgres": {"databases": ["main/*"]}},
        "recheck": "1s",
        "preflight": "0s",
    }
    for name in (f"restart-{number}", f"scale-{number}"):
        bed.cluster.deployment(bed.namespace, name)
    replica = Replica(bed.crashing, home / str(number), store, _entries(bed, number), config)
    began = Clock()()
    with ExitStack() as stack:
        stack.callback(replica.close)
        stack.callback(bed.session(number).close)
        replica.start(point)
        replica.deliver(notification(alert(starts_at=began)))
        replica.finish()
        assert 0 == bed.sessions(number)
        stack.callback(bed.session(number).close)
        replica.deliver(notification(alert("resolved", starts_at=began, ends_at=Clock()())))
        replica.finish("revert", {"scale"})
        assert replica.died, "the point was never reached"
        assert {"restart": "succeeded", "scale": "succeeded", "terminate": "succeeded"} == replica.runs()
        assert {"scale": "succeeded"} == replica.runs("revert")
        assert 1 == bed.changes(f"restart-{number}"), "restarted more than once"
        assert 2 == bed.changes(f"scale-{number}"), "scaled or given back more than once"
        assert 1 == bed.cluster.get(bed.path(f"scale-{number}"))["spec"]["replicas"]
        assert 1 == bed.sessions(number), "a session that came later was ended"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_killed_around_each_call_of_a_target(bed: Bed, tmp_path: Path, backend: str) -> None:
    """Planned or applied or taken back, and nobody has written it down; each effect happens once."""

    def one(point: Point) -> None:
        with ExitStack() as stack:
            database = stack.enter_context(bed.database.database()) if backend == "postgresql" else None
            try:
                _survive(bed, tmp_path, database and bed.database.database_url(database), point)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"killed {point}: {error}") from error

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(one, POINTS))
