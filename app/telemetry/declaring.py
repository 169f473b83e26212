"""Where the groups of metrics declare theirs, and how all of them are given out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from app.telemetry.series import Series

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Declared:
    """The registry that a group of metrics adds its own to."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()  # all of them, for readers that go one by one
        self._few = CollectorRegistry()  # metrics with few series
        self.registry.register(self._few)
        self._series: list[Series] = []  # the others

    def exposition(self) -> Iterator[bytes]:
        """The text that /metrics answers, in pieces of a few milliseconds."""
        for series in self._series:
            yield from series.text()
        for family in self._few.collect():
            yield generate_latest(_One(family))

    def _by_remediation(
        self, kind: Literal["counter", "gauge"], name: str, documentation: str, labelnames: Sequence[str]
    ) -> Series:
        made = Series(kind, name, documentation, labelnames, self.registry)
        self._series.append(made)
        return made


@dataclass(frozen=True)
class _One:
    """A registry for `generate_latest`: a single family."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        """All there is."""
        return [self.family]


def zero(metric: Counter | Gauge, values: Iterable[str]) -> None:
    """Start a series for each value of a metric's only label."""
    for value in values:
        metric.labels(value)
