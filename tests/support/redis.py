"""A real Redis server on loopback that keeps nothing on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.support.binaries import find
from tests.support.processes import Process, free_port, wait_until

EMPTY = '""'
SETTINGS = {"bind": "127.0.0.1", "save": "", "appendonly": "no"}


class RedisServer:
    """One server; `stop` and `start` make an outage, which also empties it."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self._home = home
        self._settings = {**SETTINGS, **settings}
        if "cluster-enabled" in settings:
            self._settings["cluster-port"] = str(free_port())
        self._arguments: tuple[str, ...] = ()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return self.database_url(0)

    def database_url(self, number: int) -> str:
        """The URL of one numbered database."""
        return f"redis://{self.host}:{self.port}/{number}"

    def client(self, database: int = 0) -> redis.Redis:
        """A client for the test's own use, which the test closes (`with server.client() as client`)."""
        return redis.Redis(host=self.host, port=self.port, db=database, decode_responses=True)

    def flush(self) -> None:
        """Empty every database."""
        with self.client() as client:
            client.flushall()

    def start(self) -> None:
        """Start the server on its port and wait until it answers."""
        settings = {**self._settings, "port": str(self.port), "dir": str(self._home)}
        file = self._home / "redis.conf"
        file.write_text("".join(f"{key} {value or EMPTY}\n" for key, value in settings.items()))
        self._process = Process([find("redis-server"), file, *self._arguments], self._home / "redis.log")
        self._process.wait_ready(self._answers)

    def watch(self, primary: RedisServer) -> None:
        """Start it as a Sentinel of this primary."""
        self._settings = {"bind": self.host, "sentinel monitor": f"shop {primary.host} {primary.port} 1"}
        self._arguments = ("--sentinel",)
        self.start()

    def form_cluster(self) -> None:
        """Have a server with `cluster-enabled` hold every slot, and wait until it takes keys."""
        with self.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: "'ok'" in str(client.execute_command("CLUSTER INFO")), 10, "a cluster")

    @property
    def pid(self) -> int | None:
        """The process's id while it is started."""
        return self._process.pid if self._process else None

    def stop(self) -> None:
        """Stop the server; its clients are cut off."""
        if self._process:
            self._process.stop()

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


@contextmanager
def sentinel(home: Path, primary: RedisServer) -> Iterator[RedisServer]:
    """Run a Sentinel that watches this server."""
    server = RedisServer(home, {})
    try:
        server.watch(primary)
        yield server
    finally:
        server.stop()


@contextmanager
def serve(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[RedisServer]:
    """Run a server with these settings (`maxmemory`, `maxmemory-policy`, ...) on top of the test bed's own."""
    server = RedisServer(home, settings or {})
    try:
        server.start()
        yield server
    finally:
        server.stop()
