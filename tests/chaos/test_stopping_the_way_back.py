"""Pauses and `--mode observe` while something is taken back: undone by a person, after a failure, or given back.

A run of two steps has turned two dials; each is turned back once, and not while that is stopped, whichever replica
stands still, and at whichever statement.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.conftest import PATIENCE, MakeReplicas, Replicas, fire, stands_still
from tests.support import web
from tests.support.alerts import alert, notification
from tests.support.cluster import Cluster
from tests.support.crashing import Point
from tests.support.dial import Dial, turn, turns
from tests.support.dialing import dialing
from tests.support.engine import Clock, remediation
from tests.support.entries import ok
from tests.support.processes import stays, wait_until
from tests.support.service import Service

LEASE_SECONDS = 4.0  # in which a pause is put
A_LOOK = 2.0  # more than two of `recheck`
PAUSE = {"why": "hands off"}
TURNED = ([3, 5], [3, 5])
HALF = ([3, 5], [3, 5, 3])  # the last step is the first to be taken back
BACK = ([3, 5, 3], [3, 5, 3])
_JSON = {"Content-Type": "application/json"}
_BEGIN = "app.engine.stages.execution.begin"  # twice for the run, then twice for what takes it back
# Where nothing of the way back is done, and where its first step is.
BEFORE = [Point(_BEGIN, "before", 3, "freeze"), Point(_BEGIN, "after", 3, "freeze")]
BETWEEN = [Point(_BEGIN, "before", 4, "freeze"), Point(_BEGIN, "after", 4, "freeze")]
BEFORE_THE_WRITE = Point("app.backends.kubernetes.actions.scale._Dial.turn_back", "after", 1, "freeze")
IN_THE_CALL = Point("tests.support.dial.Turn.undo", "before", 1, "freeze")


@dataclass(frozen=True)
class Bed:
    """Replicas, and the dials that they turn."""

    group: Replicas
    dials: tuple[Dial, ...] = ()

    @property
    def history(self) -> tuple[list[int], ...]:
        """What the dials have seen."""
        return tuple(dial.history for dial in self.dials)

    def stays(self, expected: tuple[list[int], ...]) -> None:
        """Nothing is turned for so long."""
        stays(lambda: self.history, expected, A_LOOK)

    def back(self) -> tuple[Any, ...]:
        """The run that takes the other one back: id, state, reason, message."""
        found = self.group.rows("purpose, id, state, reason, message")
        return next((row[1:] for row in found if row[0] != "remedy"), ("", "", "", ""))

    def wait(self, state: str) -> str:
        """Wait until that run is in a state; its id."""
        try:
            wait_until(lambda: self.back()[1] == state, PATIENCE, f"what takes back to be {state}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; there is {self.group.rows('purpose, state, reason, message')}") from error
        return str(self.back()[0])


def start(make: MakeReplicas, home: Path, sink: web.WebServer, way: str, **settings: Any) -> Bed:
    """No replica yet; what is verified does not hold."""
    sink.status = 500
    dials = Dial(home / "first"), Dial(home / "second")
    for dial in dials:
        dial.turn(3)
    ways: dict[str, dict[str, Any]] = {
        "undo": {},
        "undo_on_failure": {"undo_on_failure": True, "verify": [ok(sink, timeout="100ms")]},
        "revert": {"revert": "on_resolved", "revert_after": "1s"},
    }
    limits = {"attempts": 1, "cooldown": "0s"}
    entry = turns(dials[0], steps=[turn(dial, to=5) for dial in dials], limits=limits, **ways[way])
    return Bed(make(entry, recheck="500ms", **settings), dials)


def stand_still(bed: Bed, way: str, point: Point) -> tuple[Service, Service]:
    """Have the run done and taken back by a replica, which stands still at the point; it and another one.

    The other one has stood still until then, so that it takes nothing over before it is asked for a pause.
    """
    other = bed.group.start(module=dialing())
    other.freeze()
    first = bed.group.start(module=dialing(point))
    assert 202 == fire(first)
    if way != "undo_on_failure":
        bed.group.wait("succeeded")
    if way == "undo":
        ((run_id,),) = bed.group.rows("id")
        with suppress(httpx.TimeoutException):  # it may stand still before it has answered
            assert 201 == first.post(f"/remediations/{run_id}/undo", timeout=1).status_code
    if way == "revert":
        ended = alert("resolved", starts_at=Clock()(), ends_at=Clock()(), pod="one")
        assert 202 == first.post("/webhooks/alertmanager", content=notification(ended), headers=_JSON).status_code
    wait_until(lambda: stands_still(first), PATIENCE, f"the replica to {point}")
    other.thaw()
    return first, other


@pytest.mark.parametrize(
    ("way", "point"),
    [("undo", BEFORE[0]), ("undo", BETWEEN[1]), ("undo_on_failure", BEFORE[1]), ("revert", BETWEEN[0])],
    ids=str,
)
def test_a_pause_that_the_owner_wakes_in(
    replicas: MakeReplicas, tmp_path: Path, sink: web.WebServer, way: str, point: Point
) -> None:
    """It still has the run; it begins nothing further, says so, and goes on there when the pause is over."""
    bed = start(replicas, tmp_path, sink, way)
    first, other = stand_still(bed, way, point)
    before = TURNED if point in BEFORE else HALF
    try:
        assert other.ask("PUT", "/pause", json=PAUSE).is_success
        bed.stays(before)  # longer than a call may follow its intent
    finally:
        first.thaw()
    run_id = bed.wait("deferred")
    bed.stays(before)
    shown = other.get(f"/remediations/{run_id}").json()
    assert ("deferred", "paused") == (shown["state"], shown["reason"])
    assert "paused by admin: hands off" in shown["message"]
    assert ("step 2 of 2 is not begun" in shown["message"]) is (point in BETWEEN)
    assert other.ask("DELETE", "/pause").is_success
    bed.wait("succeeded")
    assert BACK == bed.history


@pytest.mark.parametrize(
    ("way", "point"),
    [("undo", BEFORE[1]), ("undo_on_failure", IN_THE_CALL), ("revert", BEFORE[1]), ("revert", IN_THE_CALL)],
    ids=str,
)
def test_a_pause_that_outlasts_the_lease_of_the_owner(
    replicas: MakeReplicas, tmp_path: Path, sink: web.WebServer, way: str, point: Point
) -> None:
    """Another replica has the run by then and waits; what wakes does nothing any more."""
    bed = start(replicas, tmp_path, sink, way, lease=f"{LEASE_SECONDS:g}s")
    first, other = stand_still(bed, way, point)
    try:
        assert other.ask("PUT", "/pause", json=PAUSE).is_success
        run_id = bed.wait("deferred")
    finally:
        first.thaw()
    wait_until(lambda: "the lease was lost" in first.logs, PATIENCE, "the frozen replica to see that it lost the run")
    bed.stays(TURNED)
    message = other.get(f"/remediations/{run_id}").json()["message"]
    assert "step 1 of 2 is not begun" in message
    assert other.ask("DELETE", "/pause").is_success
    bed.wait("succeeded")
    assert BACK == bed.history


def test_a_pause_during_the_call(replicas: MakeReplicas, tmp_path: Path, sink: web.WebServer) -> None:
    """What is being taken back finishes, and the next step waits."""
    bed = start(replicas, tmp_path, sink, "undo")
    first, other = stand_still(bed, "undo", IN_THE_CALL)
    try:
        assert other.ask("PUT", "/pause", json=PAUSE).is_success
    finally:
        first.thaw()
    bed.wait("deferred")
    bed.stays(HALF)
    assert other.ask("DELETE", "/pause").is_success
    bed.wait("succeeded")
    assert BACK == bed.history


@pytest.mark.parametrize(
    ("way", "point"), [("undo", BEFORE[1]), ("undo_on_failure", BETWEEN[0]), ("revert", BEFORE[1])], ids=str
)
def test_a_lower_ceiling_after_the_death_of_every_replica(
    replicas: MakeReplicas, tmp_path: Path, sink: web.WebServer, way: str, point: Point
) -> None:
    """What is taken back half waits for a person's word, which counts when the ceiling is lifted."""
    bed = start(replicas, tmp_path, sink, way, lease=f"{LEASE_SECONDS:g}s")
    for one in stand_still(bed, way, point):
        one.kill9()
    before = bed.history
    observing = restart(bed, "observe")
    run_id = bed.wait("awaiting_approval")
    bed.stays(before)
    refused = observing.post(f"/remediations/{run_id}/approve")
    assert (409, True) == (refused.status_code, "without" in refused.json()["detail"])
    observing.stop()
    acting = restart(bed, "auto")
    bed.stays(before)
    assert acting.post(f"/remediations/{run_id}/approve").is_success
    bed.wait("succeeded")
    assert BACK == bed.history


