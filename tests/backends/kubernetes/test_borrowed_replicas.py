"""Replicas that an alert borrows, from the alert to their return, on a real control plane."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.backends.connections import Connections
from app.backends.kubernetes.backend import KubernetesConnection
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import RunState
from tests.support.aio import run
from tests.support.engine import engine, remediation, sqlite

MINUTE = timedelta(minutes=1)


def scales(kube: Any, **fields: Any) -> dict[str, Any]:
    """Three replicas while the alert fires."""
    target = {"kind": "Deployment", "namespace": kube.namespace, "name": "api"}
    steps = [{"action": "kubernetes.scale", "with": {"to": 3}}]
    borrow = {"revert": "on_resolved", "revert_after": "10m"}
    return remediation(**({"name": "more", "target": {"kubernetes": target}, "steps": steps} | borrow | fields))


@pytest.mark.parametrize("by_hand", [None, 5, 1])
def test_borrowed_replicas_are_given_back(kube: Any, tmp_path: Path, by_hand: int | None) -> None:
    """Unless somebody has set another number meanwhile: that stays, and the run says so."""
    kube.running("Deployment", "api", 1)
    connections = Connections(kubernetes={"default": KubernetesConnection(kubeconfig=kube.kubeconfig)})

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, scales(kube), connections=connections) as one:
            await one.fire()
            (first,) = await one.ended(count=1, seconds=20)
            assert 3 == kube.get("Deployment", "api")["spec"]["replicas"]
            if by_hand is not None:
                kube.patch("Deployment", "api", replicas=by_hand)
            one.forward(MINUTE)
            await one.resolve()
            one.forward(11 * MINUTE)
            _, given_back = await one.ended(count=2, seconds=20)
            assert Purpose.REVERT == given_back.purpose
            changed = by_hand == 5
            state, reason = (RunState.SUCCEEDED, Reason.VERIFIED)
            if changed:
                state, reason = (RunState.FAILED, Reason.CHANGED_SINCE_PLANNED)
            assert (state, reason) == (given_back.state, given_back.reason)
            assert ("not_reverted" if changed else "reverted") == (await one.kinds(first.id))[-1]
            assert (5 if changed else 1) == kube.get("Deployment", "api")["spec"]["replicas"]

    run(scenario())


def test_an_autoscaler_that_came_since_keeps_its_workload(kube: Any, tmp_path: Path) -> None:
    """The return is refused before anything is written."""
    kube.running("Deployment", "api", 1)
    connections = Connections(kubernetes={"default": KubernetesConnection(kubeconfig=kube.kubeconfig)})

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, scales(kube), connections=connections) as one:
            await one.fire()
            await one.ended(count=1, seconds=20)
            kube.autoscaler("api", (1, 10))
            one.forward(MINUTE)
            await one.resolve()
            one.forward(11 * MINUTE)
            _, given_back = await one.ended(count=2, seconds=20)
            assert (RunState.DENIED, Reason.OWNED_BY_HPA) == (given_back.state, given_back.reason)
            assert 3 == kube.get("Deployment", "api")["spec"]["replicas"]
            assert [] == [row for row in await one.steps() if row.run_id == given_back.id]

    run(scenario())
