"""What one replica does for all goes on when that replica freezes, at whichever statement."""

from __future__ import annotations

import psycopg
import pytest

from tests.chaos.conftest import PATIENCE, MakeReplicas, Replicas, fire
from tests.chaos.test_replicas import verified
from tests.support import web
from tests.support.entries import poke
from tests.support.processes import wait_until
from tests.support.service import Service

LEASE_SECONDS = 3.0
SOON = 30.0  # a lease, the looks of a follower, ten seconds between two seals, and a busy machine


def led_by(asked: Service, matter: str = "housekeeping") -> str:
    """The name of the replica that leads, as a replica tells it."""
    lines = dict(line.split(": ", 1) for line in asked.get("/-/ready").text.splitlines() if ": " in line)
    return lines.get(matter, "").partition("led by ")[2].partition(" until ")[0]


def leading(group: Replicas) -> Service:
    """The replica that leads in housekeeping."""
    name = led_by(group.members[0])
    (found,) = [one for one in group.members if one.process and f"-{one.process.pid}-" in name]
    return found


def unsealed(group: Replicas) -> int:
    """How many events have no seal."""
    with psycopg.connect(group.store) as connection:
        query = "SELECT count(*) FROM event WHERE id > (SELECT coalesce(max(to_id), 0) FROM seal)"
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("statement", [None, "INSERT INTO seal"])
def test_seals_go_on_when_their_leader_freezes(
    replicas: MakeReplicas, sink: web.WebServer, statement: str | None
) -> None:
    """Also in the midst of a seal, whose lock it holds; when it wakes it seals nothing beside the new leader."""
    group = replicas(poke(sink), lease=f"{LEASE_SECONDS:g}s")
    group.start(), group.start()
    wait_until(lambda: led_by(group.members[0]), PATIENCE, "a replica to lead")
    frozen = leading(group)
    (other,) = [one for one in group.members if one is not frozen]
    fire(other)
    if statement:
        freeze_at(group, frozen, statement)
    else:
        frozen.freeze()
    try:
        group.wait("succeeded")
        wait_until(lambda: led_by(other) and led_name(frozen) not in led_by(other), SOON, "the other to lead")
        fire(other, "another")
        wait_until(lambda: unsealed(group) == 0, SOON, "everything to be sealed")
    finally:
        frozen.thaw()
    wait_until(lambda: frozen.get("/-/ready").is_success, PATIENCE, "it to be ready again")
    assert led_name(other) in led_by(frozen)
    verified(group)


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
