"""A real Prometheus on loopback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.binaries import find
from tests.support.processes import Process, answers, free_port


class Prometheus:
    """One server; its rule files lie beside its configuration, which names them."""

    def __init__(self, home: Path, config: str, rules: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self._process: Process | None = None
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=10)
        self._config = home / "prometheus.yml"
        self._config.write_text(config)
        for name, text in rules.items():
            (home / name).write_text(text)

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        self._process = Process(
            [
                find("prometheus"),
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._home / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--web.enable-lifecycle",
            ],
            self._home / "prometheus.log",
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

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: series with `metric` and `value`."""
        data = self._get("/api/v1/query", query=expression)
        result: list[dict[str, Any]] = data["result"]
        return result

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that its rules have made active, pending or firing."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts")["alerts"]
        return found

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        data: dict[str, Any] = self._client.get(path, params=params).raise_for_status().json()["data"]
        return data


@contextmanager
def serve(home: Path, config: str, rules: Mapping[str, str] | None = None) -> Iterator[Prometheus]:
    """Run a Prometheus with a configuration and rule files by name."""
    server = Prometheus(home, config, rules or {})
    try:
        server.start()
        yield server
    finally:
        server.close()
