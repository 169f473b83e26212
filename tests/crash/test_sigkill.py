"""The service is killed at every step of an alert's way and started again: nothing is lost, nothing is done twice."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from redis import Redis

from app.domain.states import FINAL_STATES
from tests.support import redis, web
from tests.support.alerts import alert, notification
from tests.support.crashing import Crashing, Point
from tests.support.engine import Clock
from tests.support.entries import flush, ok, poke, request
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port, wait_until

COMMIT = "app.store.database.Database.write"
COMMITS = range(2, 26)  # from the first write after the migration to beyond the last one of the three runs
PARALLEL = 8
DEADLINE = 40
ASK_SECONDS = 0.1  # asking costs the service the time that its runs need
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


class Replica:
    """One service that is to die at a point, and that is started again without one."""

    def __init__(self, bed: Bed, home: Path, store: str | None) -> None:
        self.bed = bed
        self.number = next(_numbers)
        self.home = home / str(self.number)
        self.home.mkdir(parents=True)
        self.log = self.home / "service.log"
        self._port = free_port()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", trust_env=False, timeout=30)
        self._arguments = ["serve", "--listen", f"127.0.0.1:{self._port}", "--catalog", str(self._catalog())]
        self._arguments += ["--data", str(self.home), "--config", str(self._config())]
        self._arguments += ["--store", store] if store else []
        self._process: Any = None

    def _catalog(self) -> Path:
        """One remediation that may be repeated, one that must not, one that destroys."""
        sink = web.WebServer(url=f"{self.bed.sink.url}/{self.number}")
        post = request(sink, "/post")
        post["with"]["method"] = "POST"
        entries = [
            poke(sink, name="put", steps=[request(sink, "/put")], verify=[ok(sink)]),
            poke(sink, name="post", steps=[post]),
            flush(str(self.number)),
        ]
        file = self.home / "catalog.yaml"
        file.write_text(yaml.safe_dump({"remediations": entries}))
        return file

    def _config(self) -> Path:
        file = self.home / "config.yaml"
        url = f"redis://{self.bed.cache.host}:{self.bed.cache.port}"
        scope = {"redis": ["cache/*"], "hosts": ["127.0.0.1"]}
        connections = {"redis": {"cache": {"url": {"value": url}}}}
        file.write_text(yaml.safe_dump({"connections": connections, "scope": scope}))
        return file

    def start(self, point: Point | None = None) -> None:
        """Start the service; it may die before it serves."""
        environment = {"REMEDIATOR_LEASE": "2s", "REMEDIATOR_LOG__LEVEL": "warning"}
        self._process = self.bed.crashing.start(point, self._arguments, environment, self.log)

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self.exitcode is not None

    @property
    def exitcode(self) -> int | None:
        """The process's exit status; negative is the signal that ended it."""
        code: int | None = self._process.exitcode
        return code

    def stop(self) -> None:
        """Ask it to end, as an orchestrator does."""
        self._process.terminate()

    def kill(self) -> None:
        """End it, as a crash does."""
        self._process.kill()
        self._process.join()

    def post(self, body: bytes) -> bool:
        """Send a notification; False when nobody said that it is recorded."""
        try:
            return self._client.post("/webhooks/alertmanager", content=body, headers=_JSON).status_code == 202
        except httpx.TransportError:
            return False

    def runs(self) -> dict[str, str]:
        """The state of each remediation's only run; nothing while the service does not answer."""
        try:
            answer = self._client.get("/remediations")
        except httpx.TransportError:
            return {}
        items = answer.json()["items"] if answer.is_success else []
        assert len(items) == len({item["remediation"] for item in items}), f"a second run: {items}"
        return {item["remediation"]: item["state"] for item in items}

    def is_done(self) -> bool:
        """Whether every remediation's run has ended."""
        time.sleep(ASK_SECONDS)
        runs = self.runs()
        return {"put", "post", "flush"} == set(runs) and set(runs.values()) <= FINAL_STATES

    def close(self) -> None:
        """End everything."""
        self.kill()
        self._client.close()


