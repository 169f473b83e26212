"""Several replicas on PostgreSQL: they share the work, and what becomes of it when one goes, however it goes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.conftest import PATIENCE, MakeReplicas, Replicas, fire
from tests.support import network, postgres, web
from tests.support.entries import asked, poke, request
from tests.support.processes import wait_until
from tests.support.service import Service

LEASE_SECONDS = 3.0
OTHERS_SEE = LEASE_SECONDS + 10  # a lease, the look that finds it gone, and a busy machine


def post(sink: web.WebServer) -> dict[str, object]:
    """A step that nobody may send twice."""
    return request(sink, method="POST")


def verified(replicas: Replicas) -> None:
    """Nothing in the audit was changed, left out or written by somebody who had lost the run."""
    words = [sys.executable, "-m", "app", "audit", "verify", "--store", replicas.store]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REMEDIATOR_")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("number", [2, 3])
def test_they_share_the_work(replicas: MakeReplicas, sink: web.WebServer, number: int) -> None:
    """Each takes what it has hands for; every alert is acted on once."""
    group = replicas(poke(sink), workers=1)
    for _ in range(number):
        group.start()
    sink.answering.clear()
    assert 202 == fire(group.members[0], *map(str, range(12)))
    wait_until(lambda: len(set(group.rows("lease_owner")) - {(None,)}) == number, PATIENCE, "all to work")
    sink.answering.set()
    group.wait("succeeded", count=12)
    assert (12, 12) == (asked(sink), len({one.headers["Idempotency-Key"] for one in sink.requests}))


@pytest.mark.parametrize(("method", "state", "effects"), [("PUT", "succeeded", 2), ("POST", "interrupted", 1)])
def test_the_runs_of_a_killed_replica_go_on(
    replicas: MakeReplicas, sink: web.WebServer, method: str, state: str, effects: int
) -> None:
    """When its lease is over: what may be repeated is, under the same key; the rest is for a person."""
    group = replicas(poke(sink, steps=[request(sink, method=method)]), lease=f"{LEASE_SECONDS:g}s")
    group.start(), group.start()
    sink.answering.clear()
    fire(group.members[0])
    wait_until(lambda: asked(sink), PATIENCE, "the step to be called")
    group.owner().kill9()
    sink.answering.set()
    group.wait(state, patience=OTHERS_SEE)
    assert (effects, 1) == (asked(sink), len({one.headers["Idempotency-Key"] for one in sink.requests}))
    verified(group)


def test_a_frozen_replica_writes_nothing_more(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """It wakes with an answer in its hands that is no longer its to record."""
    group = replicas(poke(sink), lease=f"{LEASE_SECONDS:g}s")
    group.start(), group.start()
    sink.answering.clear()
    fire(group.members[0])
    wait_until(lambda: asked(sink), PATIENCE, "the step to be called")
    frozen = group.owner()
    frozen.freeze()
    try:
        sink.answering.set()
        group.wait("succeeded", patience=OTHERS_SEE)
        before = group.rows("state, updated_at, lease_epoch")
    finally:
        frozen.thaw()
    wait_until(lambda: "the lease was lost" in frozen.logs, PATIENCE, "the frozen replica to see that it lost the run")
    wait_until(lambda: frozen.get("/-/ready").is_success, PATIENCE, "it to be ready again")
    assert before == group.rows("state, updated_at, lease_epoch")
    verified(group)


def test_a_replica_that_is_cut_off_from_the_store(
    replicas: MakeReplicas, start_postgres: Callable[..., postgres.PostgresServer], processes: ExitStack
) -> None:
    """It reaches its target still; another one goes on with its run, and what it comes back with changes nothing."""
    net = processes.enter_context(network.network())
    server = start_postgres({"listen_addresses": f"127.0.0.1,{network.STORE}"})
    sink = processes.enter_context(web.serve(host=network.TARGETS))
    processes.callback(sink.answering.set)
    group = replicas(poke(sink), store=server.url, lease=f"{LEASE_SECONDS:g}s")
    away = group.start(store=server.url.replace(server.host, network.STORE), within=net.within, host=network.INSIDE)
    sink.answering.clear()
    assert 202 == fire(away)
    wait_until(lambda: asked(sink), PATIENCE, "the step to be called")
    other = group.start()
    net.cut(network.STORE)
    wait_until(lambda: 2 == asked(sink), OTHERS_SEE, "the other replica to repeat the step")
    sink.answering.set()
    group.wait("succeeded", patience=OTHERS_SEE)
    assert other.get("/-/ready").is_success
    assert 503 == fire(away, "another")
    assert 503 == away.get("/-/ready").status_code
    assert away.get("/-/healthy").is_success
    before = group.rows("state, updated_at, lease_epoch")
    net.mend(network.STORE)
    wait_until(lambda: away.get("/-/ready").is_success, PATIENCE, "the replica to be back")
    wait_until(lambda: "the lease was lost" in away.logs, PATIENCE, "it to see that it lost the run")
    assert before == group.rows("state, updated_at, lease_epoch")
    assert 202 == fire(away, "another")
    group.wait("succeeded", count=2)
    verified(group)


def test_a_replica_that_is_told_to_stop_hands_its_work_over(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """At once, and not when the lease of an hour is over."""
    sink.status, sink.headers = 503, {"Retry-After": "120"}
    group = replicas(poke(sink, steps=[request(sink, timeout="5m")]), lease="1h")
    group.start(), group.start()
    fire(group.members[0])
    wait_until(lambda: asked(sink), PATIENCE, "the step to be called")
    leaving = group.owner()
    sink.status, sink.headers = 200, {}
    leaving.stop()
    assert "stopped" in leaving.logs
    group.wait("succeeded", patience=OTHERS_SEE)
    assert 2 == asked(sink)
    verified(group)


def test_a_pause_holds_everywhere(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """Whoever was asked for it, and whoever is told of the alert; and so does its end."""
    group = replicas(poke(sink), recheck="1s")
    one, other, third = (group.start() for _ in range(3))
    assert one.ask("PUT", "/pause", json={"why": "upgrade"}).is_success
    fire(other)
    group.wait("deferred")
    assert [("paused",)] == group.rows("reason")
    assert third.ask("DELETE", "/pause").is_success
    group.wait("succeeded")
    assert 1 == asked(sink)


@pytest.mark.parametrize("way", ["request", "signal"])
def test_a_reload_reaches_all(replicas: MakeReplicas, sink: web.WebServer, way: str) -> None:
    """Each reads its own files again, though none of them has changed."""
    group = replicas(poke(sink))
    one, other = group.start(), group.start()
    before = {service: _loaded_at(service) for service in (one, other)}
    if way == "request":
        assert one.post("/-/reload").is_success
    else:
        one.hangup()
    for service, at in before.items():
        wait_until(lambda: _loaded_at(service) > at, PATIENCE, "the catalog to be loaded again")  # noqa: B023


def _loaded_at(service: Service) -> float:
    name = "remediator_catalog_last_reload_success_timestamp_seconds"
    families = text_string_to_metric_families(service.get("/metrics").text)
    return next(family.samples[0].value for family in families if family.name == name)
