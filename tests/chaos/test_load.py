"""Many alerts through a pair of Alertmanagers into three replicas, while a replica dies and the database restarts."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest

from app.domain import former_names
from tests.chaos.conftest import SOAK, TOKEN, MakeReplicas, Replicas
from tests.chaos.test_replicas import verified
from tests.support import postgres, web
from tests.support.alertmanager import Alertmanager
from tests.support.entries import poke, request
from tests.support.processes import wait_until

ALERTS = 10_000 if SOAK else 600
GROUP = 20  # alerts of one notification
ADMITTED = 25  # of the limited ones
PATIENCE = 3600.0 if SOAK else 240.0


def config(group: Replicas) -> str:
    """Every member tells every replica, as it does without a load balancer."""
    http = {"authorization": {"credentials": TOKEN}}
    webhooks = [{"url": f"{one.url}/webhooks/alertmanager", "http_config": http} for one in group.members]
    route = {"receiver": "us", "group_by": ["alertname", "shard"], "group_wait": "1s", "group_interval": "2s"}
    return json.dumps({"route": route, "receivers": [{"name": "us", "webhook_configs": webhooks}]})


def labels(number: int) -> dict[str, str]:
    """Alerts of two kinds; one in four is of the kind whose rate is limited."""
    name = "Limited" if number % 4 == 0 else "Down"
    return {"alertname": name, "pod": f"pod-{number}", "shard": str(number // GROUP)}


@pytest.mark.timeout(7200 if SOAK else 400)
def test_load_with_faults(
    replicas: MakeReplicas,
    start_postgres: Callable[..., postgres.PostgresServer],
    start_alertmanager: Callable[..., Alertmanager],
    sink: web.WebServer,
) -> None:
    """Every episode has its decision, no target is touched twice, the limit is exact."""
    server = start_postgres()
    per_pod = request(sink, "/poke/{{ labels.pod }}", method="POST")
    ample = {"cooldown": "0s", "rate": "100000/1h", "storm": "100000/10m", "attempts": 1}
    limited = ample | {"rate": f"{ADMITTED}/1h"}
    group = replicas(
        poke(sink, steps=[per_pod], limits=ample),
        poke(sink, name="limited", matchers=['alertname="Limited"'], steps=[per_pod], limits=limited),
        store=server.url,
        lease="3s",
        recheck="2m",
    )
    for _ in range(3):
        group.start()
    first = start_alertmanager(config(group), peers=[])
    second = start_alertmanager(config(group), peers=[first.cluster_address])
    for member in (first, second):
        wait_until(lambda: member.peer_count() == 2, 30, "the pair to be complete")  # noqa: B023 - called at once

    everything = [labels(number) for number in range(ALERTS)]
    size = math.ceil(ALERTS / 4)
    for number, start in enumerate(range(0, ALERTS, size)):
        for member in (first, second):
            member.push_all(everything[start : start + size])
        wait_until(lambda: len(sink.requests) > number * size // 8, PATIENCE, "the work to begin")  # noqa: B023
        if number == 1:
            group.owner().kill9()
        if number == 2:
            server.restart()

    wait_until(lambda: decided(group) == ALERTS, PATIENCE, "every alert to be decided")
    touched = Counter(one.path for one in sink.requests)
    assert not {path: count for path, count in touched.items() if count > 1}
    with psycopg.connect(server.url) as connection:
        states = connection.execute("SELECT remediation, state, reason, count(*) FROM run GROUP BY 1, 2, 3").fetchall()
    by_state = {(name, state, former_names.reason(reason)): number for name, state, reason, number in states}
    acted = {key: number for key, number in by_state.items() if key[1] in {"succeeded", "interrupted", "failed"}}
    assert ADMITTED == sum(number for (name, *_), number in acted.items() if name == "limited"), by_state
    assert ALERTS // 4 - ADMITTED == by_state["limited", "deferred", "rate"], by_state
    assert ALERTS - ALERTS // 4 == sum(number for (name, *_), number in acted.items() if name == "poke"), by_state
    # What is not known to have succeeded was in the hands of the replica that died.
    lost = sum(number for (_, state, _), number in acted.items() if state != "succeeded")
    assert len(touched) >= sum(acted.values()) - lost
    assert lost <= ALERTS // 10
    verified(group)


def decided(group: Replicas) -> int:
    """How many alerts have an episode and a run that is at its end, or put off by the limit."""
    try:
        rows = group.rows("state, reason")
        with psycopg.connect(group.store) as connection:
            (episodes,) = connection.execute("SELECT count(*) FROM episode").fetchone() or (0,)
    except psycopg.OperationalError:  # it is just restarting
        return 0
    ends = {"succeeded", "failed", "interrupted"}
    settled = sum(
        state in ends or (state, former_names.reason(reason)) == ("deferred", "rate") for state, reason in rows
    )
    return min(settled, int(episodes)) if settled == len(rows) else 0
