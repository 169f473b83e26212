"""What the service needs goes away and comes back: nothing that was answered is lost, nothing is done twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.conftest import PATIENCE, SOAK, MakeReplicas, Replicas, fire
from tests.chaos.test_replicas import post, verified
from tests.support import postgres, redis, web
from tests.support.binaries import unavailable
from tests.support.engine import remediation
from tests.support.entries import asked, flush, poke
from tests.support.processes import wait_until
from tests.support.service import Service

OUTAGE_SECONDS = 60.0 if SOAK else 8.0  # what is waited for is that nothing goes wrong in this time


def outage(service: Service, until: float) -> None:
    """What is seen of the service while its store is away."""
    while time.monotonic() < until:
        assert 503 == fire(service, "meanwhile")
        wait_until(lambda: service.get("/-/ready").status_code == 503, PATIENCE, "it to say that it is not ready")
        assert service.get("/-/healthy").is_success
        assert service.get("/metrics").is_success


def test_the_store_is_away(
    replicas: MakeReplicas, start_postgres: Callable[..., postgres.PostgresServer], sink: web.WebServer
) -> None:
    """For longer than a lease; a step that was called in the meantime has its result written afterwards."""
    server = start_postgres()
    group = replicas(poke(sink, steps=[post(sink) | {"timeout": "5m"}]), store=server.url, lease="3s")
    service = group.start()
    sink.answering.clear()
    assert 202 == fire(service, "before")
    wait_until(lambda: asked(sink), PATIENCE, "the step to be called")
    server.stop()
    sink.answering.set()
    outage(service, time.monotonic() + OUTAGE_SECONDS)
    assert 503 == service.get("/remediations").status_code
    server.start()
    wait_until(lambda: service.get("/-/ready").is_success, PATIENCE, "the service to be ready again")
    group.wait("succeeded")
    assert 202 == fire(service, "meanwhile")
    group.wait("succeeded", count=2)
    assert 2 == asked(sink)
    assert (1, 1) == (service.logs.count("the store is away"), service.logs.count("the store is back"))
    verified(group)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        unavailable("only root can mount a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left; the file that holds it."""
    ballast = disk / "ballast"
    done = subprocess.run(
        ["dd", "if=/dev/zero", f"of={ballast}", "bs=512"], capture_output=True, text=True, check=False
    )
    assert "No space left" in done.stderr
    return ballast


def test_the_disk_is_full(small_disk: Path, replicas: MakeReplicas, sink: web.WebServer) -> None:
    """A step's result waits for room; the file is whole, and what was refused comes again."""
    store = f"sqlite:///{small_disk / 'store.db'}"
    group = replicas(poke(sink, steps=[post(sink) | {"timeout": "5m"}]), store=store)
    service = group.start()
    sink.answering.clear()
    assert 202 == fire(service, "before")
    wait_until(lambda: asked(sink), PATIENCE, "the step to be called")
    ballast = fill(small_disk)
    # SQLite's log has room inside for a while; the rest of it is filled by what people ask for.
    wait_until(lambda: fire(service, *(f"{'x' * 50_000}{n}" for n in range(4))) == 503, PATIENCE, "the disk to be full")
    sink.answering.set()
    outage(service, time.monotonic() + OUTAGE_SECONDS / 4)
    assert service.get("/remediations").is_success  # what there is can be read
    ballast.unlink()
    wait_until(lambda: service.get("/-/ready").is_success, PATIENCE, "the service to be ready again")
    wait_until(lambda: fire(service, "after") == 202, PATIENCE, "notifications to be taken again")

    def ended() -> bool:
        items = service.get("/remediations", params={"limit": 200}).json()["items"]
        return len(items) > 1 and {item["state"] for item in items} == {"succeeded"}

    wait_until(ended, PATIENCE, "every run to end")
    keys = [one.headers["Idempotency-Key"] for one in sink.requests]
    assert len(keys) == len(set(keys))
    verified(group)


@pytest.mark.parametrize("way", ["away", "frozen"])
def test_a_target_is_away(
    replicas: MakeReplicas, start_redis: Callable[..., redis.RedisServer], sink: web.WebServer, way: str
) -> None:
    """Its run waits and says so, the others go on; when it is back, what still fires is done, once."""
    cache = start_redis()
    with cache.client() as client:
        client.set("key", "value")
    connections = {"redis": {"cache": {"url": {"value": f"redis://{cache.host}:{cache.port}"}}}, "timeout": "2s"}
    scope = {"redis": {"databases": ["cache/*"]}, "http": {"hosts": ["*"]}}
    group = replicas(
        flush(matchers=['alertname="Down"', 'pod="cache"']),
        poke(sink, matchers=['alertname="Down"', 'pod!="cache"']),
        connections=connections,
        scope=scope,
        recheck="1s",
    )
    service = group.start()
    with _taken_away(cache, way):
        fire(service, "cache")
        wait_until(lambda: _state(group, "flush") == ("deferred", "target_unreachable"), PATIENCE, "the flush to wait")
        fire(service, "other")
        wait_until(lambda: _state(group, "poke")[0] == "succeeded", PATIENCE, "the other run to end")
    wait_until(lambda: _state(group, "flush")[0] == "succeeded", PATIENCE, "the flush to be done")
    with cache.client() as client:
        assert 0 == client.dbsize()
    verified(group)


def test_a_database_that_does_not_answer(
    replicas: MakeReplicas, start_postgres: Callable[..., postgres.PostgresServer]
) -> None:
    """The same for PostgreSQL: connections are opened and nothing comes back."""
    target = start_postgres()
    entry = remediation(
        target={"postgres": {"instance": "main", "database": "postgres"}},
        steps=[{"action": "postgres.terminate_idle", "with": {"idle_longer_than": "1h"}}],
    )
    connections = {"postgres": {"main": {"url": {"value": target.url}}}, "timeout": "2s"}
    group = replicas(entry, connections=connections, scope={"postgres": {"databases": ["main/*"]}}, recheck="1s")
    service = group.start()
    with _stopped(_pid(target)):
        fire(service)
        wait_until(lambda: _state(group, "poke") == ("deferred", "target_unreachable"), PATIENCE, "the run to wait")
    wait_until(lambda: _state(group, "poke")[0] == "succeeded", PATIENCE, "the run to be done")


def _state(group: Replicas, remediation: str) -> tuple[Any, ...]:
    return next((tuple(row[1:]) for row in group.rows("remediation, state, reason") if row[0] == remediation), ("", ""))


@contextlib.contextmanager
def _taken_away(cache: redis.RedisServer, way: str) -> Iterator[None]:
    if way == "frozen":
        with _stopped(_pid(cache)):
            yield
        return
    cache.stop()
    yield
    cache.start()
    with cache.client() as client:
        client.set("key", "value")


def _pid(server: redis.RedisServer | postgres.PostgresServer) -> int:
    assert server.pid is not None, "the server is not started"
    return server.pid


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
