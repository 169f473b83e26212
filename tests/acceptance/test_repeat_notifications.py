"""However often, by whomever and with whatever else an alert is sent: one run, one effect.

The effect is a POST to a real web server, which counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.acceptance.audit import PATIENCE, Audit
from tests.acceptance.bench import notified, remediation, request, resolve, routes, serving
from tests.conftest import StartAlertmanager
from tests.support import web
from tests.support.processes import wait_until
from tests.support.service import Service
from tests.support.web import WebServer

NAMES = ("gossiping-pair", "pair-apart", "growing-group", "two-receivers")


@pytest.fixture(scope="module")
def counter() -> Iterator[WebServer]:
    """The target: each alert has a path of its own."""
    with web.serve() as server:
        yield server


@pytest.fixture(scope="module")
def service(counter: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One replica whose remediations have no cooldown: nothing but identity holds a second run back."""
    path = "{{ labels.alertname }}/{{ labels.pod | default('-') }}"
    catalog = [remediation(name, request(f"{counter.url}/{path}")) for name in NAMES]
    catalog.append(remediation("two-replicas", request(f"{counter.url}/{path}"), settle="2m"))
    with serving(tmp_path_factory.mktemp("service"), catalog) as running:
        yield running


@pytest.fixture
def audit(service: Service) -> Audit:
    """What the service says."""
    return Audit(service)


def effects(counter: WebServer, alertname: str) -> list[str]:
    """The paths that were asked for an alert."""
    return [asked.path for asked in counter.requests if asked.path.startswith(f"/{alertname}/")]


def wait_delivered(audit: Audit, times: int, **query: Any) -> dict[str, Any]:
    """Wait until an alert was delivered so often; its episode."""
    wait_until(lambda: audit.episode(**query)["deliveries"] >= times, PATIENCE, f"{times} deliveries of {query}")
    return audit.episode(**query)


def test_gossiping_pair_that_repeats_itself(
    start_alertmanager: StartAlertmanager, service: Service, audit: Audit, counter: WebServer
) -> None:
    """Both members of a real pair know the alert and repeat it, and one goes on when the other has died: one run."""
    config = routes(service.url, repeat_interval="1s")
    first = start_alertmanager(config, peers=[])
    second = start_alertmanager(config, peers=[first.cluster_address])
    wait_until(lambda: first.peer_count() == second.peer_count() == 2, PATIENCE, "the pair to be one")

    for member in (first, second):
        member.push({"alertname": "gossiping-pair"})
    told = wait_delivered(audit, 3, alertname="gossiping-pair")["deliveries"]
    first.stop()
    by_second = notified(second)
    episode = wait_delivered(audit, told + 2, alertname="gossiping-pair")

    assert by_second < notified(second)
    run = audit.reached("succeeded", alertname="gossiping-pair")
    assert [run["id"]] == [one["id"] for one in episode["runs"]]
    assert ["/gossiping-pair/-"] == effects(counter, "gossiping-pair")


def test_pair_that_lost_sight_of_each_other(
    start_alertmanager: StartAlertmanager, service: Service, audit: Audit, counter: WebServer
) -> None:
    """Two Alertmanagers that do not gossip send everything twice, the resolve too: one run, one episode."""
    pair = [start_alertmanager(routes(service.url, repeat_interval="1s")) for _ in range(2)]

    for member in pair:
        member.push({"alertname": "pair-apart"})
    wait_delivered(audit, 4, alertname="pair-apart")
    wait_until(lambda: all(notified(member) for member in pair), PATIENCE, "both to have sent it")
    for member in pair:
        resolve(member, {"alertname": "pair-apart"})
    wait_until(lambda: audit.episode(alertname="pair-apart")["closed_at"], PATIENCE, "the alert to be over")
    wait_until(lambda: audit.metric("remediator_alerts_total", receipt="late"), PATIENCE, "the second resolve")

    run = audit.reached("succeeded", alertname="pair-apart")
    assert [run["id"]] == [one["id"] for one in audit.episode(alertname="pair-apart")["runs"]]
    assert ["/pair-apart/-"] == effects(counter, "pair-apart")


def test_group_that_grows_sends_its_old_members_again(
    start_alertmanager: StartAlertmanager, service: Service, audit: Audit, counter: WebServer
) -> None:
    """Each new pod of a group brings the others' alerts along; each of them has one run."""
    router = start_alertmanager(routes(service.url, group_by=["alertname"]))
    pods = ["a", "b", "c"]

    for pod in pods:
        router.push({"alertname": "growing-group", "pod": pod})
        wait_delivered(audit, 1, alertname="growing-group", label=f"pod={pod}")
    delivered = [audit.episode(alertname="growing-group", label=f"pod={pod}") for pod in pods]

    assert [3, 2, 1] == [episode["deliveries"] for episode in delivered]
    runs = audit.ended(3, alertname="growing-group")
    assert ["succeeded"] * 3 == [run["state"] for run in runs]
    assert [f"/growing-group/{pod}" for pod in pods] == effects(counter, "growing-group")


def test_two_routes_to_two_receivers(
    start_alertmanager: StartAlertmanager, service: Service, audit: Audit, counter: WebServer
) -> None:
    """An alert that two routes send on, each to a receiver of its own, is still one alert."""
    config = yaml.safe_load(routes(service.url))
    [receiver] = config["receivers"]
    config["receivers"].append({**receiver, "name": "again"})
    config["route"]["routes"] = [{"receiver": "remediator", "continue": True}, {"receiver": "again"}]
    router = start_alertmanager(yaml.safe_dump(config))

    router.push({"alertname": "two-receivers"})
    episode = wait_delivered(audit, 2, alertname="two-receivers")

    run = audit.reached("succeeded", alertname="two-receivers")
    assert [run["id"]] == [one["id"] for one in episode["runs"]]
    assert ["/two-receivers/-"] == effects(counter, "two-receivers")


def test_replicas_of_an_ha_prometheus(
    start_alertmanager: StartAlertmanager, service: Service, audit: Audit, counter: WebServer
) -> None:
    """Two replicas tell of one trouble, in alerts that differ in one label: one run, over when both say so."""
    router = start_alertmanager(routes(service.url))
    replicas = [{"alertname": "two-replicas", "prometheus_replica": name} for name in ("a", "b")]

    for labels in replicas:
        router.push(labels)
    episode = wait_delivered(audit, 2, alertname="two-replicas")
    assert 2 == len(episode["firing"])
    run = audit.reached("verifying", alertname="two-replicas")

    resolve(router, replicas[0])
    wait_until(lambda: len(audit.episode(alertname="two-replicas")["firing"]) == 1, PATIENCE, "one replica's resolve")
    assert "verifying" == audit.run(run["id"])["state"]
    assert audit.episode(alertname="two-replicas")["closed_at"] is None

    resolve(router, replicas[1])
    ended = audit.reached("succeeded", alertname="two-replicas")
    assert ended["effective"] is True
    assert [run["id"]] == [one["id"] for one in audit.episode(alertname="two-replicas")["runs"]]
    assert ["/two-replicas/-"] == effects(counter, "two-replicas")
