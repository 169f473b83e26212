"""The workloads of a namespace, and which of them are unhealthy, as a real API server lists them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.backends.actions import actions
from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.kubernetes.backend import KUBERNETES, KubernetesConnection
from app.backends.kubernetes.client import KubernetesClient
from app.backends.kubernetes.objects import ObjectRef
from app.domain.errors import PermanentError
from app.domain.external_facts import Population
from app.domain.plans import Plan
from app.domain.reasons import Reason
from app.domain.states import RunState
from app.engine.stages.external_facts import look_outside
from app.store.db import schema
from app.store.ledger import runs
from tests.support.aio import run
from tests.support.cluster import workload
from tests.support.engine import engine, remediation, sqlite
from tests.support.processes import wait_until

NEVER_READY = {"testbed/never-ready": "true"}
MANY = 1000


def population(kube: Any, namespace: str | None = None) -> Population:
    """What the client says of a namespace."""

    async def work(clients: Clients) -> Population:
        return await (await KUBERNETES.client(clients)).population(namespace or kube.namespace)

    return kube.use(work)


def test_every_kind_counts_and_only_the_unhealthy_are_named(kube: Any) -> None:
    """Ready as asked for is healthy, so is what asks for nothing."""
    kube.running("Deployment", "api", 2)
    kube.running("StatefulSet", "db", 1)
    kube.running("DaemonSet", "agent")
    kube.create("Deployment", "off", 0)
    kube.create("Deployment", "ill", 2, pods=NEVER_READY)
    kube.create("StatefulSet", "sick", 1, pods=NEVER_READY)
    seen = population(kube)
    names = ("Deployment/{}/api", "StatefulSet/{}/db", "DaemonSet/{}/agent", "Deployment/{}/off")
    healthy = {f"kubernetes:{name.format(kube.namespace)}" for name in names}
    unhealthy = {
        f"kubernetes:{name}/{kube.namespace}/{end}" for name, end in (("Deployment", "ill"), ("StatefulSet", "sick"))
    }
    assert (6, f"namespace {kube.namespace}", "") == (seen.total, seen.where, seen.unknown)
    assert unhealthy == seen.unhealthy
    assert healthy | unhealthy == seen.members


def test_the_keys_are_those_of_targets(kube: Any) -> None:
    """What is being worked on is found again among the members."""
    kube.create("Deployment", "api", 1)
    assert kube.resolve("Deployment", "api").key in population(kube).members


def test_a_thousand_workloads_are_listed_in_pages(kube: Any) -> None:
    """All of them, though no page has so many, and faster than a decision may take."""
    for number in range(MANY - 1):
        kube.cluster.create(kube.path("Deployment"), workload(f"w{number}", 0, {}))
    kube.create("DaemonSet", "agent")

    async def work(clients: Clients) -> tuple[Population, float]:
        client = await KUBERNETES.client(clients)
        await client.list(ObjectRef("StatefulSet", kube.namespace))  # connected, as a client at work is
        began = time.monotonic()
        return await client.population(kube.namespace), time.monotonic() - began

    seen, seconds = kube.use(work)
    assert (MANY, MANY) == (seen.total, len(seen.members))
    assert seconds < 2, seconds


def test_decisions_of_the_same_moment_share_one_answer(kube: Any) -> None:
    """A hundred questions are three lists; once the second is over, the cluster is asked again."""
    kube.create("Deployment", "api", 0)
    asked = []
    listed = KubernetesClient.list

    async def counting(self: KubernetesClient, ref: ObjectRef) -> Any:
        asked.append(ref.kind)
        return await listed(self, ref)

    async def work(clients: Clients) -> list[Population]:
        client = await KUBERNETES.client(clients)
        KubernetesClient.list = counting  # type: ignore[method-assign]
        try:
            return await asyncio.gather(*(client.population(kube.namespace) for _ in range(100)))
        finally:
            KubernetesClient.list = listed  # type: ignore[method-assign]

    answers = kube.use(work)
    assert (100, 3) == (len(answers), len(asked))
    assert {1} == {one.total for one in answers}


def test_a_missing_permission_is_named(kube: Any) -> None:
    """Who may read one workload and not list them learns which right is missing."""
    kube.create("Deployment", "api", 1)
    get = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}
    with pytest.raises(PermanentError) as caught:
        population(kube.as_account("reader", get))
    assert Reason.FORBIDDEN is caught.value.reason
    assert "to list" in caught.value.message


@pytest.mark.parametrize("action", ["kubernetes.rollout_restart", "kubernetes.scale"])
def test_the_declared_permissions_are_enough(kube: Any, declared: Any, action: str) -> None:
    """What an action declares lets its guard read the population."""
    kube.create("Deployment", "api", 0)
    account = kube.as_account("remediator", *declared(actions()[action].permissions))
    wait_until(lambda: population(account).total == 1, 10, "the rights to be in force")


def restart(**fields: Any) -> dict[str, Any]:
    """A remediation that restarts what the alert names."""
    target = {"kubernetes": {"kind": "Deployment", "namespace": fields.pop("namespace"), "name": "api"}}
    return remediation(**({"target": target, "steps": [{"action": "kubernetes.rollout_restart"}]} | fields))


def decided(kube: Any, directory: Path, **fields: Any) -> Any:
    """What becomes of an alert about the Deployment `api`, as soon as anything does."""

    async def scenario() -> Any:
        entry = restart(namespace=kube.namespace, **fields)
        connections = Connections(kubernetes={"default": KubernetesConnection(kubeconfig=kube.kubeconfig)})
        async with engine(sqlite(directory), directory, entry, connections=connections) as one:
            await one.fire()
            (row,) = await one.reached(RunState.DEFERRED, RunState.SUCCEEDED, seconds=30)
            return row

    return run(scenario())


def test_where_most_is_unhealthy_nothing_is_restarted(kube: Any, tmp_path: Path) -> None:
    """That is one outage; a remediation that says why may act all the same."""
    for name in ("api", "db", "web"):
        kube.create("Deployment", name, 1, pods=NEVER_READY)
    for name in ("api", "db", "web"):
        kube.wait_status("Deployment", name, lambda status: status.get("updatedReplicas") == 1)
    row = decided(kube, tmp_path)
    assert (RunState.DEFERRED, Reason.STORM) == (row.state, row.reason)
    assert f"3 of 3 workloads in namespace {kube.namespace}" in row.message
    (tmp_path / "without").mkdir()
    row = decided(kube, tmp_path / "without", without_guards={"storm": "restarting is the cure of an outage"})
    assert RunState.SUCCEEDED == row.state


def test_where_most_is_healthy_the_one_that_is_not_is_restarted(kube: Any, tmp_path: Path) -> None:
    """One of three is no outage."""
    kube.running("Deployment", "db")
    kube.running("Deployment", "web")
    kube.running("Deployment", "api")
    assert RunState.SUCCEEDED == decided(kube, tmp_path).state


def test_a_population_that_cannot_be_read_refuses(kube: Any, tmp_path: Path) -> None:
    """Who may restart and not list does nothing, and says which right is missing."""
    kube.running("Deployment", "api")
    patch = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}
    row = decided(kube.as_account("restarter", patch), tmp_path)
    assert (RunState.DEFERRED, Reason.POPULATION_UNKNOWN) == (row.state, row.reason)
    assert "not allowed to list" in row.message


def test_a_list_without_the_target_is_no_population(kube: Any, tmp_path: Path) -> None:
    """What is empty, or not the namespace that the plan saw, is not taken for a healthy one."""

    async def scenario() -> Any:
        entry = restart(namespace=kube.namespace)
        connections = Connections(kubernetes={"default": KubernetesConnection(kubeconfig=kube.kubeconfig)})
        async with engine(sqlite(tmp_path), tmp_path, entry, connections=connections, working=False) as one:
            await one.fire()
            async with one.database.read() as tx:
                run_id = (await tx.execute(select(schema.run.c.id))).scalar_one()
                pending = await runs.get(tx, run_id)
            assert pending
            plan = Plan(rung=0, target=kube.target("Deployment", "ghost"), steps=())
            return (await look_outside(one.parts, pending, plan)).population

    seen = run(scenario())
    assert "has 0 entries and lacks this one" in seen.unknown
