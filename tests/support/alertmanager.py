"""A real Alertmanager on loopback, alone or gossiping with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.support.binaries import find
from tests.support.processes import Process, answers, free_port


class Alertmanager:
    """One server; `peers` are the `cluster_address`es of others that it shall join."""

    def __init__(self, home: Path, config: str, peers: Sequence[str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.cluster_address = f"127.0.0.1:{free_port()}" if peers is not None else ""
        self._home = home
        self._peers = peers or ()
        self._process: Process | None = None
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=10)
        self._config = home / "alertmanager.yml"
        self._config.write_text(config)

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        self._process = Process(
            [
                find("alertmanager"),
                f"--config.file={self._config}",
                f"--storage.path={self._home / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                f"--web.external-url={self.url}",
                *self._cluster_flags(),
            ],
            self._home / "alertmanager.log",
        )
        self._process.wait_ready(lambda: answers(self._client, "/-/ready"))

    def stop(self) -> None:
        """Stop the server."""
        if self._process:
            self._process.stop()

    def close(self) -> None:
        """Stop the server for good."""
        self.stop()
        self._client.close()

    def push(
        self,
        labels: Mapping[str, str],
        annotations: Mapping[str, str] | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
    ) -> None:
        """Send one alert, as Prometheus does; an `ends_at` in the past resolves it."""
        alert: dict[str, Any] = {"labels": dict(labels), "annotations": dict(annotations or {})}
        alert |= {"generatorURL": "http://127.0.0.1/graph"}
        alert |= {"startsAt": starts_at.isoformat()} if starts_at else {}
        alert |= {"endsAt": ends_at.isoformat()} if ends_at else {}
        self._client.post("/api/v2/alerts", json=[alert]).raise_for_status()

    def push_all(self, labels: Sequence[Mapping[str, str]]) -> None:
        """Send many alerts at once."""
        self._client.post("/api/v2/alerts", json=[{"labels": dict(one)} for one in labels]).raise_for_status()

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that it holds."""
        found: list[dict[str, Any]] = self._client.get("/api/v2/alerts").raise_for_status().json()
        return found

    def peer_count(self) -> int:
        """How many members its cluster has, itself included; 0 without a cluster."""
        cluster = self._client.get("/api/v2/status").raise_for_status().json()["cluster"]
        return len(cluster.get("peers", ()))

    def reload(self, config: str) -> None:
        """Put another configuration in force."""
        self._config.write_text(config)
        self._client.post("/-/reload").raise_for_status()

    def _cluster_flags(self) -> list[str]:
        if not self.cluster_address:
            return ["--cluster.listen-address="]
        return [
            f"--cluster.listen-address={self.cluster_address}",
            f"--cluster.advertise-address={self.cluster_address}",
            "--cluster.gossip-interval=50ms",
            "--cluster.pushpull-interval=1s",
            "--cluster.peer-timeout=1s",
            "--cluster.settle-timeout=10s",
            *(f"--cluster.peer={peer}" for peer in self._peers),
        ]


@contextmanager
def serve(home: Path, config: str, peers: Sequence[str] | None = None) -> Iterator[Alertmanager]:
    """Run an Alertmanager; without `peers` it stands alone, with an empty list it waits for others to join."""
    server = Alertmanager(home, config, peers)
    try:
        server.start()
        yield server
    finally:
        server.close()
