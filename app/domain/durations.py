"""Durations and rates as Prometheus users write them: ``90s``, ``1h30m``, ``3/1h, 7/1d``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from app.domain.moments import MAX_COUNT

# The grammar of github.com/prometheus/common/model.ParseDuration: units in this order, each at most once.
_PATTERN = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS_MS = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1)
_NAMES = ("y", "w", "d", "h", "m", "s", "ms")
_MAX_MS = 100 * _UNITS_MS[0]
_MAX_LENGTH = 100  # characters of a duration or a rate that anybody writes


def parse_duration(text: object) -> timedelta:
    """Read a Prometheus duration; raises ValueError with an example of the right form."""
    if isinstance(text, timedelta):
        return text
    if text == "0":
        return timedelta()
    match = _PATTERN.fullmatch(text) if isinstance(text, str) and 0 < len(text) <= _MAX_LENGTH else None
    if match is None:
        msg = f"{_shown(text)} is not a duration; write it as Prometheus does, for example 90s, 5m or 1h30m"
        raise ValueError(msg)
    total = sum(int(count) * unit for count, unit in zip(match.groups(), _UNITS_MS, strict=True) if count)
    if total > _MAX_MS:
        msg = f"{text!r} is longer than 100y"
        raise ValueError(msg)
    return timedelta(milliseconds=total)


def _shown(text: object) -> str:
    return repr(text if not isinstance(text, str) or len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}...")


def format_duration(duration: timedelta) -> str:
    """Write a duration as Prometheus does; the inverse of `parse_duration` down to the millisecond."""
    rest = round(duration.total_seconds() * 1000)
    if rest == 0:
        return "0s"
    parts = []
    for unit, name in zip(_UNITS_MS[2:], _NAMES[2:], strict=True):
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$",
            "examples": ["5m", "1h30m"],
        }
    ),
]


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` admissions in any window of length `window`."""

    count: int
    window: timedelta

    def __str__(self) -> str:
        return f"{self.count}/{format_duration(self.window)}"


def parse_rates(text: object) -> tuple[Rate, ...]:
    """Read ``3/1h, 7/1d`` (every window holds at once); raises ValueError that names the part that is wrong."""
    if isinstance(text, tuple):
        return text
    if not isinstance(text, str):
        msg = f"{_shown(text)} is not a rate; write it as count/duration, for example 3/1h or 3/1h, 7/1d"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns ValueError, not TypeError, into a validation error
    rates = []
    for part in (piece.strip() for piece in text.split(",")):
        count, slash, window = part.partition("/")
        digits = count.strip() if len(part) <= _MAX_LENGTH else ""
        if not slash or not digits.isascii() or not digits.isdigit() or int(digits) < 1:
            msg = f"{_shown(part)} is not a rate; write it as count/duration, for example 3/1h"
            raise ValueError(msg)
        if int(digits) > MAX_COUNT:
            msg = f"{part!r} counts more than {MAX_COUNT}, which is as good as no limit"
            raise ValueError(msg)
        duration = parse_duration(window.strip())
        if not duration:
            msg = f"{part!r} has an empty window"
            raise ValueError(msg)
        rates.append(Rate(int(digits), duration))
    return tuple(rates)


def format_rates(rates: Iterable[Rate]) -> str:
    """Write rates as `parse_rates` reads them."""
    return ", ".join(str(rate) for rate in rates)


Rates = Annotated[
    tuple[Rate, ...],
    BeforeValidator(parse_rates),
    PlainSerializer(format_rates, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["3/1h", "3/1h, 7/1d"]}),
]
