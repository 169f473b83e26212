"""Ids sort by time."""

from __future__ import annotations

import uuid
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.domain.ids import lowest_id, new_id
from tests.support.alerts import NOW


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=20, unique=True))
def test_ids_sort_as_their_times(offsets: list[int]) -> None:
    """The order of the text is the order of the milliseconds."""
    ids = {offset: new_id(NOW + timedelta(milliseconds=offset)) for offset in offsets}
    assert [ids[offset] for offset in sorted(offsets)] == sorted(ids.values())


def test_ids_of_one_moment_sort_as_they_were_made() -> None:
    """Within a millisecond the order of the calls counts, and no two are the same."""
    ids = [new_id(NOW) for _ in range(1000)]
    assert sorted(set(ids)) == ids


def test_an_id_holds_its_time_to_the_millisecond() -> None:
    """So that the primary key answers for the time: no id of a moment or later sorts before its lowest one."""
    assert int(NOW.timestamp() * 1000) == uuid.UUID(new_id(NOW)).int >> 80
    assert new_id(NOW - timedelta(milliseconds=1)) < lowest_id(NOW) < new_id(NOW)


def test_ids_are_uuids_of_version_seven() -> None:
    """Any tool reads them as what they are."""
    made = uuid.UUID(new_id(NOW))
    assert (7, uuid.RFC_4122) == (made.version, made.variant)
