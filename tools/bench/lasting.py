"""What grows: catalogs, audits, memory; and what the service costs when nothing happens."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import httpx
import yaml

from app.catalog.loader import load as load_catalog
from tests.support.processes import Process, free_port, wait_until
from tests.support.service import Service
from tools.bench.load import Load, post
from tools.bench.parts import (
    COMPILED,
    PATIENCE,
    Bench,
    cpu_seconds,
    metric,
    ours,
    quiet,
    remediation,
    rss,
    sink,
    switches,
    unmatched,
)
from tools.bench.results import Curve, Result

_PAGES = {
    "newest": {},
    "one remediation": {"remediation": "measured"},
    "one state": {"state": "failed"},
    "one alertname": {"alertname": "Down7"},
    "one target": {"target": "redis:cache/7"},
    "one namespace": {"namespace": "ns-7"},
    "a day long ago": {"since": "2026-01-03T00:00:00Z", "until": "2026-01-04T00:00:00Z"},
}


def catalogs(bench: Bench) -> Iterator[Result | Curve]:
    """What matching costs an alert, and what loading costs, by the number of remediations."""
    costs, curve, loading = {}, Curve("microseconds-an-alert-by-remediations", "matching"), 0.0
    home = bench.directory("catalogs")
    labels = {"alertname": "DiskSpaceFilling", "team": "platform", "namespace": "shop", "severity": "critical"}
    for size in (100, 1000, bench.count(10_000)):
        file = home / f"{size}.yaml"
        file.write_text(yaml.safe_dump({"remediations": unmatched(size)}))
        begun = time.perf_counter()
        catalog = load_catalog([file], datetime.now(UTC))
        loading = time.perf_counter() - begun
        costs[size] = _microseconds(lambda: catalog.match(labels))  # noqa: B023 - called at once
        curve.x.append(size)
        curve.y.append(costs[size])
    largest = max(costs)
    yield curve
    yield Result(
        "catalog", f"matching, {largest} remediations, beside 100", costs[largest], "µs/alert", costs[100], 1.5
    )
    yield Result("catalog", f"loading {largest} remediations", loading, "s", bound=10)
    with ours(bench, unmatched(largest)) as service:
        stall = _stall(service)
    yield Result("catalog", f"acknowledgement while {largest} are reloaded, the slowest", stall * 1000, "ms", bound=50)


def _microseconds(call: object) -> float:
    assert callable(call)
    rounds = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(2000):
            call()
        rounds.append((time.perf_counter() - begun) / 2000 * 1e6)
    return median(rounds)


def _stall(service: Service) -> float:
    """The slowest answer to a notification while the catalog is loaded again, of two tries the better."""
    return min(_stalled(service) for _ in range(2))


def _stalled(service: Service) -> float:
    reloaded = threading.Event()

    def reload() -> None:
        service.post("/-/reload", timeout=PATIENCE).raise_for_status()
        reloaded.set()

    thread = threading.Thread(target=reload)
    thread.start()
    slowest = 0.0
    while not reloaded.is_set():
        slowest = max(slowest, *post(service.url, Load(20, 1, 1)).latencies)
    thread.join()
    return slowest


def audit(bench: Bench) -> Iterator[Result | Curve]:
    """Pages of `/remediations` out of a large audit beside a small one, and what deleting from it does to intake."""
    small, large = bench.count(10_000), bench.count(1_000_000)
    times: dict[int, dict[str, float]] = {}
    for size in (small, large):
        with ours(bench, retention="7d") as service:
            store = _file(service)
            service.stop()
            _fill(store, size)
            service.start()
            times[size] = {name: _page(service, query) for name, query in _PAGES.items()}
    for name in _PAGES:
        slow, fast = times[large][name] * 1000, times[small][name] * 1000
        yield Result("audit", f"a page of {large:,} runs, {name}", slow, "ms", max(fast, 1.0), 2.0)
    yield Result("audit", f"the slowest page of {large:,} runs", max(times[large].values()) * 1000, "ms", bound=50)


def _file(service: Service) -> Path:
    return Path(service.options.data) / "remediator.db"


def _page(service: Service, query: dict[str, str]) -> float:
    found = []
    for _ in range(9):
        begun = time.perf_counter()
        answer = service.get("/remediations", params={"limit": "100", **query})
        found.append(time.perf_counter() - begun)
        assert answer.json()["items"], f"nothing is found for {query}"
    return median(found)


def _fill(file: Path, size: int) -> None:
    """Write ended runs over a hundred days, as the service would have left them but for the length of their plans."""
    plan = '{"rung": 0, "target": {"backend": "redis", "key": "redis:cache/0"}, "steps": []}'
    spec = yaml.safe_load(yaml.safe_dump(remediation("measured")))

    with sqlite3.connect(file) as store:
        columns = [row[1:4] for row in store.execute("PRAGMA table_info(run)")]
        values = {
            "id": "printf('019b7%07x-0000-7000-8000-%012x', n / 4, n)",
            "remediation": "CASE WHEN n % 10 = 0 THEN 'measured' ELSE 'other-' || (n % 50) END",
            "spec": f"'{json.dumps(spec)}'",
            "digest": "'0'",
            "state": "CASE WHEN n % 20 = 0 THEN 'failed' ELSE 'succeeded' END",
            "alertname": "'Down' || (n % 100)",
            "namespace": "'ns-' || (n % 100)",
            "target_key": "'redis:cache/' || (n % 1000)",
            "plan": f"'{plan}'",
            "decisions": "'[]'",
            "labels": "json_object('alertname', 'Down' || (n % 100), 'namespace', 'ns-' || (n % 100))",
            "annotations": "'{}'",
            "purpose": "'remedy'",
        }
        chosen = ", ".join(values.get(name, _value(name, kind, needed)) for name, kind, needed in columns)
        names = ", ".join(name for name, *_ in columns)
        store.execute(
            f"INSERT INTO run ({names}) WITH RECURSIVE numbers(n) AS "
            f"(SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {size}) SELECT {chosen} FROM numbers",
            {"size": size},
        )
    with sqlite3.connect(file) as store:
        store.execute("ANALYZE")


def _value(name: str, kind: str, needed: int) -> str:
    if name.endswith("_at"):
        # A hundred days, the newest of them now: id and time go the same way.
        return "strftime('%Y-%m-%d %H:%M:%f000', 1767225600 + n * 8640000.0 / :size, 'unixepoch')"
    if not needed:
        return "NULL"
    return "0" if kind in {"INTEGER", "BOOLEAN"} else "''"


def idle(bench: Bench) -> Iterator[Result | Curve]:
    """Memory, processor time and wake-ups while nothing happens."""
    with ours(bench) as service:
        assert service.process is not None
        pid = service.process.pid
        time.sleep(5)  # what follows a start is over
        seconds = bench.count(30)
        cpu, waits, begun = cpu_seconds(pid), switches(pid), time.perf_counter()
        time.sleep(seconds)
        passed = time.perf_counter() - begun
        yield Result("idle", "idle, memory", rss(service), "MiB", bound=90)
        yield Result("idle", "idle, processor time", (cpu_seconds(pid) - cpu) / passed * 100, "%", bound=0.5)
        yield Result("idle", "idle, wake-ups of all its threads", (switches(pid) - waits) / passed, "/s", note="")


def cold_start(bench: Bench) -> Iterator[Result | Curve]:
    """From the command to ready, with the shipped remediations."""
    found = []
    for _ in range(bench.rounds):
        home, port = bench.directory("start"), free_port()
        words = [sys.executable, "-m", "tools.bench.plain", "serve", "--listen", f"127.0.0.1:{port}"]
        words += ["--data", str(home / "data"), "--mode", "observe"]
        begun = time.perf_counter()
        process = Process(words, home / "log", env=os.environ | COMPILED)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            process.wait_ready(lambda: _is_ready(client))
        found.append(time.perf_counter() - begun)
        process.stop()
    yield Result("start", "start to ready, SQLite, shipped catalog", median(found), "s", bound=1.2)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def memory(bench: Bench) -> Iterator[Result | Curve]:
    """Many notifications, new and repeated, with runs: flat after the first tenth."""
    count = bench.count(100_000)
    curve = Curve("MiB-by-notifications", "resident memory")
    with (
        sink(bench) as called,
        ours(bench, [remediation("Acts", f"{called.url}/{{{{ alert.fingerprint }}}}"), *unmatched(50)]) as service,
    ):
        for tenth in range(20):
            post(service.url, Load(count // 20, 1, 8, distinct=count // 40))
            post(service.url, Load(bench.count(50), 1, 8, alertname="Acts"))
            quiet(service)
            curve.x.append((tenth + 1) * count // 20)
            curve.y.append(rss(service))
        wait_until(lambda: metric(service, "remediator_active_runs") == 0, PATIENCE, "every run to end")
    yield curve
    yield Result(
        "memory",
        f"memory after {count:,} notifications, beside after a tenth",
        max(curve.y[2:]),
        "MiB",
        curve.y[1],
        1.1,
    )
