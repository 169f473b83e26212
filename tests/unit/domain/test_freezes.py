"""When freezes hold and when they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.domain.freezes import Freeze

MINUTE = timedelta(minutes=1)


def freeze(**fields: Any) -> Freeze:
    """A freeze at the given times."""
    return Freeze.model_validate({"name": "quiet", "summary": "Nobody is there."} | fields)


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


OFFICE = {
    "weekdays": ["monday:friday"],
    "times": [{"start_time": "09:00", "end_time": "17:00"}],
    "location": "Europe/Berlin",
}


@pytest.mark.parametrize(
    ("fields", "now", "expected"),
    [
        (OFFICE, "2026-11-20T07:59", False),  # a Friday, 08:59 in Berlin
        (OFFICE, "2026-11-20T08:00", True),
        (OFFICE, "2026-11-20T15:59", True),
        (OFFICE, "2026-11-20T16:00", False),
        (OFFICE, "2026-11-21T10:00", False),  # Saturday
        ({"weekdays": ["sunday:thursday"]}, "2026-11-22T10:00", True),  # as Alertmanager's week goes
        ({"weekdays": ["sunday:thursday"]}, "2026-11-19T10:00", True),
        ({"weekdays": ["sunday:thursday"]}, "2026-11-20T10:00", False),
        ({"weekdays": ["friday:monday"]}, "2026-11-22T10:00", True),
        ({"weekdays": ["friday:monday"]}, "2026-11-24T10:00", False),
        (OFFICE, "2026-07-20T07:00", True),  # in summer Berlin is two hours ahead
        ({"days_of_month": ["-2:-1"]}, "2026-02-27T00:00", True),
        ({"days_of_month": ["-2:-1"]}, "2026-02-26T23:59", False),
        ({"days_of_month": ["28:-1"]}, "2026-03-31T00:00", True),  # counted from both ends
        ({"days_of_month": ["28:-1"]}, "2026-03-27T00:00", False),
        ({"days_of_month": [1, "10:12"]}, "2026-02-11T12:00", True),
        ({"days_of_month": [1, "10:12"]}, "2026-02-01T12:00", True),
        ({"months": ["december"], "years": [2026]}, "2026-12-01T00:00", True),
        ({"months": ["december"], "years": [2026]}, "2027-12-01T00:00", False),
        ({"months": ["1:3"]}, "2026-04-01T00:00", False),
        ({"times": [{"start_time": "22:00", "end_time": "24:00"}]}, "2026-04-01T23:59", True),
        ({"begins": "2026-12-20T00:00:00+01:00", "ends": "2027-01-04T00:00:00+01:00"}, "2026-12-19T23:00", True),
        ({"begins": "2026-12-20T00:00:00+01:00", "ends": "2027-01-04T00:00:00+01:00"}, "2026-12-19T22:59", False),
        ({"begins": "2026-12-20T00:00:00+01:00", "ends": "2027-01-04T00:00:00+01:00"}, "2027-01-03T23:00", False),
        ({"weekdays": ["saturday"], "ends": "2026-11-21T12:00:00Z"}, "2026-11-21T12:00", False),
    ],
)
def test_a_freeze_holds_when_it_says(fields: dict[str, Any], now: str, *, expected: bool) -> None:
    """All that is given must hold at once, in the zone of its place."""
    assert expected is freeze(**fields).holds(at(now))


@pytest.mark.parametrize(
    ("fields", "now", "end"),
    [
        (OFFICE, "2026-11-20T08:00", "2026-11-20T16:00"),
        ({"weekdays": ["saturday", "sunday"]}, "2026-11-21T01:00", "2026-11-23T00:00"),
        ({"weekdays": ["saturday", "sunday"], "ends": "2026-11-22T06:00:00Z"}, "2026-11-21T01:00", "2026-11-22T06:00"),
        (
            {"weekdays": ["sunday"], "location": "Europe/Berlin"},
            "2026-10-25T00:00",
            "2026-10-25T23:00",
        ),  # 25 hours long
        ({"begins": "2026-12-20T00:00:00Z", "ends": "2027-01-04T00:00:00Z"}, "2026-12-24T18:00", "2027-01-04T00:00"),
        (
            {"times": [{"start_time": "22:00", "end_time": "24:00"}, {"start_time": "00:00", "end_time": "06:00"}]},
            "2026-11-20T23:00",
            "2026-11-21T06:00",
        ),
    ],
)
def test_a_freeze_ends_when_it_stops_to_hold(fields: dict[str, Any], now: str, end: str) -> None:
    """Over ranges that touch, days that follow each other and changes of the clock."""
    assert at(end) == freeze(**fields).end(at(now))


def test_a_freeze_for_ever_is_looked_at_again() -> None:
    """Without an end it is decided again one day."""
    now = at("2026-11-20T08:00")
    assert now + timedelta(days=300) < freeze(begins="2020-01-01T00:00:00Z").end(now) < now + timedelta(days=500)


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive bounds
    st.lists(st.sampled_from(["monday", "tuesday:thursday", "friday", "sunday"]), unique=True),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    st.sampled_from([("00:00", "24:00"), ("09:00", "17:00"), ("01:30", "02:30")]),
)
def test_it_holds_until_its_end_and_no_longer(
    moment: datetime, weekdays: list[str], zone: str, hours: tuple[str, str]
) -> None:
    """Whatever the zone does to its clocks."""
    times = [{"start_time": hours[0], "end_time": hours[1]}]
    one = freeze(weekdays=weekdays, times=times, location=zone)
    now = moment.replace(tzinfo=UTC, second=0, microsecond=0)
    if not one.holds(now):
        assert now == one.end(now)
        return
    end = one.end(now)
    if end < now + timedelta(days=400):
        assert not one.holds(end)
    assert one.holds(min(end, now + timedelta(days=400)) - MINUTE) or end - now < MINUTE


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "says no time"),
        ({"weekdays": ["funday"]}, "weekday"),
        ({"months": ["december:january"]}, "ends before it begins"),
        ({"days_of_month": ["12:10"]}, "ends before it begins"),
        ({"days_of_month": ["-1:-2"]}, "ends before it begins"),
        ({"days_of_month": [0]}, "day of the month"),
        ({"days_of_month": ["32"]}, "day of the month"),
        ({"months": ["13"]}, "month"),
        ({"times": [{"start_time": "9:00", "end_time": "17:00"}]}, "time of day"),
        ({"times": [{"start_time": "22:00", "end_time": "06:00"}]}, "two ranges"),
        ({"weekdays": ["monday"], "location": "Mars/Olympus"}, "time zone"),
        ({"begins": "2026-12-20T00:00:00"}, "timezone"),
        ({"begins": "2026-12-20T00:00:00Z", "ends": "2026-12-20T00:00:00Z"}, "ends must be after"),
        ({"weekdays": ["monday"], "remediations": []}, "at least 1"),
    ],
)
def test_what_is_no_time_is_refused(fields: dict[str, Any], complaint: str) -> None:
    """With what is wrong."""
    with pytest.raises(ValidationError, match=complaint):
        freeze(**fields)


def test_a_freeze_may_concern_some_remediations() -> None:
    """By name or by a part of it."""
    some = freeze(weekdays=["monday"], remediations=["shop-*", "cache-flush"])
    assert [True, True, False] == [some.concerns(name) for name in ("shop-api-down", "cache-flush", "cache")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (OFFICE, "monday:friday; 09:00-17:00; Europe/Berlin"),
        ({"days_of_month": ["-3:-1"], "months": ["november:december"]}, "day -3:-1; november:december; UTC"),
        (
            {"begins": "2026-12-20T18:00:00+01:00", "ends": "2027-01-02T00:00:00Z"},
            "from 2026-12-20T18:00:00+01:00; to 2027-01-02T00:00:00+00:00",
        ),
    ],
)
def test_its_times_are_said_in_one_line(fields: dict[str, Any], expected: str) -> None:
    """As they are written."""
    assert expected == freeze(**fields).when


@pytest.mark.parametrize(
    ("fields", "now", "expected"),
    [
        ({"ends": "2026-03-01T12:00:00Z"}, "2026-03-01T12:00", True),
        ({"ends": "2026-03-01T12:00:00Z"}, "2026-03-01T11:59", False),
        ({"years": ["2024:2025"]}, "2026-01-01T00:00", True),
        ({"years": ["2024", "2026"]}, "2026-12-31T00:00", False),
        (OFFICE, "2026-11-20T22:00", False),
    ],
)
def test_one_that_will_never_hold_again_is_over(fields: dict[str, Any], now: str, *, expected: bool) -> None:
    """By its end or by its years."""
    assert freeze(**fields).is_over(at(now)) is expected


# Where and when clocks are set: by an hour at night, by half an hour, at midnight, and twice within a year elsewhere.
_SHIFTS = [
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("America/New_York", "2026-03-08T07:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("America/Santiago", "2026-04-05T03:00"),
    ("America/Santiago", "2026-09-06T04:00"),
    ("America/Havana", "2026-11-01T05:00"),
    ("America/Havana", "2026-03-08T05:00"),
    ("Atlantic/Azores", "2026-10-25T01:00"),
    ("Africa/Casablanca", "2026-02-15T02:00"),
]
_CLOCK = st.builds("{:02}:{:02}".format, st.one_of(st.integers(0, 3), st.sampled_from([22, 23])), st.integers(0, 59))

_HOURS = st.tuples(_CLOCK, st.one_of(_CLOCK, st.just("24:00"))).filter(lambda hours: "00:00" != hours[0] < hours[1])


@settings(max_examples=150)
@given(
    st.sampled_from(_SHIFTS),
    st.integers(-240, 240),
    st.lists(_HOURS, max_size=3),
    st.lists(st.sampled_from(["saturday", "sunday"]), max_size=1),
)
def test_it_ends_at_the_very_minute_on_the_night_the_clocks_are_set(
    shift: tuple[str, str], offset: int, hours: list[tuple[str, str]], weekdays: list[str]
) -> None:
    """Held against a look at every minute: an hour that comes twice, or not at all, has no end of its own."""
    zone, night = shift
    assume(hours or weekdays)
    times = [{"start_time": start, "end_time": end} for start, end in hours]
    one = freeze(times=times, weekdays=weekdays, location=zone)
    now = at(night) + offset * MINUTE
    minutes = (now + number * MINUTE for number in range(60 * 24 * 2))
    assert next(minute for minute in minutes if not one.holds(minute)) == one.end(now)


def test_the_night_the_clocks_go_back_is_not_waited_out() -> None:
    """From 02:10 the second time a freeze until 02:30 lasts 20 minutes, not until midnight."""
    one = freeze(times=[{"start_time": "00:00", "end_time": "02:30"}], location="Europe/Berlin")
    assert at("2026-10-25T01:30") == one.end(at("2026-10-25T01:10"))


def test_an_end_that_is_left_out_is_the_moment_at_which_the_clocks_are_set() -> None:
    """At 03:00 in summer time a freeze until 02:30 is over: half an hour earlier than 02:30 in winter time."""
    one = freeze(times=[{"start_time": "01:00", "end_time": "02:30"}], location="Europe/Berlin")
    assert at("2026-03-29T01:00") == one.end(at("2026-03-29T00:40"))