_JSON = {"Content-Type": "application/json"}


def _survive(bed: Bed, home: Path, store: str | None, point: Point) -> bool:
    """Let a service die at the point and another one go on; False when the point is never reached."""
    replica = Replica(bed, home, store)
    with ExitStack() as stack:
        stack.callback(replica.close)
        with bed.cache.client(replica.number) as client:
            client.set("key", "value")
        replica.start(point)
        died = False

        def revived() -> bool:
            nonlocal died
            if replica.is_dead:
                assert -signal.SIGKILL == replica.exitcode
                died = True
                replica.start()
            return False

        body = notification(alert(starts_at=Clock()()))
        for _ in range(2):  # Alertmanager sends again what was not answered, and repeats what was
            wait_until(lambda: replica.post(body) or revived(), DEADLINE, "the notification to be recorded")
            wait_until(lambda: replica.is_done() or revived(), DEADLINE, f"every run to end; {replica.runs()}")
        _judge(bed, replica)
        return died


def _judge(bed: Bed, replica: Replica) -> None:
    """At most one effect, and none that the ledger does not tell of."""
    runs = replica.runs()
    puts, posts = bed.asked(replica.number, "put"), bed.asked(replica.number, "post")
    if "succeeded" == runs["flush"]:
        wait_until(lambda: bed.flushed.get(replica.number), 5, "the FLUSHDB to be seen")
    flushes = bed.flushed.get(replica.number, 0)
    assert "succeeded" == runs["put"]
    assert 1 == len({one.headers["Idempotency-Key"] for one in puts})
    assert len(puts) <= 2
    for name, effects in (("post", len(posts)), ("flush", flushes)):
        assert runs[name] in {"succeeded", "interrupted"}, runs
        assert effects <= 1, f"{name} happened {effects} times"
        assert effects == 1 or runs[name] == "interrupted", f"{name} is {runs[name]} without its effect"


def _sweep(bed: Bed, home: Path, server: PostgresServer | None, points: Sequence[Point]) -> int:
    """Every point, several at a time; how many of them were reached."""

    def one(point: Point) -> bool:
        with ExitStack() as stack:
            store = server.database_url(stack.enter_context(server.database())) if server else None
            try:
                return _survive(bed, home, store, point)
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
    assert _sweep(bed, tmp_path, server, points) >= len(points) * 2 // 3


@pytest.mark.timeout(300)
def test_killed_around_each_effect(bed: Bed, tmp_path: Path, server: PostgresServer | None) -> None:
    """The effect has happened and nobody has written that down; or it is written down that it will."""
    points = [
        Point(function, moment, number)
        for function, calls in (
            ("app.actions.http.request.Request.apply", 2),
            ("app.actions.redis.flush.Flush.apply", 1),
            ("app.store.inbox.Inbox._commit", 1),
            ("app.store.episodes.write", 1),
            ("app.store.leases.claim", 1),
        )
        for moment in ("before", "after")
        for number in range(1, calls + 1)
    ]
    assert len(points) == _sweep(bed, tmp_path, server, points)


def test_a_graceful_stop_in_the_middle_loses_nothing(bed: Bed, tmp_path: Path) -> None:
    """SIGTERM lets the step under way finish; the rest is done after the next start, and nothing twice."""
    replica = Replica(bed, tmp_path, None)
    with ExitStack() as stack:
        stack.callback(replica.close)
        stack.callback(bed.sink.answering.set)
        with bed.cache.client(replica.number) as client:
            client.set("key", "value")
        body = notification(alert(starts_at=Clock()()))
        replica.start()
        wait_until(lambda: replica.post(body), DEADLINE, "the notification to be recorded")
        bed.sink.answering.clear()
        wait_until(lambda: bed.asked(replica.number, "post"), DEADLINE, "the request")
        replica.stop()
        bed.sink.answering.set()
        wait_until(lambda: replica.is_dead, DEADLINE, "the service to end")
        replica.start()
        wait_until(replica.is_done, DEADLINE, "every run to end")
        _judge(bed, replica)
        assert {"succeeded"} == set(replica.runs().values())
