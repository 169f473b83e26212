"""The service is killed at every step of an alert's way and started again: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis import Redis

from tests.crash.replica import DEADLINE, Replica
from tests.support import redis, web
from tests.support.alerts import alert, notification
from tests.support.crashing import Crashing, Point
from tests.support.engine import Clock
from tests.support.entries import flush, ok, poke, request
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until

COMMIT = "app.store.db.database.Database.write"
COMMITS = range(2, 26)  # from the first write after the migration to beyond the last one of the three runs
PARALLEL = 8
SOAK = os.environ.get("REMEDIATOR_HYPOTHESIS") == "soak"
INSTANTS = 100 if SOAK else 12  # for each store
_numbers = count(1)


@dataclass
class Bed:
    """What the services of a test act on; each service has paths and a database number of its own."""

    sink: web.WebServer
    cache: redis.RedisServer
    crashing: Crashing
    flushed: dict[int, int] = field(default_factory=dict)

    def asked(self, number: int, what: str) -> list[web.Asked]:
        """The requests that one service has sent."""
        return [one for one in list(self.sink.requests) if one.path == f"/{number}/{what}"]


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Targets that count the effects."""
    settings = {"databases": "1024"}
    with web.serve() as sink, redis.serve(tmp_path_factory.mktemp("redis"), settings) as cache:
        bed = Bed(sink, cache, Crashing())
        with _watching(bed):
            yield bed


@contextmanager
def _watching(bed: Bed) -> Iterator[None]:
    """Count the FLUSHDB that arrive, by database."""
    ends = threading.Event()

    def watch() -> None:
        patient = Redis(host=bed.cache.host, port=bed.cache.port, decode_responses=True, socket_timeout=None)
        with patient as client, client.monitor() as monitor:
            started.set()
            for seen in monitor.listen():
                if seen["command"].upper().startswith("FLUSHDB"):
                    bed.flushed[int(seen["db"])] = bed.flushed.get(int(seen["db"]), 0) + 1
                if ends.is_set():
                    return

    started = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    started.wait(10)
    try:
        yield
    finally:
        ends.set()
        with bed.cache.client() as client:
            client.ping()
        thread.join()


def _entries(bed: Bed, number: int) -> list[dict[str, Any]]:
    """One remediation that may be repeated, one that must not, one that destroys."""
    sink = web.WebServer(url=f"{bed.sink.url}/{number}")
    post = request(sink, "/post", method="POST")
    return [
        poke(sink, name="put", steps=[request(sink, "/put")], verify=[ok(sink)]),
        poke(sink, name="post", steps=[post]),
        flush(str(number)),
    ]


@contextmanager
def _replica(bed: Bed, home: Path, store: str | None) -> Iterator[tuple[int, Replica]]:
    """A service with paths and a database of its own, with something in it; not yet started."""
    number = next(_numbers)
    connections = {"redis": {"cache": {"url": {"value": f"redis://{bed.cache.host}:{bed.cache.port}"}}}}
    config = {
        "connections": connections,
        "scope": {"redis": {"databases": ["cache/*"]}, "http": {"hosts": ["127.0.0.1"]}},
    }
    with bed.cache.client(number) as client:
        client.set("key", "value")
    replica = Replica(bed.crashing, home / str(number), store, _entries(bed, number), config)
    try:
        yield number, replica
    finally:
        replica.close()


def _survive(bed: Bed, home: Path, store: str | None, point: Point) -> bool:
    """Let a service die at the point and another one go on; False when the point is never reached."""
    with _replica(bed, home, store) as (number, replica):
        replica.start(point)
        body = notification(alert(starts_at=Clock()()))
        for _ in range(2):  # Alertmanager sends again what was not answered, and repeats what was
            replica.deliver(body)
            replica.finish()
        _judge(bed, number, replica)
        return replica.died


def _survive_instant(bed: Bed, home: Path, store: str | None, seconds: float) -> bool:
    """Kill a service so long after it has taken an alert, whatever it is doing then."""
    with _replica(bed, home, store) as (number, replica):
        replica.start()
        replica.deliver(notification(alert(starts_at=Clock()())))
        time.sleep(seconds)  # no condition: the instant is what is tested, and any will do
        replica.kill()
        replica.start()
        replica.finish()
        _judge(bed, number, replica)
        return True


