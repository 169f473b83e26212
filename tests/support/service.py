"""The service itself as a process, as its users run it: `python -m app serve` on a free port."""

from __future__ import annotations

import os
import signal
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.processes import Process, answers, free_port


@dataclass(frozen=True)
class ServiceOptions:
    """What the service is started with; what is left out is left to its own defaults."""

    data: Path
    store: str | None = None
    catalog: Sequence[Path] = ()
    config: Path | None = None
    arguments: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None  # how to reach it, where its configuration has certificates
    host: str = "127.0.0.1"
    within: Sequence[str] = ()  # what the command line begins with: what runs it in a network of its own
    token: str = ""  # what it is asked with
    module: Sequence[str] = (sys.executable, "-m", "app")

    def command(self, port: int) -> list[str]:
        """The command line on this port."""
        words = [*self.within, *self.module, "serve"]
        words += ["--listen", f"{self.host}:{port}", "--data", str(self.data)]
        words += ["--store", self.store] if self.store else []
        words += [word for path in self.catalog for word in ("--catalog", str(path))]
        words += ["--config", str(self.config)] if self.config else []
        return [*words, *self.arguments]


class Service:
    """One replica; it keeps its port and its options over restarts."""

    def __init__(self, home: Path, options: ServiceOptions) -> None:
        self.port = free_port()
        self.url = f"{'https' if options.tls else 'http'}://{options.host}:{self.port}"
        self.log = home / f"service-{self.port}.log"
        self.options = options
        self.process: Process | None = None
        headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
        verify = options.tls or True
        self._client = httpx.Client(base_url=self.url, verify=verify, headers=headers, trust_env=False, timeout=30)

    def start(self) -> None:
        """Start the process and wait until it says that it is ready."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("REMEDIATOR_")}
        environment = {**inherited, "PYTHONUNBUFFERED": "1", **self.options.env}
        self.process = Process(self.options.command(self.port), self.log, env=environment)
        self.process.wait_ready(lambda: answers(self._client, "/-/ready"))

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        if self.process:
            self.process.stop(timeout=30)

    def kill9(self) -> None:
        """End the process as a crash does."""
        assert self.process, "the service is not started"
        self.process.kill()

    def restart(self) -> None:
        """Stop it if it still runs, and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop it where it is, as a paused machine or an overloaded host does."""
        assert self.process, "the service is not started"
        self.process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process, "the service is not started"
        self.process.send(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask the process to end, and do not wait for it."""
        assert self.process, "the service is not started"
        self.process.send(signal.SIGTERM)

    def hangup(self) -> None:
        """Send SIGHUP, which asks for a reload."""
        assert self.process, "the service is not started"
        self.process.send(signal.SIGHUP)

    def close(self) -> None:
        """Stop the process for good."""
        self.stop()
        self._client.close()

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        """Send a GET; arguments as of httpx."""
        return self._client.get(path, **arguments)

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """Send a POST; arguments as of httpx."""
        return self._client.post(path, **arguments)

    def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send any other request; arguments as of httpx."""
        return self._client.request(method, path, **arguments)

    @property
    def logs(self) -> str:
        """Everything that it has logged, over all its starts."""
        return self.log.read_text(errors="replace")


@contextmanager
def serve(home: Path, options: ServiceOptions) -> Iterator[Service]:
    """Run one replica of the service."""
    service = Service(home, options)
    try:
        service.start()
        yield service
    finally:
        service.close()
