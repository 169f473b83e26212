"""Moments and counts within bounds that every sum, database and language keeps to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
MAX_COUNT = 2**31 - 1  # the limits of a column of the store and a number of Kubernetes


def _bounded(moment: datetime) -> datetime:
    # Compared before anything is added: an offset can lead out of the calendar.
    if not EARLIEST.year < moment.year < LATEST.year:
        raise ValueError(f"must be a time after the year {EARLIEST.year} and before the year {LATEST.year}")
    return moment


def clamp(moment: datetime) -> datetime:
    """The moment, or the end of the bounds that is nearest to it: nothing that is searched lies beyond."""
    return min(max(moment, EARLIEST), LATEST)


BoundedMoment = Annotated[AwareDatetime, AfterValidator(_bounded)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Positive = Annotated[int, Field(ge=1, le=MAX_COUNT)]
