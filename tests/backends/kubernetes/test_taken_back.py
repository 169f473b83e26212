"""Runs on a real control plane where somebody puts back what they did: an operator, a controller, a person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from app.backends.connections import Connections
from app.backends.kubernetes.backend import KubernetesConnection
from app.domain.reasons import Reason
from app.domain.states import RunState
from tests.support.aio import run
from tests.support.engine import Engine, engine, remediation, sqlite
from tests.support.processes import wait_until

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
RESTART = {"action": "kubernetes.rollout_restart"}
MORE = {"action": "kubernetes.scale", "with": {"by": 1, "max": 5}}
WINDOW = timedelta(seconds=3)


def acts(kube: Any, kind: str, step: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A remediation of one workload, verified as the documentation shows."""
    check = "kubernetes.ready" if step["action"] == "kubernetes.scale" else "kubernetes.rollout_complete"
    target = {"kubernetes": {"kind": kind, "namespace": kube.namespace, "name": "db"}}
    without = {"storm": "one workload is all there is"}
    given = {
        "target": target,
        "steps": [step],
        "verify": [{"check": check, "timeout": "30s"}],
        "without_guards": without,
    }
    return remediation(**(given | fields))


@contextmanager
def operator(kube: Any, kind: str) -> Iterator[None]:
    """Puts the whole specification back as soon as it differs, as an operator does from its own resource."""
    wanted, over = kube.get(kind, "db")["spec"], Event()

    def reconcile() -> None:
        while not over.wait(0.1):
            now = kube.get(kind, "db")
            if now["spec"] != wanted:
                kube.replace(kind, "db", now | {"spec": wanted}, manager="db-operator")

    thread = Thread(target=reconcile)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def play(kube: Any, tmp_path: Path, entry: dict[str, Any], scenario: Callable[[Engine], Any]) -> None:
    """Run one replica with the entry as its catalog."""
    connections = Connections(kubernetes={"default": KubernetesConnection(kubeconfig=kube.kubeconfig)})

    async def body() -> None:
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections, stability=WINDOW) as one:
            await scenario(one)

    run(body())


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
@pytest.mark.parametrize("step", [RESTART, MORE], ids=["restart", "scale"])
def test_what_an_operator_puts_back_is_not_verified(kube: Any, tmp_path: Path, kind: str, step: dict[str, Any]) -> None:
    """Everything looks well within a second, since nothing is different any more; who set a number is named."""
    kube.running(kind, "db", 2)
    entry = acts(kube, kind, step, verify=[], limits={"cooldown": "0s", "rate": "1000/1h", "attempts": 3})

    async def scenario(one: Engine) -> None:
        await one.fire()
        (ended,) = await one.ended(count=1, seconds=30)
        assert (RunState.FAILED, Reason.TAKEN_BACK) == (ended.state, ended.reason), ended.message
        who = "db-operator" if step is MORE else "a manager that managedFields do not name"
        assert f"changed back by {who}" in ended.message

    with operator(kube, kind):
        play(kube, tmp_path, entry, scenario)


def test_the_controlling_object_is_named(kube: Any) -> None:
    """Where the API server does not know who removed the restart, the object behind the workload is the likeliest."""
    kube.controlled("StatefulSet", "db")
    target = kube.target("StatefulSet", "db")
    step = kube.plan("kubernetes.rollout_restart", target, now=datetime.now(UTC) + timedelta(minutes=1))
    kube.apply(target, step)
    kube.patch("StatefulSet", "db", template={"metadata": {"annotations": {RESTARTED_AT: None}}})
    assert "changed back by the operator of ConfigMap main (v1)" in kube.taken_back(target, step)


@pytest.mark.parametrize("step", [RESTART, MORE], ids=["restart", "scale"])
def test_what_stays_is_verified(kube: Any, tmp_path: Path, step: dict[str, Any]) -> None:
    """Nobody touches it: the run succeeds, and not before the time that it must stay."""
    kube.running("Deployment", "db", 2)

    async def scenario(one: Engine) -> None:
        begun = asyncio.get_running_loop().time()
        await one.fire()
        (ended,) = await one.ended(count=1, seconds=40)
        assert (RunState.SUCCEEDED, Reason.VERIFIED) == (ended.state, ended.reason), ended.message
        assert asyncio.get_running_loop().time() - begun >= WINDOW.total_seconds()

    play(kube, tmp_path, acts(kube, "Deployment", step), scenario)


def test_what_goes_while_the_alert_settles_is_not_verified(kube: Any, tmp_path: Path) -> None:
    """The alert's end proves nothing where the number has gone back before."""
    kube.running("Deployment", "db", 2)

    async def scenario(one: Engine) -> None:
        await one.fire()
        await one.reached("verifying", seconds=30)
        while (await one.runs())[0].settle_until is None:
            await asyncio.sleep(0.05)
        kube.kubectl_scale("deployment", "db", 2)
        one.forward(timedelta(seconds=30))
        await one.resolve()
        (ended,) = await one.ended(count=1, seconds=20)
        assert (RunState.FAILED, Reason.TAKEN_BACK) == (ended.state, ended.reason)
        assert "has replicas 2, and 3 was set: changed back by kubectl" in ended.message

    play(kube, tmp_path, acts(kube, "Deployment", MORE, settle="10m"), scenario)


