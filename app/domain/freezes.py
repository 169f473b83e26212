"""Freezes: times at which the service changes nothing, once or again and again.

Recurring freezes follow the vocabulary of Alertmanager's time intervals
(https://prometheus.io/docs/alerting/latest/configuration/#time_interval), so that operators need not learn another one.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from app.domain.model import Value
from app.domain.moments import EARLIEST, LATEST, BoundedMoment
from app.domain.remediation import Name

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = tuple(calendar.month_name[number].lower() for number in range(1, 13))
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)
_MIDNIGHT = "24:00"
_LOOK_AHEAD = timedelta(days=400)  # a longer freeze is looked at again then
_LONGEST_MONTH = 31


def _weekday(text: str) -> int:
    return _WEEKDAYS.index(text)


def _month(text: str) -> int:
    return _MONTHS.index(text) + 1 if text in _MONTHS else _within(int(text), 1, len(_MONTHS))


def _day(text: str) -> int:
    return _within(int(text), -_LONGEST_MONTH, _LONGEST_MONTH)


def _year(text: str) -> int:
    return _within(int(text), EARLIEST.year, LATEST.year)


def _within(number: int, lowest: int, highest: int) -> int:
    if number == 0 or not lowest <= number <= highest:
        raise ValueError(number)
    return number


def _span(text: str, read: Callable[[str], int]) -> tuple[int, int]:
    """The two ends of `low:high`, or twice the one that is given."""
    low, _, high = text.strip().lower().partition(":")
    return read(low), read(high or low)


def _spans(what: str, read: Callable[[str], int], *, wraps: bool = False) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            low, high = _span(text, read)
        except ValueError:
            raise ValueError(f"{text!r} is not {what}") from None
        if low > high and (low < 0) == (high < 0) and not wraps:
            raise ValueError(f"{text!r} ends before it begins")
        return text

    return check


def _text(value: object) -> object:
    """YAML reads a bare `2026` or `-1` as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _clock(text: str) -> str:
    if text != _MIDNIGHT and not _CLOCK.fullmatch(text):
        raise ValueError(f"{text!r} is not a time of day; write it as 09:00, at the latest {_MIDNIGHT}")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{text!r} is not a time zone; write it as Europe/Berlin") from None
    return text


_OR_NUMBER = WithJsonSchema({"type": ["string", "integer"]})
# Alertmanager's weeks begin on Sunday and those of many people on Monday; a range is the same days for both.
Weekdays = Annotated[str, AfterValidator(_spans("a weekday or a range, such as monday:friday", _weekday, wraps=True))]
Days = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_spans("a day of the month or a range, such as 1:5 or -3:-1", _day)),
    _OR_NUMBER,
]
Months = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_spans("a month or a range, such as november:december", _month)),
    _OR_NUMBER,
]
Years = Annotated[
    str, BeforeValidator(_text), AfterValidator(_spans("a year or a range, such as 2026:2027", _year)), _OR_NUMBER
]
ClockTime = Annotated[str, AfterValidator(_clock)]


class TimeRange(Value):
    """A part of a day, the end excluded."""

    start_time: ClockTime
    end_time: ClockTime

    @model_validator(mode="after")
    def _in_order(self) -> TimeRange:
        if self.start_time >= self.end_time:
            raise ValueError("end_time must be after start_time; for a night write two ranges")
        return self


