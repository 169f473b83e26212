"""Durations and rates: read as Prometheus reads them, written so that they read back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.durations import Rate, format_duration, format_rates, parse_duration, parse_rates

_UNITS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATIONS = st.integers(min_value=0, max_value=100 * _UNITS["y"]).map(lambda count: timedelta(milliseconds=count))
_RATES = st.builds(Rate, st.integers(1, 10_000), _DURATIONS.filter(bool))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1d", 86_400), ("2w", 1_209_600), ("1ms", 0.001)],
)
def test_a_duration_is_read_as_prometheus_reads_it(text: str, seconds: float) -> None:
    """Units from years to milliseconds, largest first."""
    assert timedelta(seconds=seconds) == parse_duration(text)


@given(st.lists(st.integers(0, 50), min_size=7, max_size=7))
def test_a_duration_is_the_sum_of_its_parts(counts: list[int]) -> None:
    """Each unit at most once, in order; an independent sum is the oracle."""
    parts = [(count, unit) for count, unit in zip(counts, _UNITS, strict=True) if count]
    text = "".join(f"{count}{unit}" for count, unit in parts) or "0"
    expected = sum(count * _UNITS[unit] for count, unit in parts)
    assert timedelta(milliseconds=expected) == parse_duration(text)


@given(_DURATIONS)
def test_a_duration_is_written_as_it_is_read(duration: timedelta) -> None:
    """Down to the millisecond."""
    assert duration == parse_duration(format_duration(duration))


@pytest.mark.parametrize(
    "text", ["", "5", "5 m", "m", "30m1h", "1h1h", "-5m", "1.5h", "5M", "\u0665m", "5min", None, 5, 1.5]
)
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    """Numbers without a unit too, since nobody agrees on what they mean."""
    with pytest.raises(ValueError, match="for example 90s, 5m or 1h30m"):
        parse_duration(text)


@given(st.text(max_size=8))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """Nothing else is ever raised."""
    try:
        assert parse_duration(text) >= timedelta()
    except ValueError:
        return


def test_a_duration_may_be_written_at_length() -> None:
    """With a hundred characters, and not one more."""
    written = "0" * 99 + "s"
    assert timedelta() == parse_duration(written)
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(f"0{written}")


def test_a_duration_longer_than_a_century_is_refused() -> None:
    """Times that far away overflow elsewhere."""
    with pytest.raises(ValueError, match="longer than 100y"):
        parse_duration("9999999y")


def test_rates_hold_several_windows_at_once() -> None:
    """Separated by commas, spaces allowed."""
    assert (Rate(3, timedelta(hours=1)), Rate(7, timedelta(days=1))) == parse_rates("3/1h , 7/1d")


@given(st.lists(_RATES, min_size=1, max_size=3).map(tuple))
def test_rates_are_written_as_they_are_read(rates: tuple[Rate, ...]) -> None:
    """Any count over any window."""
    assert rates == parse_rates(format_rates(rates))


@pytest.mark.parametrize(
    "text", ["", "3", "0/1h", "-1/1h", "3/", "3/0s", "3/1h,", "3 per hour", "a/1h", "²/1h", None, 3]
)
def test_what_is_no_rate_is_refused(text: object) -> None:
    """A rate of nothing is not a way to switch something off."""
    with pytest.raises(ValueError, match=r"not a rate|empty window|not a duration"):
        parse_rates(text)
