"""The workloads of a namespace, and which of them are unhealthy, as a real API server lists them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from app.actions.registry import actions
from app.clients.clients import Clients
from app.clients.kubernetes import KubernetesClient
from app.clients.kubernetes_objects import ObjectRef
from app.domain.errors import PermanentError
from app.domain.outside import Population
from app.domain.reasons import Reason
from tests.support.cluster import workload
from tests.support.processes import wait_until

NEVER_READY = {"testbed/never-ready": "true"}
MANY = 1000


def population(kube: Any, namespace: str | None = None) -> Population:
    """What the client says of a namespace."""

    async def work(clients: Clients) -> Population:
        return await (await clients.kubernetes()).population(namespace or kube.namespace)

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
    """All of them, and faster than a decision may take."""
    kinds = ["Deployment"] * (MANY - 1)
    items = [
        {"apiVersion": "apps/v1", "kind": kind} | workload(f"w{number}", 0, {}) for number, kind in enumerate(kinds)
    ]
    for start in range(0, len(items), 250):
        for one in items[start : start + 250]:
            kube.cluster.create(kube.path("Deployment"), one)
    kube.create("DaemonSet", "agent")
    pages = []
    send = KubernetesClient._send

    async def counting(self: KubernetesClient, call: Any, patch: Any, query: Any) -> Any:
        pages.append(query)
        return await send(self, call, patch, query)

    async def work(clients: Clients) -> tuple[Population, float]:
        client = await clients.kubernetes()
        await client.list(ObjectRef("StatefulSet", kube.namespace))  # connected, as a client at work is
        began = time.monotonic()
        KubernetesClient._send = counting  # type: ignore[method-assign]
        try:
            return await client.population(kube.namespace), time.monotonic() - began
        finally:
            KubernetesClient._send = send  # type: ignore[method-assign]

    seen, seconds = kube.use(work)
    assert (MANY, MANY) == (seen.total, len(seen.members))
    assert 4 == len(pages)  # two of Deployments, one of each other kind
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
        client = await clients.kubernetes()
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
