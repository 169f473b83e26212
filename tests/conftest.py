"""Fixtures of the test bed and what happens around every test; the servers themselves are in tests/support.

A session has one of each server, started when a test first asks for it; a test gets its own part of it (a database, a
namespace, an emptied Redis). The `start_...` fixtures run servers of the test's own, to be stopped or misconfigured.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.domain.redaction import SECRETS, Secrets
from tests.support import alertmanager, apiserver, docker, postgres, prometheus, redis, service
from tests.support.cluster import Cluster
from tests.support.processes import Process

LOG_LIMIT = 20_000

NewDirectory = Callable[[str], Path]
StartAlertmanager = Callable[..., alertmanager.Alertmanager]
StartPostgres = Callable[..., postgres.PostgresServer]
StartPrometheus = Callable[..., prometheus.Prometheus]
StartRedis = Callable[..., redis.RedisServer]
StartService = Callable[..., service.Service]

_SHARED = {"cluster": "cluster", "docker": "docker_engine"}  # a group of tests, and the fixture that they share
_SERVERS = {"postgres_server", "_redis_of_session", "cluster", "docker_engine", "start_postgres", "start_redis"}
_SERVERS |= {"start_alertmanager", "start_prometheus", "start_service"}
_LOG_SIZES = pytest.StashKey[dict[Path, int]]()


def pytest_configure() -> None:
    """Let SIGTERM end the run as Ctrl-C does, so that fixtures still end their processes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell the workers which tests belong together, and let the longest begin first.

    The tests of a module share its servers. A session has one cluster and one Docker engine, so one worker gets all of
    their tests.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
        if _SERVERS & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.server)
    items.sort(key=_rank)


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("long"):
        return item.nodeid
    fixtures = getattr(item, "fixturenames", ())
    return next((name for name, fixture in _SHARED.items() if fixture in fixtures), item.nodeid.partition("::")[0])


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("long"):
        return 0
    if _group(item) in _SHARED:
        return 1
    return 3 if "unit" in item.path.parts else 2


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember how far the servers' logs had got before the test."""
    item.stash[_LOG_SIZES] = {process.log: process.log.stat().st_size for process in Process.live}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers logged during a test that failed, and only then."""
    report = yield
    if report.failed:
        for process in Process.live:
            with process.log.open("rb") as log:
                log.seek(item.stash.get(_LOG_SIZES, {}).get(process.log, 0))
                text = log.read().decode(errors="replace")
            report.sections.append((f"log of {process.name} {process.pid}", text[-LOG_LIMIT:]))
    return report


@pytest.fixture(autouse=True)
def _secrets_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide no word of a message because another test of this process had it for a secret."""
    for name, value in vars(Secrets()).items():
        monkeypatch.setattr(SECRETS, name, value)


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Ends what a test has started, last first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def new_directory(tmp_path_factory: pytest.TempPathFactory) -> NewDirectory:
    """Makes directories of the test's own, each call another one."""
    return tmp_path_factory.mktemp


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    """The session's PostgreSQL server; never stop it, use `start_postgres` for an outage."""
    with postgres.serve() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: postgres.PostgresServer) -> Iterator[str]:
    """The libpq URL of an empty database that belongs to this test."""
    with postgres_server.database() as name:
        yield postgres_server.database_url(name)


@pytest.fixture
def start_postgres(processes: ExitStack) -> StartPostgres:
    """Starts a PostgreSQL of the test's own: `start_postgres({"max_connections": "20"})`."""

    def start(settings: Mapping[str, str] | None = None) -> postgres.PostgresServer:
        return processes.enter_context(postgres.serve(settings))

    return start


@pytest.fixture(scope="session")
def _redis_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.RedisServer]:
    with redis.serve(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(_redis_of_session: redis.RedisServer) -> redis.RedisServer:
    """The session's Redis server, emptied for this test; never stop it, use `start_redis` for an outage."""
    _redis_of_session.flush()
    return _redis_of_session


@pytest.fixture
def start_redis(processes: ExitStack, new_directory: NewDirectory) -> StartRedis:
    """Starts a Redis of the test's own: `start_redis({"maxmemory": "8mb"})`."""

    def start(settings: Mapping[str, str] | None = None) -> redis.RedisServer:
        return processes.enter_context(redis.serve(new_directory("redis"), settings))

    return start


@pytest.fixture
def start_alertmanager(processes: ExitStack, new_directory: NewDirectory) -> StartAlertmanager:
    """Starts an Alertmanager: `start_alertmanager(config)`.

    For a pair, the first is started with `peers=[]` and the second with `peers=[first.cluster_address]`.
    """

    def start(config: str, peers: Sequence[str] | None = None) -> alertmanager.Alertmanager:
        return processes.enter_context(alertmanager.serve(new_directory("alertmanager"), config, peers))

    return start


@pytest.fixture
def start_prometheus(processes: ExitStack, new_directory: NewDirectory) -> StartPrometheus:
    """Starts a Prometheus: `start_prometheus(config, {"rules.yml": rules})`, where the config names `rules.yml`."""

    def start(config: str, rules: Mapping[str, str] | None = None) -> prometheus.Prometheus:
        return processes.enter_context(prometheus.serve(new_directory("prometheus"), config, rules))

    return start


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The session's Kubernetes cluster, as its administrator."""
    with apiserver.serve(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a Kubernetes namespace that belongs to this test."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[docker.DockerEngine]:
    """The session's Docker engine."""
    with docker.serve() as engine:
        yield engine


@pytest.fixture
def start_service(processes: ExitStack, new_directory: NewDirectory) -> StartService:
    """Starts a replica of the service: `start_service(store=url, catalog=[path])`; its `data` is new unless given."""

    def start(*, data: Path | None = None, **options: Any) -> service.Service:
        home = new_directory("service")
        chosen = service.ServiceOptions(data=data or home / "data", **options)
        return processes.enter_context(service.serve(home, chosen))

    return start
