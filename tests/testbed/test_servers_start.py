"""The servers of the test bed start, answer and are isolated between tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import redis

from tests.support.alertmanager import Alertmanager
from tests.support.docker import DockerEngine, with_libraries
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until
from tests.support.prometheus import Prometheus
from tests.support.redis import RedisServer

NOWHERE = """
route: {receiver: nowhere, group_wait: 1s, group_interval: 1s}
receivers: [{name: nowhere}]
"""


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_database(postgres_database: str, turn: int) -> None:
    """What one test writes into its database is not there for the next."""
    with psycopg.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE written AS SELECT 1 AS one")
        assert connection.execute("SELECT one FROM written").fetchall() == [(1,)], turn


def test_a_private_postgres_can_go_down_and_come_back(start_postgres: Callable[..., PostgresServer]) -> None:
    """An outage refuses connections and loses no data."""
    server = start_postgres({"max_connections": "20"})
    server.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    server.stop()
    with pytest.raises(psycopg.OperationalError):
        server.execute("SELECT 1")
    server.start()
    assert server.execute("SELECT seven FROM kept") == [(7,)]
    assert server.execute("SHOW max_connections") == [("20",)]


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_redis(redis_server: RedisServer, turn: int) -> None:
    """What one test writes into any database is not there for the next."""
    with redis_server.client(database=3) as client:
        assert client.dbsize() == 0, turn
        client.set("written", "1")


def test_a_private_redis_has_its_own_limits(start_redis: Callable[..., RedisServer]) -> None:
    """A server that is full refuses writes, which is what redis remediations are for."""
    server = start_redis({"maxmemory": "2mb", "maxmemory-policy": "noeviction"})
    with server.client() as client, pytest.raises(redis.exceptions.OutOfMemoryError):
        _write_ten_megabytes(client)


def test_alertmanager_takes_and_resolves_alerts(start_alertmanager: Callable[..., Alertmanager]) -> None:
    """A pushed alert is held while it fires and gone once it has ended."""
    server = start_alertmanager(NOWHERE)
    now = datetime.now(UTC)
    server.push({"alertname": "Down"}, {"summary": "it is down"}, now - timedelta(minutes=1))
    assert [alert["labels"] for alert in server.alerts()] == [{"alertname": "Down"}]
    server.push({"alertname": "Down"}, starts_at=now - timedelta(minutes=1), ends_at=now - timedelta(seconds=1))
    wait_until(lambda: server.alerts() == [], 10, "the alert to be resolved")


def test_two_alertmanagers_form_a_pair(start_alertmanager: Callable[..., Alertmanager]) -> None:
    """The second joins the first by gossip on loopback."""
    first = start_alertmanager(NOWHERE, peers=[])
    second = start_alertmanager(NOWHERE, peers=[first.cluster_address])
    for server in (first, second):
        wait_until(lambda: server.peer_count() == 2, 15, "the pair to be complete")  # noqa: B023 - called at once


def test_prometheus_scrapes_and_evaluates_rules(start_prometheus: Callable[..., Prometheus]) -> None:
    """A rule over a target that does not answer fires."""
    config = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
  - job_name: absent
    static_configs: [{targets: ["127.0.0.1:1"]}]
"""
    rules = "groups: [{name: bed, rules: [{alert: Down, expr: up == 0}]}]"
    server = start_prometheus(config, {"rules.yml": rules})
    wait_until(lambda: server.query('up{job="absent"}'), 15, "a first scrape")
    wait_until(lambda: [a for a in server.alerts() if a["state"] == "firing"], 15, "the alert to fire")


def test_docker_builds_and_runs_an_image_without_a_registry(docker_engine: DockerEngine, tmp_path: Path) -> None:
    """An image imported from files of this machine is the base of one that is built, and runs."""
    docker_engine.import_image("bed/base:1", with_libraries("/bin/sh"))
    (tmp_path / "Dockerfile").write_text(
        'FROM bed/base:1\nENV GREETING=hello\nCMD ["/bin/sh", "-c", "echo $GREETING"]\n'
    )
    docker_engine.run("build", "--network=none", "--tag=bed/greeter:1", str(tmp_path))
    assert docker_engine.run("run", "--rm", "--network=none", "bed/greeter:1").stdout == "hello\n"


def _write_ten_megabytes(client: redis.Redis) -> None:
    for number in range(100):
        client.set(f"key:{number}", "x" * 100_000)
