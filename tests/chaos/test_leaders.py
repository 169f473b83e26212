"""What one replica does for all goes on when that replica freezes, at whichever statement."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count

import psycopg
import pytest

from tests.acceptance.audit import sample
from tests.chaos.conftest import PATIENCE, SOAK, MakeReplicas, Replicas, fire, stands_still
from tests.chaos.test_replicas import verified
from tests.support import web
from tests.support.alertmanager import Alertmanager
from tests.support.crashing import Point
from tests.support.entries import asked, poke
from tests.support.processes import free_port, wait_until
from tests.support.service import Service

LEASE_SECONDS = 3.0
A_LOOK = LEASE_SECONDS / 4  # until a follower sees that a lease is over
# Until the server ends a session that stands still with a lock, five seconds, and a busy machine.
CUT_OFF_SECONDS = 15.0
FROZEN_SECONDS = 60.0 if SOAK else 3.0
SOON = 30.0  # a lease, the looks of a follower, ten seconds between two seals, and a busy machine


def led_by(asked: Service, matter: str = "housekeeping") -> str:
    """The name of the replica that leads, as a replica tells it."""
    lines = dict(line.split(": ", 1) for line in asked.get("/-/ready").text.splitlines() if ": " in line)
    return lines.get(matter, "").partition("led by ")[2].partition(" until ")[0]


def leading(group: Replicas, matter: str = "housekeeping") -> Service:
    """The replica that leads."""
    name = wait_until(lambda: led_by(group.members[0], matter), PATIENCE, "a replica to lead")
    (found,) = [one for one in group.members if one.process and f"-{one.process.pid}-" in name]
    return found


def unsealed(group: Replicas) -> int:
    """How many chains have an end that no seal lists."""
    listed = """
        SELECT leaf->>0 AS chain, max((leaf->>1)::int) AS seq
        FROM seal, jsonb_array_elements(leaves::jsonb) AS leaf GROUP BY 1
    """
    ends = "SELECT run_id AS chain, max(seq) AS seq FROM event GROUP BY 1"
    with psycopg.connect(group.store) as connection:
        query = f"SELECT count(*) FROM ({ends}) AS one LEFT JOIN ({listed}) AS sealed USING (chain)"
        row = connection.execute(f"{query} WHERE one.seq > coalesce(sealed.seq, 0)".encode()).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("statement", [None, "INSERT INTO seal"])
def test_seals_go_on_when_their_leader_freezes(
    replicas: MakeReplicas, sink: web.WebServer, statement: str | None
) -> None:
    """Also in the midst of a seal, whose lock it holds; when it wakes it seals nothing beside the new leader."""
    group = replicas(poke(sink), lease=f"{LEASE_SECONDS:g}s")
    group.start(), group.start()
    frozen = leading(group)
    (other,) = [one for one in group.members if one is not frozen]
    fire(other)
    if statement:
        freeze_at(group, frozen, statement)
    else:
        frozen.freeze()
    try:
        taken_over_by(other, group, frozen)
        group.wait("succeeded")
        for number in frozen_for_long():
            fire(other, f"another-{number}")
            group.wait("succeeded", count=number + 2)
            wait_until(lambda: unsealed(group) == 0, SOON, "everything to be sealed")
        seals = frozen.logs.count("audit sealed")
    finally:
        frozen.thaw()
    wait_until(lambda: frozen.get("/-/ready").is_success, PATIENCE, "it to be ready again")
    assert led_name(other) in led_by(frozen)
    fire(frozen, "after")
    group.wait("succeeded", count=number + 3)
    wait_until(lambda: unsealed(group) == 0, SOON, "everything to be sealed")
    assert seals == frozen.logs.count("audit sealed")
    verified(group)


@pytest.mark.parametrize("function", [None, "app.engine.background.lookup.Lookup._record"])
def test_look_ups_go_on_when_their_leader_freezes(
    replicas: MakeReplicas,
    sink: web.WebServer,
    start_alertmanager: Callable[..., Alertmanager],
    function: str | None,
) -> None:
    """Also with an alert in its hands that no notification told of; when it wakes it records nothing of it."""
    receiver = {"name": "us", "webhook_configs": [{"url": f"http://127.0.0.1:{free_port()}"}]}
    route = {"receiver": "us", "group_by": ["..."], "group_wait": "0s"}
    alertmanager = start_alertmanager(json.dumps({"route": route, "receivers": [receiver]}))
    connections = {"alertmanager": {"default": {"urls": [alertmanager.url], "receivers": ["us"]}}}
    group = replicas(
        poke(sink), lease=f"{LEASE_SECONDS:g}s", lookup="1s", connections=connections, log={"level": "debug"}
    )
    options = {"module": Point(function, "before", 1, "freeze").module} if function else {}
    frozen = group.start(**options)
    assert frozen is leading(group, "lookup")
    other = group.start()
    if function:
        missed(alertmanager, "in its hands")
        wait_until(lambda: stands_still(frozen), PATIENCE, "the leader to stand still")
    else:
        frozen.freeze()
        missed(alertmanager, "meanwhile")
    try:
        taken_over_by(other, group, frozen, "lookup")
        group.wait("succeeded")
        for number in frozen_for_long():
            missed(alertmanager, f"another-{number}")
            group.wait("succeeded", count=number + 2)
    finally:
        frozen.thaw()
    if function:
        wait_until(lambda: "the look-up waits" in frozen.logs, PATIENCE, "it to see that it leads no more")
    wait_until(lambda: frozen.get("/-/ready").is_success, PATIENCE, "it to be ready again")
    assert led_name(other) in led_by(frozen, "lookup")
    found, looks, others = notifications(group), lookups(frozen), lookups(other)
    wait_until(lambda: lookups(other) > others + 2, PATIENCE, "the other to look again")
    assert (found, looks) == (notifications(group), lookups(frozen))
    assert 0 == sample(frozen.get("/metrics").text, "remediator_lookup_alerts_total")
    assert asked(sink) == len(group.rows())
    verified(group)


def frozen_for_long() -> Iterator[int]:
    """Numbers, for as long as the leader is to stand still."""
    until = time.monotonic() + FROZEN_SECONDS
    for number in count():
        if number and time.monotonic() > until:
            return
        yield number


def taken_over_by(other: Service, group: Replicas, frozen: Service, matter: str = "housekeeping") -> None:
    """Wait until the other one leads, which is as soon as the lease of the frozen one is over."""
    query, ends = "SELECT holder, since, until FROM leadership WHERE matter = %s", [0]
    with psycopg.connect(group.store, autocommit=True) as connection:

        def led_since() -> int:
            holder, since, until = connection.execute(query, [matter]).fetchone() or ("", 0, 0)
            if led_name(other) in holder:
                return int(since)
            assert led_name(frozen) in holder
            ends.append(int(until))
            return 0

        since = wait_until(led_since, SOON, "the other to lead")
    assert ends[-1] <= since < ends[-1] + (A_LOOK + CUT_OFF_SECONDS) * 1e6
    assert led_name(other) in led_by(other, matter)


def missed(alertmanager: Alertmanager, pod: str) -> None:
    """An alert that no notification tells of, and that has fired for long."""
    alertmanager.push({"alertname": "Down", "pod": pod}, starts_at=datetime.now(UTC) - timedelta(hours=1))


def notifications(group: Replicas) -> int:
    """How many there are; here they are all of look-ups."""
    with psycopg.connect(group.store) as connection:
        return connection.execute("SELECT 1 FROM notification").rowcount


def lookups(service: Service) -> float:
    """How often a replica has looked."""
    return sample(service.get("/metrics").text, "remediator_lookups_total")


def freeze_at(group: Replicas, member: Service, statement: str) -> None:
    """Freeze a replica that waits for the answer to a statement on seals; the answer comes, and it goes no further."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
    with psycopg.connect(group.store) as barrier, psycopg.connect(group.store, autocommit=True) as watch:
        barrier.execute("LOCK TABLE seal IN EXCLUSIVE MODE")
        found = lambda: watch.execute(waiting, [f"{statement}%"]).fetchone()  # noqa: E731 - asked again and again
        wait_until(found, PATIENCE, "the leader to wait")
        member.freeze()


def led_name(of: Service) -> str:
    """What the name of a replica holds."""
    assert of.process
    return f"-{of.process.pid}-"
