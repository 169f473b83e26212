"""Pauses and `--mode observe` on several replicas: whatever any of them had in its hands, nothing further begins."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.store.gates import pauses
from tests.chaos.conftest import PATIENCE, MakeReplicas, Replicas, fire, stands_still
from tests.support import processes, web
from tests.support.crashing import Point
from tests.support.entries import asked, poke, request
from tests.support.frozen import in_transaction
from tests.support.processes import wait_until
from tests.support.service import Service

LEASE_SECONDS = 2.0
SOON = 3.5  # before the server ends a session that stands still
A_LOOK = 3.0  # more than the worker waits until it looks for runs again
PAUSE = {"why": "hands off"}


def three(sink: web.WebServer, **params: Any) -> dict[str, Any]:
    """A remediation of three requests."""
    return poke(sink, steps=[request(sink, f"/{number}", **params) for number in (1, 2, 3)])


def counts(sink: web.WebServer) -> tuple[int, ...]:
    """How often each step was called."""
    return tuple(asked(sink, f"/{number}") for number in (1, 2, 3))


def stays(sink: web.WebServer, *expected: int, seconds: float = A_LOOK) -> None:
    """Nothing further is called for so long."""
    processes.stays(lambda: counts(sink), expected, seconds)


def frozen_owner(group: Replicas, point: Point) -> Service:
    """The first of two replicas, which takes the alert and stands still at the point."""
    first = group.start(module=point.module)
    fire(first)
    wait_until(lambda: stands_still(first), PATIENCE, f"the replica to {point}")
    group.start()
    return first


def in_first_step(group: Replicas, sink: web.WebServer) -> tuple[Service, Service]:
    """Who calls the first step now, and the other replica."""
    group.start(), group.start()
    sink.answering.clear()
    fire(group.members[0])
    wait_until(lambda: counts(sink) == (1, 0, 0), PATIENCE, "the first step to be called")
    owner = group.owner()
    return owner, next(one for one in group.members if one is not owner)


def test_a_pause_during_the_first_step(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """It finishes; the others wait for the end of the pause, and the run says so."""
    group = replicas(three(sink), recheck="1s")
    _, other = in_first_step(group, sink)
    assert other.ask("PUT", "/pause", json=PAUSE).is_success
    sink.answering.set()
    group.wait("deferred")
    stays(sink, 1, 0, 0)
    ((run_id, reason, message),) = group.rows("id, reason, message")
    shown = other.get(f"/remediations/{run_id}").json()
    assert ("deferred", "paused", message) == (shown["state"], reason, shown["message"])
    assert "step 2 of 3 is not begun" in message
    assert ("deferred", "paused") in [(one["kind"], one["reason"]) for one in shown["events"]]
    assert other.ask("DELETE", "/pause").is_success
    group.wait("succeeded")
    assert (1, 1, 1) == counts(sink)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_pause_over_the_death_of_the_owner(replicas: MakeReplicas, sink: web.WebServer, method: str) -> None:
    """Another replica neither repeats the first step in the pause nor begins the second."""
    group = replicas(three(sink, method=method), lease=f"{LEASE_SECONDS:g}s", recheck="1s")
    owner, other = in_first_step(group, sink)
    assert other.ask("PUT", "/pause", json=PAUSE).is_success
    owner.kill9()
    sink.answering.set()
    group.wait("deferred" if method == "PUT" else "interrupted")
    stays(sink, 1, 0, 0)
    assert other.ask("DELETE", "/pause").is_success
    if method == "PUT":
        group.wait("succeeded")
        assert (2, 1, 1) == counts(sink)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_pause_before_the_first_call(replicas: MakeReplicas, sink: web.WebServer, moment: str, method: str) -> None:
    """It was admitted, or had committed its intent, when everything was paused: it has begun nothing."""
    group = replicas(three(sink, method=method), recheck="1s")
    first = frozen_owner(group, Point("app.engine.stages.execution.begin", moment, 1, "freeze"))
    try:
        assert group.members[1].ask("PUT", "/pause", json=PAUSE).is_success
    finally:
        first.thaw()
    group.wait("deferred")
    stays(sink, 0, 0, 0)
    assert [("paused", None, False)] == group.rows("reason, admitted_at, holds_target")
    assert group.members[1].ask("DELETE", "/pause").is_success
    group.wait("succeeded")
    assert (1, 1, 1) == counts(sink)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_pause_before_the_second_rung(replicas: MakeReplicas, sink: web.WebServer, moment: str) -> None:
    """What did not help has been done; what would come next waits, on whichever replica."""
    first_rung = [request(sink, "/1", method="POST", expect_status=[299])]
    entry = poke(sink, steps=first_rung, escalate=[{"steps": [request(sink, "/2", method="POST")]}])
    group = replicas(entry, recheck="1s")
    first = frozen_owner(group, Point("app.engine.stages.execution.begin", moment, 2, "freeze"))
    try:
        assert group.members[1].ask("PUT", "/pause", json=PAUSE).is_success
    finally:
        first.thaw()
    group.wait("deferred")
    stays(sink, 1, 0, 0)
    assert group.members[1].ask("DELETE", "/pause").is_success
    group.wait("failed")  # as a rung that failed and one that was done after it do
    assert (1, 1, 0) == counts(sink)


def test_a_pause_while_a_step_is_being_begun(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """The answer comes when nothing that has not seen the pause can begin any more, whatever stands still there."""
    group = replicas(three(sink), recheck="1s")
    first = frozen_owner(group, Point("app.store.ledger.steps.start", "after", 1, "freeze"))
    try:
        begun = time.monotonic()
        answer = group.members[1].ask("PUT", "/pause", json=PAUSE)
        assert time.monotonic() - begun < SOON
        assert answer.json()["warnings"][1:] == [], "of what may still be begun"
    finally:
        first.thaw()
    group.wait("deferred")
    stays(sink, 0, 0, 0)


@pytest.mark.parametrize(
    "function",
    ["app.engine.stages.admission.gather", "app.store.ledger.runs.move", "app.engine.outcomes.pausing.pause"],
)
def test_stopping_everything_waits_for_no_frozen_replica(
    replicas: MakeReplicas, sink: web.WebServer, function: str
) -> None:
    """One that stands still in a decision, in the middle of a write, or itself in a pause that it was asked for."""
    group = replicas(poke(sink), recheck="1s")
    first = group.start(module=Point(function, "after", 2 if "gather" in function else 1, "freeze").module)
    if "pausing" in function:
        with pytest.raises(Exception, match="timed out"):
            first.ask("PUT", "/pause", json=PAUSE, timeout=1)
    else:
        fire(first)
    wait_until(lambda: stands_still(first), PATIENCE, "the replica to stand still")
    other = group.start()
    try:
        begun = time.monotonic()
        assert other.ask("PUT", "/pause", json=PAUSE).is_success
        seconds = time.monotonic() - begun
        assert seconds < SOON, "stopping everything took so long"
    finally:
        first.thaw()
    assert 0 == asked(sink)


def test_a_pause_waits_for_no_holder_of_a_lock(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """One that stands still with a lock, and in the middle of what begins a call, is cut off before the server does."""
    group = replicas(poke(sink), recheck="1s")
    only = group.start()
    begins_call = f"SELECT pg_advisory_xact_lock_shared({pauses._BEGINNING})"
    for lock in ("admission", "intake", "catalog", "seal", "pause", "clock", "chain service"):
        with in_transaction(group.store, begins_call, lock):
            begun = time.monotonic()
            answer = only.ask("PUT", "/pause", json=PAUSE | {"for": "1h"})
            seconds = time.monotonic() - begun
        assert (200, []) == (answer.status_code, answer.json()["warnings"])
        assert seconds < SOON, f"stopping everything took so long beside a holder of {lock}"


def test_a_lower_ceiling_after_the_death_of_every_replica(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """What stands half done waits for a person's word, which counts when the ceiling is lifted."""
    group = replicas(three(sink), lease=f"{LEASE_SECONDS:g}s", recheck="1s")
    owner, other = in_first_step(group, sink)
    owner.kill9()
    other.kill9()
    sink.answering.set()
    group.settings = {**group.settings, "mode": "observe"}
    observing = group.start()
    group.wait("awaiting_approval")
    stays(sink, 1, 0, 0)
    ((run_id,),) = group.rows("id")
    refused = observing.post(f"/remediations/{run_id}/approve")
    assert (409, True) == (refused.status_code, "without" in refused.json()["detail"])
    observing.stop()
    group.settings = {**group.settings, "mode": "auto"}
    acting = group.start()
    stays(sink, 1, 0, 0)
    assert acting.post(f"/remediations/{run_id}/approve").is_success
    group.wait("succeeded")
    assert (2, 1, 1) == counts(sink)
