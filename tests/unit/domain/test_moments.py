"""Moments within bounds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from app.domain.moments import EARLIEST, LATEST, BoundedMoment, clamp

READ = TypeAdapter(BoundedMoment).validate_python


@pytest.mark.parametrize("year", [1971, 8999])
def test_a_moment_within_the_bounds_is_taken(year: int) -> None:
    """The first year and the last one among them."""
    moment = datetime(year, 6, 1, tzinfo=UTC)
    assert moment == READ(moment) == clamp(moment)


@pytest.mark.parametrize(("year", "nearest"), [(1, EARLIEST), (1969, EARLIEST), (9000, LATEST), (9999, LATEST)])
def test_a_moment_beyond_the_bounds_is_refused_and_may_be_clamped(year: int, nearest: datetime) -> None:
    """What is configured is refused, what is searched for ends at the bounds."""
    moment = datetime(year, 6, 1, tzinfo=UTC)
    with pytest.raises(ValidationError, match="after the year 1970 and before the year 9000"):
        READ(moment)
    assert nearest == clamp(moment)


@pytest.mark.parametrize("year", [1970, 9000])
def test_the_years_of_the_bounds_are_refused(year: int) -> None:
    """An offset could lead out of them."""
    with pytest.raises(ValidationError):
        READ(datetime(year, 6, 1, tzinfo=UTC))
