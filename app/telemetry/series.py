"""Counters and gauges that have a series or more for each remediation, and cost a scrape little.

prometheus-client makes a sample of each series at each scrape, and searches its labels for characters to escape: 10 to
20 µs, for thousands of series tens of milliseconds in which nothing else is answered. Here the line of a series is made
once, but for its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_PIECE = 1000  # series
_Family = CounterMetricFamily | GaugeMetricFamily


class _One:
    """A series. Only the loop's thread counts, so that it needs no lock."""

    __slots__ = ("begin", "value")

    def __init__(self, begin: str) -> None:
        self.begin, self.value = begin, 0.0

    def inc(self, amount: float = 1) -> None:
        """Add to a counter, which never falls; raises ValueError where it would."""
        if amount < 0:
            raise ValueError(f"a counter cannot be increased by {amount}")
        self.value += amount

    def set(self, value: float) -> None:
        """Of a gauge."""
        self.value = value


class Series(Collector):
    """One metric of the registry, as prometheus-client has them."""

    def __init__(
        self,
        kind: Literal["counter", "gauge"],
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        registry: CollectorRegistry,
    ) -> None:
        self._type, self._name, self._documentation, self._labelnames = kind, name, documentation, labelnames
        self._sample = f"{name}_total" if kind == "counter" else name
        self._children: dict[tuple[str, ...], _One] = {}
        registry.register(self)

    def labels(self, *values: str) -> _One:
        """The series with these values, in the order of the labels' names; a new one starts at zero."""
        found = self._children.get(values)
        if found is None:
            pairs = zip(self._labelnames, values, strict=True)
            inner = ",".join(f'{name}="{_escape(value)}"' for name, value in pairs)
            # A reload begins the series of new remediations in a thread.
            found = self._children.setdefault(values, _One(f"{self._sample}{{{inner}}} "))
        return found

    def clear(self) -> None:
        """Forget all series."""
        self._children.clear()

    def text(self) -> Iterator[bytes]:
        """Yield a scrape's answer, in the text format 0.0.4, in pieces of a millisecond or two."""
        yield f"# HELP {self._sample} {self._documentation}\n# TYPE {self._sample} {self._type}\n".encode()
        series = list(self._children.copy().values())  # a thread may begin others meanwhile
        for start in range(0, len(series), _PIECE):
            some = series[start : start + _PIECE]
            yield "".join(f"{one.begin}{floatToGoString(one.value)}\n" for one in some).encode()  # type: ignore[no-untyped-call]

    def describe(self) -> Iterator[_Family]:
        """Show the registry that the name is taken."""
        yield self._family()

    def collect(self) -> Iterator[_Family]:
        """Answer other readers of a registry."""
        family = self._family()
        for values, one in self._children.copy().items():
            family.add_metric(values, one.value)
        yield family

    def _family(self) -> _Family:
        made = CounterMetricFamily if self._type == "counter" else GaugeMetricFamily
        return made(self._name, self._documentation, labels=self._labelnames)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
