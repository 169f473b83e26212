"""The index finds exactly what trying every entry finds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from app.catalog.index import MatcherIndex
from app.catalog.matchers import Matcher

_NAMES = ("alertname", "job", "severity")
_MATCHERS = st.builds(
    "{}{}{}".format,
    st.sampled_from(_NAMES),
    st.sampled_from(["=", "!=", "=~", "!~"]),
    st.sampled_from(['""', '"a"', '"b"', '"a|b"', '"a.*"', '".*"', '".+"', '"(a|)"', '"c|a"']),
).map(Matcher.parse)
_ENTRIES = st.lists(st.lists(_MATCHERS, min_size=1, max_size=4).map(tuple), max_size=12)
_LABELS = st.dictionaries(st.sampled_from(_NAMES), st.sampled_from(["", "a", "b", "c", "ab"]))


@given(_ENTRIES, st.lists(_LABELS, min_size=1, max_size=5))
def test_the_index_agrees_with_trying_every_entry(
    entries: Sequence[tuple[Matcher, ...]], alerts: Sequence[Mapping[str, str]]
) -> None:
    """Same entries, in the order in which they were given, each once."""
    index = MatcherIndex([(matchers, number) for number, matchers in enumerate(entries)])
    for labels in alerts:
        expected = [
            number for number, matchers in enumerate(entries) if all(matcher.matches(labels) for matcher in matchers)
        ]
        assert tuple(expected) == index.match(labels)


def _seconds_per_alert(size: int) -> float:
    entries = [
        ((Matcher.parse(f'alertname="a{number % 100}"'), Matcher.parse(f'job="j{number // 100}"')), number)
        for number in range(size)
    ]
    index = MatcherIndex(entries)
    alerts = [{"alertname": f"a{number % 100}", "job": f"j{number // 100}"} for number in range(0, size, size // 100)]
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for labels in alerts:
            assert 1 == len(index.match(labels))
        best = min(best, (time.perf_counter() - started) / len(alerts))
    return best


def test_the_cost_of_an_alert_stays_flat_as_the_catalog_grows() -> None:
    """A hundred times as many entries, whose every single condition is shared by a hundred, cost about the same."""
    assert _seconds_per_alert(10_000) < 5 * _seconds_per_alert(100) + 20e-6
