"""People decide on one replica while another one takes in the end of the same alerts: nobody is refused for that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import make_url

from tests.chaos.conftest import PATIENCE, MakeReplicas, fire
from tests.support import slow, web
from tests.support.entries import asked, poke
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until

COUNT = 40
FINAL = {"succeeded", "failed", "denied", "cancelled", "expired", "interrupted"}


@pytest.fixture
def far(postgres_server: PostgresServer, postgres_database: str) -> Iterator[str]:
    """The URL of a store that is two milliseconds away, one in each direction."""
    with slow.slowed(postgres_server.host, postgres_server.port, 0.001) as port:
        yield make_url(postgres_database).set(port=port).render_as_string(hide_password=False)


def deadlocks(server: PostgresServer, database: str) -> int:
    """How many the server has broken up in a database."""
    name = make_url(database).database
    return int(server.execute(f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'")[0][0])


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_people_decide_while_the_alerts_end(  # noqa: PLR0917 - pytest's
    far: str,
    replicas: MakeReplicas,
    sink: web.WebServer,
    postgres_server: PostgresServer,
    postgres_database: str,
    verb: str,
) -> None:
    """Forty words at one replica, forty ends at the other: every word has its answer, and every run one end."""
    group = replicas(
        poke(sink, mode="approve", limits={"cooldown": "0s", "rate": "1000/1h", "storm": "1000/10m"}), store=far
    )
    one, other = group.start(), group.start()
    pods = [str(number) for number in range(COUNT)]
    assert 202 == fire(one, *pods)
    group.wait("awaiting_approval", count=COUNT)
    ids = [run for (run,) in group.rows("id")]

    def say(run: str) -> int:
        return one.post(f"/remediations/{run}/{verb}").status_code

    def end(pod: str) -> int:
        return fire(other, pod, status="resolved")

    with ThreadPoolExecutor(2 * COUNT) as pool:
        said, ended = [pool.submit(say, run) for run in ids], [pool.submit(end, pod) for pod in reversed(pods)]
        answers = [future.result() for future in said]
        assert {202} == {future.result() for future in ended}
    assert {200, 409} >= set(answers), answers
    wait_until(lambda: {state for (state,) in group.rows("state")} <= FINAL, PATIENCE, "all runs to end")
    assert 0 == deadlocks(postgres_server, postgres_database)
    outcomes = dict(group.rows("id, state"))
    for run, answer in zip(ids, answers, strict=True):
        if answer == 409:
            assert outcomes[run] == "cancelled"
        elif verb == "reject":
            assert outcomes[run] == "denied"
    assert asked(sink) == sum(state == "succeeded" for state in outcomes.values())
    for service in (one, other):
        assert not re.search("store is away", service.logs)