class Freeze(Value):
    """The times of a freeze, and its remediations; a field without a value does not restrict."""

    name: Name
    summary: str = Field(min_length=1, max_length=200, description="Why; shown wherever a run waits for it.")
    begins: BoundedMoment | None = Field(default=None, description="Not before this moment, with its offset.")
    ends: BoundedMoment | None = Field(default=None, description="No longer than to this moment, with its offset.")
    times: tuple[TimeRange, ...] = ()
    weekdays: tuple[Weekdays, ...] = ()
    days_of_month: tuple[Days, ...] = Field(default=(), description="From the end of the month with a minus.")
    months: tuple[Months, ...] = ()
    years: tuple[Years, ...] = ()
    location: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="Time zone of all but begins and ends."
    )
    remediations: tuple[str, ...] = Field(default=("*",), min_length=1, description="Names, with * for any part.")

    @model_validator(mode="after")
    def _says_when(self) -> Freeze:
        if self.begins is None and self.ends is None and not self._recurs:
            raise ValueError("says no time; give begins and ends, or times, weekdays, days_of_month, months or years")
        if self.begins is not None and self.ends is not None and self.begins >= self.ends:
            raise ValueError("ends must be after begins")
        return self

    @property
    def _recurs(self) -> bool:
        return bool(self.times or self.weekdays or self.days_of_month or self.months or self.years)

    @property
    def when(self) -> str:
        """Its times in one line, as they are written."""
        listed = [self.weekdays, [f"day {day}" for day in self.days_of_month], self.months, self.years]
        listed.append([f"{part.start_time}-{part.end_time}" for part in self.times])
        parts = [", ".join(one) for one in listed if one]
        parts += [self.location] if self._recurs else []
        parts += [f"from {self.begins.isoformat()}"] if self.begins is not None else []
        parts += [f"to {self.ends.isoformat()}"] if self.ends is not None else []
        return "; ".join(parts)

    def is_over(self, now: datetime) -> bool:
        """Whether it holds at no moment from now on."""
        year = now.astimezone(ZoneInfo(self.location)).year
        last_year = max((_span(text, _year)[1] for text in self.years), default=year)
        return last_year < year or (self.ends is not None and self.ends <= now)

    def concerns(self, remediation: str) -> bool:
        """Whether it holds for the remediation of this name."""
        return any(fnmatchcase(remediation, pattern) for pattern in self.remediations)

    def holds(self, now: datetime) -> bool:
        """Whether it holds at this moment."""
        if (self.begins is not None and now < self.begins) or (self.ends is not None and now >= self.ends):
            return False
        local = now.astimezone(ZoneInfo(self.location))
        return all(
            (
                _among(self.weekdays, _weekday, local.weekday()),
                _among(self.months, _month, local.month),
                _among(self.years, _year, local.year),
                self._has_day(local),
                self._has_time(local),
            )
        )

    def end(self, now: datetime) -> datetime:
        """When a freeze that holds at `now` stops to hold; far ahead, where that is far ahead."""
        moment = now
        while self.holds(moment) and moment < now + _LOOK_AHEAD:
            edge = min(edge for edge in self._edges(moment) if edge > moment)
            moment = min(edge, _next_shift(moment, edge, ZoneInfo(self.location)))
        return moment

    def _edges(self, moment: datetime) -> Iterator[datetime]:
        """When it may stop: the ends of today's ranges, midnight, and its own end.

        On the night the clocks go back a time of day comes twice. So both are edges.
        """
        zone = ZoneInfo(self.location)
        today = moment.astimezone(zone).date()
        ends = [time.fromisoformat(part.end_time) for part in self.times if part.end_time != _MIDNIGHT]
        for day, clock in [(today + timedelta(days=1), time()), *((today, end) for end in ends)]:
            for fold in (0, 1):
                yield datetime.combine(day, clock.replace(fold=fold), zone).astimezone(UTC)
        yield moment + timedelta(days=2)  # should a zone leave out a whole day
        if self.ends is not None:
            yield self.ends.astimezone(UTC)

    def _has_day(self, local: datetime) -> bool:
        length = calendar.monthrange(local.year, local.month)[1]
        return not self.days_of_month or any(
            _from_start(low, length) <= local.day <= _from_start(high, length)
            for low, high in (_span(text, _day) for text in self.days_of_month)
        )

    def _has_time(self, local: datetime) -> bool:
        clock = f"{local:%H:%M}"
        return not self.times or any(part.start_time <= clock < part.end_time for part in self.times)


def _next_shift(begin: datetime, end: datetime, zone: ZoneInfo) -> datetime:
    """When the zone's clocks are first set anew between two moments; the later moment where they are not.

    A range can end in an hour that is left out; it ends then at the moment at which the clocks are set.
    """
    before = begin.astimezone(zone).utcoffset()
    if end.astimezone(zone).utcoffset() == before:
        return end
    low, high = int(begin.timestamp()), math.ceil(end.timestamp())
    while high - low > 1:
        middle = (low + high) // 2
        same = datetime.fromtimestamp(middle, zone).utcoffset() == before
        low, high = (middle, high) if same else (low, middle)
    return datetime.fromtimestamp(high, UTC)


def _among(spans: tuple[str, ...], read: Callable[[str], int], value: int) -> bool:
    """Whether a value is in one of the spans; one that ends before it begins goes over the end of the week."""
    return not spans or any(
        low <= value <= high if low <= high else value >= low or value <= high
        for low, high in (_span(text, read) for text in spans)
    )


def _from_start(day: int, length: int) -> int:
    return day if day > 0 else length + 1 + day