def _judge(bed: Bed, number: int, replica: Replica) -> None:
    """At most one effect, and none that the ledger does not tell of."""
    runs = replica.runs()
    puts, posts = bed.asked(number, "put"), bed.asked(number, "post")
    if "succeeded" == runs["flush"]:
        wait_until(lambda: bed.flushed.get(number), 5, "the FLUSHDB to be seen")
    flushes = bed.flushed.get(number, 0)
    assert "succeeded" == runs["put"]
    assert 1 == len({one.headers["Idempotency-Key"] for one in puts})
    assert len(puts) <= 2
    for name, effects in (("post", len(posts)), ("flush", flushes)):
        assert runs[name] in {"succeeded", "interrupted"}, runs
        assert effects <= 1, f"{name} happened {effects} times"
        assert effects == 1 or runs[name] == "interrupted", f"{name} is {runs[name]} without its effect"


T = TypeVar("T")


def _sweep(
    home: Path,
    server: PostgresServer | None,
    points: Sequence[T],
    survive: Callable[[Path, str | None, T], bool],
) -> int:
    """Every point, several at a time; how many of them were reached."""

    def one(point: T) -> bool:
        with ExitStack() as stack:
            store = server.database_url(stack.enter_context(server.database())) if server else None
            try:
                return survive(home, store, point)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"killed {point}: {error}") from error

    with ThreadPoolExecutor(PARALLEL) as pool:
        return sum(pool.map(one, points))


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """The PostgreSQL server, or None for SQLite files."""
    found: PostgresServer | None = request.getfixturevalue("postgres_server") if request.param != "sqlite" else None
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_each_commit(bed: Bed, tmp_path: Path, server: PostgresServer | None, moment: str) -> None:
    """Just before and just after each transaction, from the start of the service to the last run's end."""
    # After one commit is before the next, but for what happens to the world in between: every second one will do.
    points = [Point(COMMIT, moment, number) for number in COMMITS[:: 1 if moment == "before" else 2]]
    assert _sweep(tmp_path, server, points, partial(_survive, bed)) >= len(points) * 2 // 3


@pytest.mark.timeout(300)
def test_killed_around_each_effect(bed: Bed, tmp_path: Path, server: PostgresServer | None) -> None:
    """The effect has happened and nobody has written that down; or it is written down that it will."""
    points = [
        Point(function, moment, number)
        for function, calls in (
            ("app.backends.http.actions.request.Request.apply", 2),
            ("app.backends.redis.actions.flush.Flush.apply", 1),
            ("app.store.ledger.inbox.Inbox._commit", 1),
            ("app.store.ledger.episodes.create", 1),
            ("app.store.ledger.runs.create", 1),
        )
        for moment in ("before", "after")
        for number in range(1, calls + 1)
    ]
    assert len(points) == _sweep(tmp_path, server, points, partial(_survive, bed))


@pytest.mark.timeout(7200 if SOAK else 300)
def test_killed_at_random_instants(bed: Bed, tmp_path: Path, server: PostgresServer | None) -> None:
    """Also where nobody thought of a point."""
    instants = [round(random.uniform(0, 1.2), 3) for _ in range(INSTANTS)]  # what a failure says
    assert INSTANTS == _sweep(tmp_path, server, instants, partial(_survive_instant, bed))


def test_a_graceful_stop_in_the_middle_loses_nothing(bed: Bed, tmp_path: Path) -> None:
    """SIGTERM lets the step under way finish; the rest is done after the next start, and nothing twice."""
    with _replica(bed, tmp_path, None) as (number, replica), ExitStack() as stack:
        stack.callback(bed.sink.answering.set)
        replica.start()
        replica.deliver(notification(alert(starts_at=Clock()())))
        bed.sink.answering.clear()
        wait_until(lambda: bed.asked(number, "post"), DEADLINE, "the request")
        replica.stop()
        bed.sink.answering.set()
        wait_until(lambda: replica.is_dead, DEADLINE, "the service to end")
        replica.start()
        replica.finish()
        _judge(bed, number, replica)
        assert {"succeeded"} == set(replica.runs().values())
