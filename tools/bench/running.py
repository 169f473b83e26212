"""How soon and how many actions are called, and what a storm does to everything else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import httpx

from tests.support.processes import wait_until
from tests.support.service import Service
from tools.bench.load import Load, Sent, body, percentile, post
from tools.bench.parts import ASKING, PATIENCE, Bench, Sink, database, metric, ours, remediation, rss, sink, total
from tools.bench.results import Result

LOOKING = 0.25  # seconds between two looks at a storm
_BEAT = 0.02
RESTING = 0.1  # seconds after a run, since its end has others look for work; and then the service is idle
_JSON = {"Content-Type": "application/json"}


def _acting(url: str, **fields: Any) -> dict[str, Any]:
    """A remediation whose request says for which alert it is."""
    return remediation("DiskSpaceFilling", f"{url}/{{{{ alert.fingerprint }}}}", **fields)


def latency(bench: Bench) -> Iterator[Result]:
    """From the first byte of a notification to the first byte of the action's request, one alert at a time."""
    for store, bounds in (("SQLite", (7.0, 25.0)), ("PostgreSQL", (12.0, None))):
        with ExitStack() as stack:
            url = stack.enter_context(database()) if store == "PostgreSQL" else None
            called = stack.enter_context(sink(bench))
            service = stack.enter_context(ours(bench, [_acting(called.url)], store=url))
            waits = _one_by_one(service, called, bench.count(200))
        for share, bound in zip((0.5, 0.99), bounds, strict=True):
            name = f"alert to action, {store}, p{share * 100:.0f}"
            yield Result("latency", name, percentile(waits, share) * 1000, "ms", bound=bound)


def _one_by_one(service: Service, called: Sink, count: int) -> list[float]:
    waits = []
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        for number in range(count + 10):
            content = body(Load(1), number, "latency")
            fingerprint = f"/{httpx.Response(200, content=content).json()['alerts'][0]['fingerprint']}"
            begun = time.monotonic()
            assert client.post("/webhooks/alertmanager", content=content, headers=_JSON).status_code == 202  # noqa: PLR2004
            seen = wait_until(lambda: called.seen().get(fingerprint), PATIENCE, "the action to be called")  # noqa: B023
            wait_until(lambda: _active(service) == 0, PATIENCE, "the run to end")
            time.sleep(RESTING)
            waits.append(seen - begun)
    return waits[10:]


def _active(service: Service) -> float:
    return metric(service, "remediator_active_runs")


def throughput(bench: Bench) -> Iterator[Result]:
    """Whole runs over distinct targets: planned, guarded, one request, verified, all of it audited."""
    for store, replicas, bound in (("SQLite", 1, 150.0), ("PostgreSQL", 2, 250.0)):
        rates = []
        for _ in range(bench.rounds):
            with ExitStack() as stack:
                url = stack.enter_context(database()) if store == "PostgreSQL" else None
                called = stack.enter_context(sink(bench))
                verify = [{"check": "http.ok", "with": {"url": f"{called.url}/health"}}]
                entry = _acting(called.url, verify=verify)
                group = [stack.enter_context(ours(bench, [entry], store=url)) for _ in range(replicas)]
                rates.append(_ended(group, bench.count(2000)))
        name = f"full runs, {store}, {replicas} {'replica' if replicas == 1 else 'replicas'}"
        yield Result("throughput", name, median(rates), "runs/s", bound=bound, at_least=True)


def _ended(group: list[Service], count: int) -> float:
    begun = time.perf_counter()
    size = 50
    for number in range(0, count, size):
        post(group[number // size % len(group)].url, Load(1, min(size, count - number), 1))
    wait_until(lambda: _finished(group) >= count, PATIENCE, "every run to end", ASKING)
    seconds = time.perf_counter() - begun
    assert _finished(group, 'state="succeeded"') == count, "not every run has succeeded"
    return count / seconds


def _finished(group: list[Service], among: str = "") -> float:
    return sum(metric(service, "remediator_runs_total", among) for service in group)


@dataclass
class Seen:
    """What was seen during a storm."""

    slowest: dict[str, float] = field(default_factory=dict)
    decided: float = 0.0
    growth: float = 0.0
    seconds: float = 0.0
    late: float = 0.0  # at most, of a thread of the sender: had the machine something else to do?


def weather(bench: Bench, load: Load, store: str | None = None) -> tuple[Sent, Seen]:
    """Send a storm to a service with 200 remediations, and look at it meanwhile."""
    entries = [remediation(f"{load.alertname}{number}", mode="observe") for number in range(load.kinds)]
    with ours(bench, entries, store=store) as service:
        post(service.url, Load(20, 1, 8, kinds=load.kinds))
        wait_until(lambda: _finished([service]) >= 20, PATIENCE, "the first runs to end")  # noqa: PLR2004
        return _watch(service, load)


def _watch(service: Service, load: Load) -> tuple[Sent, Seen]:
    seen, ends, before = Seen(), threading.Event(), rss(service)
    done, begun = _finished([service]), time.perf_counter()
    threads = [
        threading.Thread(target=_look, args=(service, seen, ends)),
        threading.Thread(target=_feel, args=(seen, ends)),
    ]
    for one in threads:
        one.start()
    try:
        sent = post(service.url, load)
        wait_until(lambda: seen.decided - done >= load.count, PATIENCE, "every alert to be decided")
    finally:
        ends.set()
        for one in threads:
            one.join()
    seen.seconds = time.perf_counter() - begun
    seen.growth = rss(service) - before
    seen.decided -= done
    return sent, seen


def _look(service: Service, seen: Seen, ends: threading.Event) -> None:
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        while not ends.wait(LOOKING):
            for path in ("/remediations", "/metrics"):
                begun = time.perf_counter()
                answer = client.get(path).raise_for_status()
                seen.slowest[path] = max(seen.slowest.get(path, 0.0), time.perf_counter() - begun)
            seen.decided = total(answer.text, "remediator_runs_total")


def _feel(seen: Seen, ends: threading.Event) -> None:
    """How late a clock comes that has nothing else to do."""
    begun = time.perf_counter()
    while not ends.wait(_BEAT):
        now = time.perf_counter()
        seen.late = max(seen.late, now - begun - _BEAT)
        begun = now
