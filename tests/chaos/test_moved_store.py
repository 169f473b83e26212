"""The store is dumped and restored into another server, which has counted fewer transactions than the one before."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.chaos.conftest import PATIENCE, MakeReplicas, Replicas, fire
from tests.chaos.test_leaders import SOON, unsealed
from tests.chaos.test_replicas import post, verified
from tests.chaos.test_stopping import stays
from tests.support import postgres, web
from tests.support.entries import asked, poke, request
from tests.support.followers import Follower
from tests.support.processes import wait_until

StartPostgres = Callable[..., postgres.PostgresServer]
COUNTED = 20_000  # transactions, by the server that the store comes from


def of(*pods: str) -> list[str]:
    """Matchers of the alerts of these pods."""
    return ['alertname="Down"', f'pod=~"{"|".join(pods)}"']


def states(group: Replicas) -> dict[str, tuple[str, ...]]:
    """What each remediation's runs have come to, oldest first."""
    found: dict[str, tuple[str, ...]] = {}
    for name, state in group.rows("remediation, state"):
        found[name] = (*found.get(name, ()), state)
    return found


def sealed(group: Replicas) -> int:
    """How many seals there are."""
    with psycopg.connect(group.store) as connection:
        return connection.execute("SELECT 1 FROM seal").rowcount


@pytest.fixture
def before(start_postgres: StartPostgres) -> postgres.PostgresServer:
    """A server that has counted many transactions."""
    server = start_postgres()
    server.count_on(COUNTED)
    return server


def test_a_restored_dump_under_observe(
    replicas: MakeReplicas, before: postgres.PostgresServer, start_postgres: StartPostgres, sink: web.WebServer
) -> None:
    """What the dump shows in the middle has gone on since: nothing is called, and the audit goes on where it stood."""
    steps = [request(sink, f"/{number}", method="POST") for number in (1, 2, 3)]
    group = replicas(
        poke(sink, name="acts", matchers=of("acts"), steps=steps),
        poke(sink, name="repeats", matchers=of("repeats"), steps=[request(sink, "/repeats")]),
        poke(sink, name="asks", matchers=of("asks"), mode="approve"),
        poke(sink, name="waits", matchers=of("first", "second"), limits={"cooldown": "0s", "rate": "1/1h"}),
        store=before.url,
        lease="3s",
        recheck="1s",
    )
    group.start(), group.start()
    fire(group.members[0], "first")
    group.wait("succeeded")
    fire(group.members[1], "second", "asks")
    waiting = {"waits": ("succeeded", "deferred"), "asks": ("awaiting_approval",)}
    wait_until(lambda: states(group) == waiting, PATIENCE, "both to wait")
    wait_until(lambda: unsealed(group) == 0 and sealed(group), PATIENCE, "everything to be sealed")
    sink.answering.clear()
    fire(group.members[0], "acts", "repeats")
    wait_until(lambda: asked(sink, "/1") and asked(sink, "/repeats"), PATIENCE, "the steps to be called")
    assert states(group) == waiting | {"acts": ("running",), "repeats": ("running",)}
    dump = before.dump()
    sink.answering.set()
    wait_until(lambda: states(group)["acts"] == states(group)["repeats"] == ("succeeded",), PATIENCE, "both to end")
    for member in group.members:
        member.stop()

    after = start_postgres()
    after.restore(dump)
    group.store, group.settings = after.url, {**group.settings, "mode": "observe"}
    there = sealed(group)
    one, other = group.start(), group.start()
    follower = Follower(other)
    assert 202 == fire(one, "first", "second", "asks", "acts", "repeats")
    wait_until(lambda: {"interrupted", "awaiting_approval"} >= {*states(group)["acts"]}, SOON, "the run to stand still")
    wait_until(lambda: {*states(group)["repeats"]} == {"awaiting_approval"}, SOON, "the run to wait for a person")
    called = len(sink.requests)
    stays(sink, 1, 1, 1)
    assert called == len(sink.requests) == 5  # three steps, what may be repeated, and the first of those that wait
    assert {"acts": 1, "repeats": 1, "asks": 1, "waits": 2} == {name: len(runs) for name, runs in states(group).items()}
    fire(other, "asks", "new")
    wait_until(lambda: unsealed(group) == 0 and sealed(group) > there, SOON, "everything to be sealed")
    wait_until(lambda: len(follower.told) >= _events(group), PATIENCE, "everything to be told")
    assert len({*follower.cursors}) == len(follower.told) == _events(group)
    verified(group)


def test_a_server_is_replaced_under_living_replicas(
    replicas: MakeReplicas, before: postgres.PostgresServer, start_postgres: StartPostgres, sink: web.WebServer
) -> None:
    """In a pause: they go on at the new server, say that the store was moved, and followers miss nothing."""
    group = replicas(poke(sink, steps=[post(sink)]), store=before.url, lease="3s", recheck="1s")
    one, other = group.start(), group.start()
    follower = Follower(other)
    fire(one, "done")
    group.wait("succeeded")
    wait_until(lambda: unsealed(group) == 0 and sealed(group), PATIENCE, "everything to be sealed")
    assert one.ask("PUT", "/pause", json={"why": "the store is moved"}).is_success
    fire(other, "waits")
    wait_until(lambda: states(group) == {"poke": ("succeeded", "deferred")}, PATIENCE, "the run to wait")
    wait_until(lambda: len(follower.told) == _events(group), PATIENCE, "everything to be told")
    first_told = len(follower.told) - 2
    after = start_postgres()
    after.restore(before.dump())
    after.take_place_of(before)
    for member in group.members:
        wait_until(lambda: member.get("/-/ready").is_success, PATIENCE, "the replica to be ready")  # noqa: B023
    there = sealed(group)
    # A replica may still have connections to the server that is gone.
    wait_until(lambda: fire(one, "done", "waits", "new") == 202, PATIENCE, "the notification to be taken")
    wait_until(lambda: other.ask("DELETE", "/pause").is_success, PATIENCE, "the pause to end")
    group.wait("succeeded", count=3)
    wait_until(lambda: unsealed(group) == 0 and sealed(group) > there, SOON, "everything to be sealed")
    wait_until(lambda: len(follower.told) >= _events(group), PATIENCE, "everything to be told")
    assert _hashes(group) == sorted(follower.hashes)
    place = follower.cursors[first_told]
    after.count_on(2 * COUNTED)  # until a transaction there has the number of the place
    fire(one, "later")
    group.wait("succeeded", count=4)
    late = Follower(one, place)
    wait_until(lambda: len(late.told) >= _events(group) - 1 - first_told, PATIENCE, "the late one to be told")
    assert _hashes(group) == sorted([*late.hashes, *follower.hashes[: first_told + 1]])
    assert 4 == asked(sink)
    assert any("the store was moved" in member.logs for member in group.members)
    verified(group)


def _events(group: Replicas) -> int:
    return len(_hashes(group))


def _hashes(group: Replicas) -> list[str]:
    with psycopg.connect(group.store) as connection:
        return sorted(str(digest) for (digest,) in connection.execute("SELECT hash FROM event"))
