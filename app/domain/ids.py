"""Identifiers that sort by the time they were made: UUIDs of version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
from datetime import datetime

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62
_last = 0


def new_id(now: datetime) -> str:
    """An id whose text order is the order of `now`; of calls in a row for one moment also the order of the calls."""
    global _last  # noqa: PLW0603 - the order of calls within a millisecond is state of the process
    milliseconds = int(now.timestamp() * 1000) & ((1 << 48) - 1)
    random = int.from_bytes(os.urandom(10), "big") >> 6
    value = (milliseconds << 80) | _VERSION_7 | ((random >> 62) << 64) | _VARIANT | (random & ((1 << 62) - 1))
    if value <= _last and value >> 80 == _last >> 80:
        value = _last + 1
    _last = value
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def lowest_id(moment: datetime) -> str:
    """Return a bound below every id made at `moment` or later; lets a primary key answer for the time."""
    digits = f"{max(0, int(moment.timestamp() * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}"
