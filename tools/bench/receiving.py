"""How fast notifications are answered and taken in, beside receivers that keep less."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from statistics import median

from tests.support.service import Service
from tools.bench.load import Load, Sent, percentile, post
from tools.bench.parts import Bench, alternate, database, metric, ours, quiet, receiver, unmatched
from tools.bench.results import Curve, Result
from tools.bench.running import Seen, weather

_SIZES = {1: 4000, 10: 3000, 100: 1000, 5000: 12}  # alerts of a notification: how many notifications
_MORE = 3  # times as many rounds, where one takes a second and two of the same differ by a fifth


def _rate(sent: list[Sent]) -> float:
    return median(one.alerts_a_second for one in sent)


def _refused(sent: list[Sent]) -> None:
    wrong = {status: count for one in sent for status, count in one.statuses.items() if status not in {200, 202}}
    assert not wrong, f"not everything was taken: {wrong}"


def acknowledgement(bench: Bench) -> Iterator[Result | Curve]:
    """Answers after the commit, beside a receiver that validates and keeps nothing, or commits each request."""
    with receiver(bench, "validating") as beside, ours(bench) as service:
        for alerts, bound, times in ((1, 1.0, _MORE), (100, 0.7, 1)):
            load = Load(bench.count(_SIZES[alerts]), alerts, 32)
            found = alternate(bench, load, {"ours": service.url, "beside": beside}, lambda: quiet(service), times)
            yield _acknowledged(f"SQLite, {alerts} a notification, take-in running", found, bound)
    with receiver(bench, "validating") as beside, ours(bench, without="take-in") as service:
        load = Load(bench.count(_SIZES[100]), 100, 32)
        found = alternate(bench, load, {"ours": service.url, "beside": beside}, times=_MORE)
        yield _acknowledged("SQLite, 100 a notification, take-in paused", found, 0.95)
    with (
        database() as store,
        database() as other,
        receiver(bench, "postgresql", other) as beside,
        ours(bench, store=store) as service,
    ):
        for alerts in (1, 100):
            load = Load(bench.count(_SIZES[alerts] // 2), alerts, 32)
            found = alternate(bench, load, {"ours": service.url, "beside": beside}, lambda: quiet(service))
            yield _acknowledged(f"PostgreSQL, {alerts} a notification, take-in running", found, 2.0)


def _acknowledged(what: str, found: dict[str, list[Sent]], bound: float) -> Result:
    for sent in found.values():
        _refused(sent)
    name = f"acknowledged, concurrency 32, {what}"
    rates = _rate(found["ours"]), "alerts/s", _rate(found["beside"])
    return Result("acknowledgement", name, *rates, bound, at_least=True)


def growth(bench: Bench) -> Iterator[Result | Curve]:
    """The same over sizes, concurrency, and fingerprints that are known already."""
    with receiver(bench, "bare") as bare, receiver(bench, "validating") as beside, ours(bench) as service:
        urls = {"ours": service.url, "validating": beside, "bare": bare}
        for distinct, kind in ((0, "new"), (100, "known")):
            for concurrency in (1, 8, 32):
                curves = {
                    name: Curve(
                        f"alerts-a-second-by-{kind}-alerts-of-a-notification-at-concurrency-{concurrency}", name
                    )
                    for name in urls
                }
                for alerts, count in _SIZES.items():
                    load = Load(bench.count(count // 4), alerts, concurrency, distinct)
                    found = alternate(bench, load, urls, lambda: quiet(service))
                    for name, sent in found.items():
                        curves[name].x.append(alerts)
                        curves[name].y.append(_rate(sent))
                yield from curves.values()


def taking_in(bench: Bench) -> Iterator[Result | Curve]:
    """Until every alert has its episode, is matched against 200 remediations, and has its run."""
    load = Load(bench.count(150), 100, 8)
    with receiver(bench, "sqlite") as beside:
        entry = unmatched(199)
        acting = {
            "name": "acts",
            "summary": "Measured.",
            "matchers": [f'alertname="{load.alertname}"'],
            "mode": "observe",
        }
        acting |= {"steps": [{"action": "http.request", "with": {"url": "http://127.0.0.1:9/{{ labels.instance }}"}}]}
        rates: list[float] = []
        theirs: list[float] = []
        for _ in range(bench.rounds):
            theirs.append(post(beside, load).alerts_a_second)
            # Without the worker, which is measured as runs: take-in alone is what the reference does too.
            with ours(bench, [*entry, acting], without="worker") as service:
                rates.append(_taken_in(service, load))
    yield Result(
        "take-in",
        "taken in, SQLite, 100 alerts, 200 remediations, a run for each",
        median(rates),
        "alerts/s",
        median(theirs),
        0.6,
        at_least=True,
    )


def _taken_in(service: Service, load: Load) -> float:
    begun = time.perf_counter()
    post(service.url, load)
    quiet(service)
    seconds = time.perf_counter() - begun
    assert metric(service, "remediator_alerts_total") >= load.count * load.alerts
    return load.count * load.alerts / seconds


def storm(bench: Bench) -> Iterator[Result | Curve]:
    """10,000 alerts at once: every answer 202, nothing lost, all decided, and the interfaces still answer."""
    load = Load(bench.count(10_000), 1, 8, kinds=200)
    for store, rounds in (("SQLite", bench.rounds), ("PostgreSQL", 1)):  # one takes PostgreSQL minutes
        theirs, found = [], []
        for _ in range(rounds):
            with receiver(bench, "validating") as beside:
                theirs.append(_slow(post(beside, load)))
            with ExitStack() as stack:
                url = stack.enter_context(database()) if store == "PostgreSQL" else None
                found.append(weather(bench, load, url))
        yield from _storm(f"storm, {store}", load, found, median(theirs))


def _storm(name: str, load: Load, found: Sequence[tuple[Sent, Seen]], beside: float) -> Iterator[Result]:
    for sent, _ in found:
        assert set(sent.statuses) == {202}, sent.statuses
    yield Result(
        "storm", f"{name}: acknowledgement, p99", median(_slow(sent) for sent, _ in found), "ms", beside, bound=2
    )
    decided, seconds = min(seen.decided for _, seen in found), median(seen.seconds for _, seen in found)
    yield Result("storm", f"{name}: decided", decided, "alerts", note=f"of {load.count:,}, in {seconds:.0f} s")
    growth = max(seen.growth for _, seen in found)
    yield Result("storm", f"{name}: memory grows by", growth, "MiB", bound=40)
    for path in ("/remediations", "/metrics"):
        slowest = [seen.slowest[path] for _, seen in found]
        yield _worst(f"{name}: {path} answers, the slowest", slowest, bound=100)
    yield _worst(f"{name}: a clock of the sender is late by, at most", [seen.late for _, seen in found])


def _worst(what: str, seconds: Sequence[float], bound: float | None = None) -> Result:
    """The largest, and of which ones."""
    each = ", ".join(f"{one * 1000:.0f}" for one in seconds)
    note = f"of {each}" if len(seconds) > 1 else ""
    return Result("storm", what, max(seconds) * 1000, "ms", bound=bound, note=note)


def _slow(sent: Sent) -> float:
    return percentile(sent.latencies, 0.99) * 1000
