"""What grows: catalogs, audits, memory; and what the service costs when nothing happens."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import httpx
import yaml

from app.catalog.loader import load as load_catalog
from app.store.audit.seals import seal_next
from app.store.db.database import Database
from tests.support.processes import Process, free_port, wait_until
from tests.support.service import Service
from tools.bench.load import Load, percentile, post
from tools.bench.parts import (
    ASKING,
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

_DAYS = 100  # that the made-up audit goes back
_KEPT = 90  # what is older is deleted where deleting is measured
_BESIDE = Load(100, 10, 4)  # meanwhile
_RUNS, _EPISODES, _EVENTS = ("run", "id", "finished_at"), ("episode", "id", "closed_at"), ("event", "run_id", "at")
_USUAL_SECONDS = 240  # of the same load without a deletion
_PAGES = {
    "newest": "/remediations",
    "one remediation": "/remediations?remediation=measured",
    "one state": "/remediations?state=failed",
    "two states": "/remediations?state=failed&state=cancelled",
    "one alertname": "/remediations?alertname=Down7",
    "one target": "/remediations?target=redis:cache/7",
    "one namespace": "/remediations?namespace=ns-7",
    "one label": "/remediations?label=instance=i-7",
    "what did not help": "/remediations?effective=false",
    "a state of a namespace": "/remediations?namespace=ns-20&state=failed",
    "a namespace of a remediation": "/remediations?remediation=other-7&namespace=ns-7",
    "a day long ago": "/remediations?since=90d&until=89d",
    "alerts": "/episodes",
    "alerts that fire": "/episodes?open=true",
    "alerts with a label": "/episodes?label=instance=i-7",
    "the catalog": "/catalog",
    "one of the catalog": "/catalog/measured",
}


def catalogs(bench: Bench) -> Iterator[Result | Curve]:
    """What matching costs an alert, and what loading costs, by the number of remediations."""
    loaded, curve, loading = {}, Curve("microseconds-an-alert-by-remediations", "matching"), 0.0
    home = bench.directory("catalogs")
    labels = {"alertname": "DiskSpaceFilling", "team": "platform", "namespace": "shop", "severity": "critical"}
    for size in (100, 1000, bench.count(10_000)):
        file = home / f"{size}.yaml"
        file.write_text(yaml.safe_dump({"remediations": unmatched(size)}))
        begun = time.perf_counter()
        loaded[size] = load_catalog([file], datetime.now(UTC))
        loading = time.perf_counter() - begun
    costs = _microseconds({size: partial(catalog.match, labels) for size, catalog in loaded.items()})
    largest = max(costs)
    curve.x.extend(costs)
    curve.y.extend(costs.values())
    yield curve
    yield Result(
        "catalog", f"matching, {largest:,} remediations, beside 100", costs[largest], "µs/alert", costs[100], 1.5
    )
    yield Result("catalog", f"loading {largest:,} remediations", loading, "s", bound=10)
    with ours(bench, unmatched(largest)) as service:
        stall = _stall(service)
    yield Result(
        "catalog", f"acknowledgement while {largest:,} are reloaded, the slowest", stall * 1000, "ms", bound=50
    )


def _microseconds(calls: Mapping[int, Callable[[], object]]) -> dict[int, float]:
    """What each call takes, in rounds that alternate."""
    rounds: dict[int, list[float]] = {size: [] for size in calls}
    for _ in range(15):
        for size, call in calls.items():
            begun = time.perf_counter()
            for _ in range(2000):
                call()
            rounds[size].append((time.perf_counter() - begun) / 2000 * 1e6)
    return {size: median(found) for size, found in rounds.items()}


def _stall(service: Service) -> float:
    """The slowest answer to a notification while a catalog with other entries is loaded, twice."""
    return max(_stalled(service, number) for number in range(2))


def _stalled(service: Service, number: int) -> float:
    file = service.options.catalog[0]
    file.write_text(re.sub(r"Measured[^\n]*", f"Measured for the {number}. time.", file.read_text()))
    slowest = 0.0
    quiet(service)  # take-in of what the reload before has let wait is no part of this one
    with ThreadPoolExecutor(1) as pool:
        reloading = pool.submit(service.post, "/-/reload", timeout=PATIENCE)
        while not reloading.done():
            slowest = max(slowest, *post(service.url, Load(20, 1, 1)).latencies)
        reloading.result().raise_for_status()
    return slowest


def audit(bench: Bench) -> Iterator[Result | Curve]:
    """Pages out of a large audit beside a small one, and what deleting from the large one does to intake."""
    small, large = bench.count(10_000), bench.count(1_000_000)
    times: dict[int, dict[str, float]] = {}
    deleting: list[Result] = []
    for size in (small, large):
        with ours(bench, [remediation("measured"), *unmatched(50)]) as service:
            service.stop()
            _fill(_file(service), size)
            asyncio.run(_seal(_file(service)))
            _start(service, "0")
            times[size] = {name: _page(service, path) for name, path in _PAGES.items()}
            if size == large:
                deleting += _deleting(service)
    for name in _PAGES:
        slow, fast = times[large][name] * 1000, times[small][name] * 1000
        yield Result("audit", f"a page in an audit of {large:,} runs, {name}", slow, "ms", fast, 2.0)
    yield Result("audit", "the slowest of these answers", max(times[large].values()) * 1000, "ms", bound=50)
    yield from deleting


def _file(service: Service) -> Path:
    return Path(service.options.data) / "remediator.db"


def _page(service: Service, path: str) -> float:
    found = []
    for _ in range(9):
        begun = time.perf_counter()
        answer = service.get(path)
        found.append(time.perf_counter() - begun)
        assert answer.is_success, f"{path}: {answer.text}"
        assert answer.json().get("items", True), f"nothing is found by {path}"
    return median(found)


def _deleting(service: Service) -> Iterator[Result]:
    """Acknowledgements while a tenth of the audit is deleted, all of it, beside some minutes without that."""
    moment = int((time.time() - _KEPT * 86400) * 1e6)  # what comes of age later is deleted later
    old = _old(service, moment)
    assert old, "there is nothing to delete"
    # Answers may come later the longer a load lasts: both begin with the same store, and as much of both is compared.
    service.stop()
    untouched = service.options.data.with_name("untouched")
    shutil.copytree(service.options.data, untouched)
    os.sync()
    _start(service, f"{_KEPT}d")
    begun = time.monotonic()
    end = begun + _USUAL_SECONDS
    first = _acknowledged(service, lambda: time.monotonic() >= end or not _old(service, moment, most=1))
    during = first + _acknowledged(service, lambda: not _old(service, moment, most=1))
    lasted = time.monotonic() - begun
    # What was received meanwhile would be taken in for half an hour, and the rest deleted beside that.
    plain = service.options.module
    service.options = replace(service.options, module=[sys.executable, "-m", "tools.bench.paused", "take-in"])
    _start(service, f"{_KEPT}d")
    left = partial(_old, service, moment, _EPISODES, most=1)
    wait_until(lambda: not left(), 3 * PATIENCE, "the alerts of these runs to be deleted", ASKING)
    assert not _old(service, moment, _EVENTS, most=1), "events are left of runs that were deleted"
    service.stop()
    service.options = replace(service.options, data=untouched, module=plain)
    _start(service, "0")
    end = time.monotonic() + min(lasted, _USUAL_SECONDS)
    usual = percentile(_acknowledged(service, lambda: time.monotonic() >= end), 0.99) * 1000
    for what, found in (("", during), (f", in the first {_USUAL_SECONDS} s", first)):
        name = f"acknowledgement while {old:,} runs are deleted{what}, p99"
        yield Result("audit", name, percentile(found, 0.99) * 1000, "ms", usual, 2.0)
    yield Result("audit", "runs deleted meanwhile", old / lasted, "runs/s")


def _start(service: Service, retention: str) -> None:
    service.stop()
    service.options = replace(service.options, env={"REMEDIATOR_RETENTION": retention})
    service.start()


def _acknowledged(service: Service, is_over: Callable[[], bool]) -> list[float]:
    """What each answer took until then, in seconds; some at least."""
    post(service.url, _BESIDE)  # the first ones import what nobody needed before
    found = list[float]()
    while not found or not is_over():
        sent = post(service.url, _BESIDE)
        assert set(sent.statuses) == {202}, f"answers: {dict(sent.statuses)}"
        found += sent.latencies
    return found


def _old(service: Service, moment: int, what: tuple[str, str, str] = _RUNS, most: int = -1) -> int:
    """How many there are that ended before, counted up to `most`."""
    table, name, ended = what
    with closing(sqlite3.connect(_file(service), timeout=60)) as store:
        which = f"SELECT 1 FROM {table} WHERE {name} < printf('%08x-', ? / 65536000) AND {ended} < ? LIMIT ?"
        return int(store.execute(f"SELECT count(*) FROM ({which})", (moment, moment, most)).fetchone()[0])


def _fill(file: Path, size: int) -> None:
    """Write ended runs over the last days, as the service would have left them but for the length of their plans."""
    numbers = (
        f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {size}), "
        f"moments AS (SELECT n, {int(time.time() - _DAYS * 86400) * 1000} + n * {_DAYS * 86_400_000} / {size} AS ms "
        "FROM numbers)"
    )
    with closing(sqlite3.connect(file)) as store:
        store.execute("PRAGMA synchronous = OFF")
        for table, values in _rows().items():
            columns = [row[1:4] for row in store.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join(values.get(name, _value(name, kind, needed)) for name, kind, needed in columns)
            names = ", ".join(name for name, *_ in columns)
            store.execute(f"INSERT INTO {table} ({names}) {numbers} SELECT {chosen} FROM moments")
            store.commit()


async def _seal(file: Path) -> None:
    """As the service does, in larger pieces; it would take ten minutes."""
    database = Database(f"sqlite:///{file}")
    try:
        while True:
            async with database.write() as tx:
                if not (await seal_next(tx, datetime.now(UTC), 10_000)).events:
                    return
    finally:
        await database.close()


def _rows() -> dict[str, dict[str, str]]:
    """By table, what stands in the columns that matter: expressions over the number of a run and its milliseconds."""
    run, episode = (f"printf('%08x-%04x-7000-{kind}000-%012x', ms / 65536, ms % 65536, n)" for kind in (8, 9))
    alert = {
        "alertname": "'Down' || (n % 100)",
        "namespace": "'ns-' || (n % 100)",
        "labels": "json_object('alertname', 'Down' || (n % 100), 'namespace', 'ns-' || (n % 100), "
        "'instance', 'i-' || (n % 1000), 'severity', 'critical', 'team', 'platform')",
        "annotations": "'{}'",
        "fingerprint": "printf('%016x', n)",
    }
    spec = json.dumps(remediation("measured"))
    return {
        "run": alert
        | {
            "id": run,
            "remediation": "CASE WHEN n % 10 = 0 THEN 'measured' ELSE 'other-' || (n % 50) END",
            "spec": f"'{spec}'",
            "digest": "printf('%064x', 1)",
            "state": "CASE WHEN n % 20 = 0 THEN 'failed' ELSE 'succeeded' END",
            "effective": "n % 20 > 0",
            "target_key": "'redis:cache/' || (n % 1000)",
            "plan": """'{"rung": 0, "target": {"backend": "redis", "key": "redis:cache/0"}, "steps": []}'""",
            "decisions": "'[]'",
            "purpose": "'remedy'",
            "resolved_at": "ms * 1000",
            "finished_at": "ms * 1000",
        },
        "episode": alert
        | {
            "id": episode,
            "identity": "printf('%064x', n)",
            "firing": "'[]'",
            "matched": """'["measured"]'""",
            "resolved_at": "ms * 1000",
            "closed_at": "CASE WHEN n % 100 > 0 THEN ms * 1000 END",
        },
        "run_episode": {"run_id": run, "episode_id": episode},
        "step": {"id": "NULL", "run_id": run, "action": "'http.request'", "planned": "'{}'", "state": "'succeeded'"},
        "event": {"id": "NULL", "run_id": run, "kind": "'recorded'", "data": "'{}'", "seq": "1"},
    }


def _value(name: str, kind: str, needed: int) -> str:
    if not needed:
        return "NULL"
    if name.endswith("_at") or name == "at":
        return "ms * 1000"
    return "''" if kind.startswith(("VARCHAR", "TEXT", "JSON")) else "0"


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