@pytest.mark.parametrize("way", ["undo", "revert"])
def test_a_lower_ceiling_before_anything_is_taken_back(
    replicas: MakeReplicas, tmp_path: Path, sink: web.WebServer, way: str
) -> None:
    """It stays owed, and is done once the ceiling is lifted."""
    bed = start(replicas, tmp_path, sink, way, lease=f"{LEASE_SECONDS:g}s")
    for one in stand_still(bed, way, BEFORE[0]):
        one.kill9()
    observing = restart(bed, "observe")
    run_id = bed.wait("deferred")
    bed.stays(TURNED)
    assert "mode_observe" == observing.get(f"/remediations/{run_id}").json()["reason"]
    observing.stop()
    restart(bed, "auto")
    bed.wait("succeeded")
    assert BACK == bed.history


def restart(bed: Bed, mode: str) -> Service:
    """A replica under another ceiling."""
    bed.group.settings = {**bed.group.settings, "mode": mode}
    return bed.group.start(module=dialing())


@pytest.mark.parametrize("way", ["undo", "revert"])
def test_a_scaling_is_taken_back_after_the_pause(
    replicas: MakeReplicas, cluster: Cluster, namespace: str, way: str
) -> None:
    """On a real cluster: who stood still just before its write wakes in the pause, and the number is set back once."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/shop"
    cluster.deployment(namespace, "shop", replicas=2)
    entry = remediation(
        name="more",
        target={"kubernetes": {"kind": "Deployment", "namespace": namespace, "name": "shop"}},
        steps=[{"action": "kubernetes.scale", "with": {"by": 3, "max": 8}, "timeout": "5m"}],
        **({"revert": "on_resolved", "revert_after": "1s"} if way == "revert" else {}),
    )
    connections = {"kubernetes": {"default": {"kubeconfig": str(cluster.kubeconfig)}}}
    given = {"lease": f"{LEASE_SECONDS:g}s", "recheck": "500ms"}
    bed = Bed(replicas(entry, connections=connections, scope={"kubernetes": {"namespaces": [namespace]}}, **given))
    first, other = stand_still(bed, way, BEFORE_THE_WRITE)
    before = cluster.get(path)
    try:
        assert other.ask("PUT", "/pause", json=PAUSE).is_success
        bed.wait("deferred")
    finally:
        first.thaw()
    wait_until(lambda: "the lease was lost" in first.logs, PATIENCE, "the frozen replica to see that it lost the run")
    still = cluster.get(path)
    assert (5, before["metadata"]["generation"]) == (still["spec"]["replicas"], still["metadata"]["generation"])
    assert other.ask("DELETE", "/pause").is_success
    bed.wait("succeeded")
    after = cluster.get(path)
    assert (2, still["metadata"]["generation"] + 1) == (after["spec"]["replicas"], after["metadata"]["generation"])
