"""Starts what is measured, and measures what a process uses."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import yaml

from tests.support import postgres
from tests.support.processes import Process, answers, free_port, wait_until
from tests.support.service import Service, ServiceOptions, serve
from tools.bench.load import Load, Sent, post

PATIENCE = 600.0
ASKING = 0.5  # seconds between two questions to a service; each costs what is measured
MEBIBYTE = 2**20
# What a crowd of alerts must not run into unless a case is about it.
AMPLE = {
    "rate": "1000000/1h",
    "storm": "1000000/10m",
    "concurrency": 1000,
    "preflight": "0s",
    "scope": {"http": {"hosts": ["127.0.0.1"]}},
    "log": {"level": "warning", "format": "json"},
}
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}  # as an installed package is; the first start compiles
LIMITS = {"cooldown": "0s", "rate": "1000000/1h", "storm": "1000000/10m"}


@dataclass
class Bench:
    """Where things are, how often to alternate, and by how much the loads are made smaller."""

    home: Path
    rounds: int = 3
    scale: float = 1.0
    numbers: dict[str, int] = field(default_factory=dict)

    def count(self, number: int) -> int:
        """This many, or fewer in a small run."""
        return max(2, round(number * self.scale))

    def directory(self, name: str) -> Path:
        """A new directory."""
        number = self.numbers[name] = self.numbers.get(name, 0) + 1
        made = self.home / f"{name}-{number}"
        made.mkdir()
        return made


def remediation(alertname: str, url: str = "", **fields: Any) -> dict[str, Any]:
    """One for this alert; it sends a request to `url`, or to nobody."""
    target = url or "http://127.0.0.1:9/nobody"
    made = {
        "name": alertname.lower(),
        "summary": "Measured.",
        "matchers": [f'alertname="{alertname}"'],
        "mode": "auto",
        "limits": LIMITS,
        "steps": [{"action": "http.request", "with": {"url": target, "method": "PUT"}}],
    }
    return made | fields


def unmatched(count: int) -> list[dict[str, Any]]:
    """So many remediations that each match another alert than those that are sent."""
    return [
        remediation(f"other-{number}", matchers=[f'alertname="Other{number}"', 'team="platform"'])
        for number in range(count)
    ]


@contextmanager
def ours(
    bench: Bench,
    entries: Sequence[Mapping[str, Any]] = (),
    *,
    store: str | None = None,
    without: str = "",
    **settings: Any,
) -> Iterator[Service]:
    """The service with a catalog; `without` names one of its loops that is left out."""
    home = bench.directory("service")
    catalog, config = home / "catalog.yaml", home / "config.yaml"
    catalog.write_text(yaml.safe_dump({"remediations": list(entries)}))
    config.write_text(json.dumps(AMPLE | settings))
    module = [sys.executable, "-m", *(["tools.bench.paused", without] if without else ["tools.bench.plain"])]
    options = ServiceOptions(home / "data", store=store, catalog=[catalog], config=config, module=module, env=COMPILED)
    with serve(home, options) as service:
        yield service


@contextmanager
def receiver(bench: Bench, name: str, store: str = "") -> Iterator[str]:
    """One of the receivers to measure beside; yields its URL."""
    home, port = bench.directory(name), free_port()
    words = [sys.executable, "-m", "uvicorn", "--factory", f"tools.bench.receivers:{name}", "--port", str(port)]
    environment = {**os.environ, "BENCH_STORE": store or str(home / "store.db")}
    process = Process([*words, "--no-access-log", "--log-level", "warning"], home / "log", env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, trust_env=False) as client:
            process.wait_ready(lambda: answers(client, "/openapi.json") or name == "bare")
        yield url
    finally:
        process.stop()


@contextmanager
def database() -> Iterator[str]:
    """The URL of an empty database of a PostgreSQL that writes as in earnest."""
    settings = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    with postgres.serve(settings) as server, server.database() as name:
        yield server.database_url(name)


def quiet(service: Service) -> None:
    """Wait until everything that was recorded is taken in."""

    def is_empty() -> bool:
        if service.options.store is None:  # costs the service nothing
            return not _waiting(Path(service.options.data) / "remediator.db")
        return metric(service, "remediator_inbox_notifications") == 0

    wait_until(is_empty, PATIENCE, "the inbox to be empty", 0.05 if service.options.store is None else ASKING)


def _waiting(store: Path) -> int:
    with closing(sqlite3.connect(store, timeout=30)) as connection:
        query = "SELECT count(*) FROM notification WHERE taken_in_at IS NULL"
        return int(connection.execute(query).fetchone()[0])


def metric(service: Service, name: str, among: str = "") -> float:
    """The sum over all labels, or those `among` which one is, of one of the service's metrics."""
    return total(service.get("/metrics").text, name, among)


def total(text: str, name: str, among: str = "") -> float:
    """The same, of what /metrics answered."""
    lines = [line for line in text.splitlines() if among in line and line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def rss(service: Service) -> float:
    """Resident memory, in MiB."""
    assert service.process is not None
    return float(psutil.Process(service.process.pid).memory_info().rss) / MEBIBYTE


def alternate(
    bench: Bench, load: Load, urls: Mapping[str, str], after: Callable[[], None] = lambda: None, times: int = 1
) -> dict[str, list[Sent]]:
    """Send the same load to each of them in turn; `times` as many rounds where one is short. A small one warms up.

    Each second round goes the other way round, since what one has left behind may slow the next.
    """
    found: dict[str, list[Sent]] = {name: [] for name in urls}
    for url in urls.values():
        post(url, Load(max(2, load.count // 10), load.alerts, load.concurrency))
        after()
    for number in range(bench.rounds * times):
        for name in list(urls) if number % 2 == 0 else reversed(urls):
            found[name].append(post(urls[name], load))
            after()
    return found


class Sink:
    """An HTTP server in a process of its own that notes when which path was asked for."""

    def __init__(self, bench: Bench) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        home = bench.directory("sink")
        words = [sys.executable, "-m", "tools.bench.sink", str(self.port)]
        self._process = Process(words, home / "log")
        self._client = httpx.Client(base_url=self.url, trust_env=False)
        self._process.wait_ready(lambda: answers(self._client, "/seen"))

    def seen(self) -> dict[str, float]:
        """The paths that were asked for, with the time of the first request, on the machine's steady clock."""
        answer: dict[str, float] = self._client.get("/seen").json()
        return answer

    def count(self) -> int:
        """How many requests there were."""
        return int(self._client.get("/count").text)

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._process.stop()


@contextmanager
def sink(bench: Bench) -> Iterator[Sink]:
    """What actions call."""
    made = Sink(bench)
    try:
        yield made
    finally:
        made.close()


def bare_call(bench: Bench) -> float:
    """Milliseconds, the median, that httpx takes for a call over a new connection, and nothing around it."""
    waits = []
    with sink(bench) as called, httpx.Client(trust_env=False, headers={"Connection": "close"}) as client:
        for _ in range(bench.count(300)):
            begun = time.perf_counter()
            client.get(f"{called.url}/call").raise_for_status()
            waits.append(time.perf_counter() - begun)
    return median(waits) * 1000


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def switches(pid: int) -> int:
    """How often a process has waited for something, all its threads together."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    texts = [(thread / "status").read_text() for thread in threads]
    return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in texts)
