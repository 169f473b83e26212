"""The text of /metrics, of which a part is not made by prometheus-client."""

from __future__ import annotations

import math
import re
import threading

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import Metrics
from app.telemetry.series import Series

NAMES = [f"restart-{number}" for number in range(120)]


def test_a_scrape_gets_the_text_that_prometheus_client_makes() -> None:
    """Family by family, with each one's help and type."""
    metrics = Metrics("1.2.3")
    metrics.initialise(NAMES, ["http.request"], ["http.ok"])
    metrics.runs.labels(NAMES[3], "succeeded").inc(12345678)
    metrics.breaker_state.labels(NAMES[0]).set(2)
    metrics.breaker_state.labels(NAMES[1]).set(math.nan)

    def families(text: bytes) -> list[str]:
        return sorted(one for one in re.split(r"(?m)^(?=# HELP)", text.decode()) if "process_" not in one)

    assert families(generate_latest(metrics.registry)) == families(b"".join(metrics.exposition()))


def test_a_scrape_makes_no_samples_of_what_each_remediation_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of them take tens of milliseconds, in which nothing else is answered."""
    metrics = Metrics("1.2.3")
    metrics.initialise(NAMES, [], [])
    monkeypatch.delattr(Series, "collect")
    assert b'remediator_runs_total{remediation="restart-7",state="failed"} 0.0\n' in b"".join(metrics.exposition())


def test_values_that_the_format_must_escape() -> None:
    """As its documentation has them: https://prometheus.io/docs/instrumenting/exposition_formats/."""
    registry = CollectorRegistry()
    series = Series("gauge", "odd", "Odd ones.", ["first", "second"], registry)
    series.labels('a "quoted"\nline', "back\\slash").set(-0.5)
    text = b"".join(series.text())
    assert generate_latest(registry) == text
    (family,) = text_string_to_metric_families(text.decode())
    assert [({"first": 'a "quoted"\nline', "second": "back\\slash"}, -0.5)] == [
        (one.labels, one.value) for one in family.samples
    ]


def test_a_counter_never_falls_and_has_all_its_labels() -> None:
    """What prometheus-client's own refuse, too."""
    series = Series("counter", "things", "Things.", ["one", "other"], CollectorRegistry())
    series.labels("a", "b").inc()
    with pytest.raises(ValueError, match="increased by -1"):
        series.labels("a", "b").inc(-1)
    with pytest.raises(ValueError, match="zip"):
        series.labels("a")
    assert b"".join(series.text()).decode().splitlines()[2:] == ['things_total{one="a",other="b"} 1.0']


def test_no_name_is_taken_twice() -> None:
    """Two of the same name would make a scrape that Prometheus refuses as a whole."""
    registry = CollectorRegistry()
    Series("counter", "things", "Things.", ["one"], registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counter("things", "Things.", registry=registry)
    text = b"".join(Metrics("1.2.3").exposition()).decode()
    names = re.findall(r"(?m)^# TYPE (\w+)", text)
    assert len(names) == len(set(names))


def test_thousands_of_series_are_many_pieces() -> None:
    """Nobody else is to wait for all of them."""
    metrics = Metrics("1.2.3")
    metrics.initialise([f"restart-{number}" for number in range(2000)], [], [])
    assert max(piece.count(b"\n") for piece in metrics.exposition()) <= 1000


def test_a_reload_may_begin_series_during_a_scrape() -> None:
    """It does so in a thread, and neither a scrape nor a count is lost by it."""
    series, ended = Series("counter", "things", "Things.", ["one"], CollectorRegistry()), threading.Event()

    def begin() -> None:
        for number in range(20_000):
            series.labels(str(number))
        ended.set()

    thread = threading.Thread(target=begin)
    thread.start()
    while not ended.is_set():
        assert b"".join(series.text()).endswith(b"\n")
        assert [family.name for family in series.collect()] == ["things"]
        series.labels("5").inc()
    thread.join()
    series.clear()
    assert len(list(series.text())) == 1


def test_a_remediation_that_is_gone_has_no_state() -> None:
    """It would be taken for one that is still there; what it did still counts."""
    metrics = Metrics("1.2.3")
    for names in (NAMES[:2], NAMES[1:3]):
        metrics.initialise(names, [], [])
        metrics.forget_all_but(names)
        for name in names:
            metrics.breaker_state.labels(name).set(0)
    families = {one.name: one for one in text_string_to_metric_families(b"".join(metrics.exposition()).decode())}
    assert set(NAMES[1:3]) == {one.labels["remediation"] for one in families["remediator_breaker_state"].samples}
    assert set(NAMES[:3]) == {one.labels["remediation"] for one in families["remediator_runs"].samples}
