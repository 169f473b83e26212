"""Numbers and times far beyond what anybody means: an answer or a refusal, never a failure."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.support.edge import Edge

_TIMES = [
    *("9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "9999", "9999-12-31", "0001-01-01T00:00:00Z", "0001-01-01"),
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z", "8999-12-31T23:59:59-12:00"),
    *("10000-01-01T00:00:00Z", "99999999999-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99"),
    *("100y", "101y", "99999999y", "9" * 5000 + "y", "9" * 20 + "ms", "0s", "-1h", "1e400", "9" * 400, "NaN", "inf"),
    *("2026-01-01T00:00:00." + "9" * 400 + "Z", "99999999999999", "-99999999999999", "2026-02-30T00:00:00Z"),
]
_NUMBERS = [
    "0",
    "-1",
    "9" * 20,
    "9" * 400,
    "9" * 5000,
    "-" + "9" * 400,
    "1e400",
    "NaN",
    "inf",
    "0x10",
    "1.5",
    "2147483648",
]
_PATHS = ["/remediations", "/episodes", "/events"]


@pytest.mark.parametrize("name", ["since", "until", "limit", "cursor", "after"])
@pytest.mark.parametrize("path", _PATHS)
def test_a_query_is_answered_or_refused(edge: Edge, path: str, name: str) -> None:
    """Whatever stands for a time, a number or a place."""
    edge.add_run()
    for value in [*_TIMES, *_NUMBERS, *(f"{number}-{number}" for number in _NUMBERS)]:
        response = edge.get(f"{path}?{name}={quote(value)}")
        assert response.status_code in {200, 422}, (value[:60], response.text[:300])


@pytest.mark.parametrize("path", _PATHS[:2])
def test_the_ends_of_the_calendar_are_no_bound(edge: Edge, path: str) -> None:
    """Until the year 9999 is everything, since the year 1 as well."""
    edge.add_run()
    everything = edge.get(path).json()["items"]
    for query in ("until=9999-12-31T23:59:59Z", "since=0001-01-01T00:00:00Z", "since=100y"):
        assert everything == edge.get(f"{path}?{query}").json()["items"]


@pytest.mark.parametrize("field", ["for", "until"])
def test_a_pause_has_an_end_within_the_calendar(edge: Edge, field: str) -> None:
    """Or it is refused, with its field."""
    given: list[Any] = [*_TIMES, *_NUMBERS, 10**400, -(10**20), 10**15, 1e308, True, None, [], {}]
    for value in given:
        response = edge.request("PUT", "/pause", json={"why": "x", field: value})
        assert response.status_code in {200, 400, 422}, (str(value)[:60], response.text[:300])
        assert 200 == edge.get("/pause").status_code
    response = edge.request("PUT", "/pause", json={"why": "x", "until": "9999-12-31T23:59:59-05:00"})
    assert (422, "until") == (response.status_code, response.json()["field"])
