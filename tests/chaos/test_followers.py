"""Followers of the event stream while the server of the store crashes: each event once, and none that is gone."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from tests.chaos.conftest import PATIENCE, SOAK, MakeReplicas, Replicas, fire, stands_still
from tests.chaos.test_leaders import unsealed
from tests.chaos.test_replicas import verified
from tests.support import postgres, web
from tests.support.crashing import Point
from tests.support.entries import poke
from tests.support.followers import Follower
from tests.support.processes import wait_until

StartPostgres = Callable[..., postgres.PostgresServer]
CRASHES = 100 if SOAK else 4
PAUSE = {"why": "nothing is to be done, so nothing waits for the disk"}


def events(group: Replicas) -> list[tuple[str, str]]:
    """The place and the hash of each event that there is, in the order of the stream."""
    with psycopg.connect(group.store) as connection:
        query = "SELECT tx || '-' || id, hash FROM event ORDER BY tx, id"
        return [(str(place), str(digest)) for place, digest in connection.execute(query)]


def told(follower: Follower) -> list[tuple[str, str]]:
    """The same of what a follower was told."""
    return list(zip(follower.cursors, follower.hashes, strict=True))


def test_followers_over_crashes_of_the_server(
    replicas: MakeReplicas, start_postgres: StartPostgres, sink: web.WebServer
) -> None:
    """It crashes as soon as events can be seen, or as soon as one of them was told; all followers stay connected."""
    server = start_postgres()
    group = replicas(poke(sink), store=server.url, recheck="1s")
    group.start(), group.start()
    followers = [Follower(member) for member in group.members for _ in range(2)]
    assert group.members[0].ask("PUT", "/pause", json=PAUSE).is_success
    for number in range(CRASHES):
        server.hold_writer()
        before = len(events(group))
        sender, pod = group.members[number % 2], f"pod-{number}"
        wait_until(lambda: fire(sender, pod) == 202, PATIENCE, "the notification to be taken")  # noqa: B023
        if number % 2:
            wait_until(lambda: len(events(group)) > before, PATIENCE, "events to be there")  # noqa: B023
        else:
            wait_until(lambda: any(len(one.told) > before for one in followers), PATIENCE, "one to be told")  # noqa: B023
        server.crash()
        server.start()
        for member in group.members:
            wait_until(lambda: member.get("/-/ready").is_success, PATIENCE, "the replica to be ready")  # noqa: B023
    group.wait("deferred", count=CRASHES)
    assert group.members[1].ask("DELETE", "/pause").is_success
    group.wait("succeeded", count=CRASHES)
    wait_until(lambda: all(len(one.told) >= len(events(group)) for one in followers), PATIENCE, "all to be told")
    late = Follower(group.members[0], followers[0].cursors[len(events(group)) // 2])
    wait_until(lambda: late.told and late.cursors[-1] == followers[0].cursors[-1], PATIENCE, "the late one to be told")
    there = events(group)
    for follower in followers:
        assert there == told(follower)
    assert there[-len(late.told) :] == told(late)
    verified(group)


def test_events_of_before_the_crash_are_not_told_after_it(
    replicas: MakeReplicas, start_postgres: StartPostgres, sink: web.WebServer
) -> None:
    """They were read, and the replica stood still before it told them; the server that it finds then is another one."""
    server = start_postgres()
    group = replicas(poke(sink), store=server.url, recheck="1s", lease="1h")
    first = group.start()
    assert first.ask("PUT", "/pause", json=PAUSE).is_success
    reads = Point("app.store.db.database.Database.on_disk", "before", 3, "freeze")
    standing = group.start(module=reads.module)
    follower = Follower(standing)
    wait_until(lambda: follower.told, PATIENCE, "the pause to be told")
    server.hold_writer()
    wait_until(lambda: unsealed(group) == 0, PATIENCE, "a seal")  # the next one, which has all on the disk, is far
    assert 202 == fire(first)
    wait_until(lambda: stands_still(standing), PATIENCE, "the replica to stand still")
    read = {place for place, _ in events(group)}
    server.crash()
    server.start()
    lost = read - {place for place, _ in events(group)}
    standing.thaw()
    group.wait("deferred")
    wait_until(lambda: len(follower.told) >= len(events(group)), PATIENCE, "everything to be told")
    assert events(group) == told(follower)
    assert lost, "the crash took nothing"
    verified(group)
