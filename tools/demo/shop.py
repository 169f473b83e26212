"""A small shop on real servers, its trouble, and the metrics that Prometheus sees of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from wsgiref.simple_server import WSGIRequestHandler, make_server

import psycopg
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer

IDLE_SESSIONS = 40
PAGE = "x" * 10_000
PAGES = 1500


class Shop:
    """Its database and its cache."""

    def __init__(self, postgres: PostgresServer, redis: RedisServer, stack: ExitStack) -> None:
        self.postgres = postgres
        self.redis = redis
        self._stack = stack
        postgres.execute("CREATE DATABASE shop")
        postgres.execute("CREATE ROLE shop LOGIN")
        postgres.execute("CREATE ROLE remediator LOGIN IN ROLE pg_signal_backend, pg_read_all_stats")

    def leak_connections(self) -> int:
        """Open sessions that nobody closes, as a pool that leaks does."""
        for number in range(IDLE_SESSIONS):
            url = self.postgres.database_url("shop", "shop")
            self._stack.callback(psycopg.connect(url, application_name=f"shop-web-{number % 4}", autocommit=True).close)
        return self.connections()

    def fill_cache(self) -> float:
        """Fill the cache with pages, among them a session that must survive."""
        with self.redis.client() as client:
            client.set("session:alice", "basket")
            with client.pipeline(transaction=False) as pipeline:
                for number in range(PAGES):
                    pipeline.set(f"cache:page:{number}", PAGE)
                pipeline.execute()
        return self.memory_ratio()

    def connections(self) -> int:
        """How many sessions the shop's database has."""
        return int(self.postgres.execute("SELECT numbackends FROM pg_stat_database WHERE datname = 'shop'")[0][0])

    def memory(self) -> tuple[int, int]:
        """Bytes used by Redis, and the most that it may use."""
        with self.redis.client() as client:
            info = client.info("memory")
        return int(info["used_memory"]), int(info["maxmemory"])

    def memory_ratio(self) -> float:
        """The share of its memory that Redis uses."""
        used, most = self.memory()
        return used / most


class _ShopCollector(Collector):
    """The series of postgres_exporter and redis_exporter that the demo's rules read."""

    def __init__(self, shop: Shop, api_healthy: Callable[[], bool] | None) -> None:
        self._shop = shop
        self._api_healthy = api_healthy

    def collect(self) -> Iterator[Metric]:
        """Look at the servers now."""
        backends = GaugeMetricFamily("pg_stat_database_numbackends", "Sessions.", labels=["datname"])
        backends.add_metric(["shop"], self._shop.connections())
        yield backends
        used, most = self._shop.memory()
        yield GaugeMetricFamily("redis_memory_used_bytes", "Memory in use.", value=used)
        yield GaugeMetricFamily("redis_memory_max_bytes", "Memory allowed.", value=most)
        if self._api_healthy is not None:
            yield GaugeMetricFamily("shop_api_healthy", "Whether the API answers.", value=float(self._api_healthy()))


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Scrapes are no news."""


@contextmanager
def exporter(shop: Shop, api_healthy: Callable[[], bool] | None) -> Iterator[str]:
    """Serve the shop's metrics on loopback; yields host:port."""
    registry = CollectorRegistry()
    registry.register(_ShopCollector(shop, api_healthy))
    server = make_server("127.0.0.1", 0, make_wsgi_app(registry), handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