def test_a_minimum_is_verified_once_the_replicas_are_there(kube: Any, tmp_path: Path) -> None:
    """The autoscaler's controller raises the number some time after its minimum, and its pods come later still."""
    kube.running("Deployment", "db", 2)
    kube.autoscaler("db", (1, 8), workload="db")

    async def scenario(one: Engine) -> None:
        await one.fire()
        (ended,) = await one.ended(count=1, seconds=60)
        assert (RunState.SUCCEEDED, Reason.VERIFIED) == (ended.state, ended.reason), ended.message
        assert (4, 4) == (kube.minimum("db"), kube.get("Deployment", "db")["status"]["readyReplicas"])

    step = {"action": "kubernetes.scale", "with": {"by": 2, "max": 8}}
    play(kube, tmp_path, acts(kube, "Deployment", step), scenario)


def test_what_was_taken_back_goes_to_the_next_rung(kube: Any, tmp_path: Path) -> None:
    """The planned number is gone before the checks hold: they fail, and the next rung may tell people."""
    kube.running("Deployment", "db", 2)
    step = {"action": "kubernetes.scale", "with": {"to": 3}}
    rung = {"steps": [{"action": "kubernetes.scale", "with": {"to": 4}}]}
    check = [{"check": "kubernetes.ready", "timeout": "2s"}]

    async def scenario(one: Engine) -> None:
        await one.fire()
        (ended,) = await one.ended(count=1, seconds=40)
        assert RunState.FAILED == ended.state
        assert [0, 1] == sorted({row.rung for row in await one.steps()})

    with operator(kube, "Deployment"):
        play(kube, tmp_path, acts(kube, "Deployment", step, verify=check, escalate=[rung]), scenario)


def test_a_later_deployment_takes_no_restart_back(kube: Any) -> None:
    """Other pods, or a later restart, have replaced the old ones all the more."""
    target = kube.running("Deployment", "db", 1)
    step = kube.plan("kubernetes.rollout_restart", target)
    assert "changed back by" in kube.taken_back(target, step)  # as long as it is not applied
    kube.apply(target, step)
    assert "" == kube.taken_back(target, step)
    later = {"metadata": {"annotations": {RESTARTED_AT: "2099-01-01T00:00:00Z"}}}
    kube.patch("Deployment", "db", template=later)
    assert "" == kube.taken_back(target, step)
    kube.patch("Deployment", "db", template={"metadata": {"annotations": {RESTARTED_AT: None}}})
    assert "changed back by python-httpx" in kube.taken_back(target, step)
    kube.deploy_image("Deployment", "db", "example/main:2")
    assert "" == kube.taken_back(target, step)


def test_readiness_is_of_the_planned_number(kube: Any) -> None:
    """All replicas that are asked for are ready, and they are fewer than were planned."""
    target = kube.running("Deployment", "db", 2)
    step = kube.plan("kubernetes.scale", target, to=4)
    seen = kube.observe("kubernetes.ready", target, [step], min_ready="50%")
    assert (False, True) == (seen.held, "asks for 2 replicas, and 4 were planned" in seen.message)
    kube.apply(target, step)
    kube.wait_complete("Deployment", "db")
    assert kube.observe("kubernetes.ready", target, [step]).held
    kube.kubectl_scale("deployment", "db", 6)
    kube.wait_complete("Deployment", "db")
    assert kube.observe("kubernetes.ready", target, [step]).held


def test_readiness_is_of_the_minimum_once_the_autoscaler_has_acted(kube: Any) -> None:
    """A minimum is a promise until the workload asks for as many."""
    target = kube.running("Deployment", "db", 2)
    kube.autoscaler("db", (1, 8), workload="db")
    step = kube.plan("kubernetes.scale", target, by=2, max=8)
    seen = kube.observe("kubernetes.ready", target, [step])
    assert (False, True) == (seen.held, "its autoscaler was to raise it to 4" in seen.message)
    kube.apply(target, step)
    wait_until(lambda: kube.observe("kubernetes.ready", target, [step]).held, 30, "the autoscaler and its pods")
    assert 4 == kube.get("Deployment", "db")["status"]["readyReplicas"]


def test_fewer_replicas_are_there_once_the_others_are_gone(kube: Any) -> None:
    """While surplus replicas run, the planned state is not reached; a number that went up again is none."""
    target = kube.running("Deployment", "db", 3)
    step = kube.plan("kubernetes.scale", target, to=1)
    assert not kube.observe("kubernetes.ready", target, [step]).held
    kube.apply(target, step)
    wait_until(lambda: kube.observe("kubernetes.ready", target, [step]).held, 30, "the surplus replicas to go")
    assert 1 == kube.get("Deployment", "db")["status"]["replicas"]
