"""The rule by which a record moves a mode: whatever the runs are, it never skips a step nor passes its bounds."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.remediation import Earn, Mode, Remediation
from app.domain.standings import Mark, after, beginning
from tests.support.engine import read

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_counts = st.integers(min_value=1, max_value=4)
_modes = st.sampled_from(Mode)


def earning(mode: Mode, **earn: object) -> Remediation:
    """A remediation that may come as far as `mode`."""
    return read(mode=mode.value).model_copy(update={"earn": Earn.model_validate(earn)})


@settings(max_examples=2000, deadline=None)
@given(
    mode=_modes,
    start=_modes,
    needs=st.tuples(_counts, _counts, _counts),
    marks=st.lists(st.sampled_from(Mark), max_size=40),
)
def test_one_step_at_a_time_within_its_bounds(
    mode: Mode, start: Mode, needs: tuple[int, int, int], marks: list[Mark]
) -> None:
    """Up only after enough good runs in a row, down only after enough bad ones; never above the remediation's mode."""
    approve_after, auto_after, demote_after = needs
    remediation = earning(
        mode, start=start, approve_after=approve_after, auto_after=auto_after, demote_after=demote_after
    )
    standing = beginning(remediation, NOW)
    assert standing is not None
    since: list[Mark] = []
    for mark in marks:
        since.append(mark)
        later = after(standing, mark, remediation, NOW)
        assert later.mode.rank <= mode.rank
        step = later.mode.rank - standing.mode.rank
        assert abs(step) <= 1
        if step > 0:
            needed = approve_after if standing.mode is Mode.OBSERVE else auto_after
            assert Mark.BAD is not mark
            assert len(since) >= needed
            assert Mark.BAD not in since[-needed:]
        if step < 0:
            assert [Mark.BAD] * demote_after == [one for one in since if one is Mark.BAD][-demote_after:]
            assert mark is Mark.BAD
        if step:
            assert (0, 0) == (later.good, later.bad)
            since = []
        standing = later


def test_words_for_people_are_no_part_of_what_it_does() -> None:
    """A digest that stays when the file is only explained better, and changes with anything else."""
    one = read(earn={})
    for field, value in (("summary", "x"), ("description", "x"), ("runbook_url", "https://x"), ("channel", "x")):
        assert one.deed == read(earn={}, **{field: value}).deed
    for field, value in (
        ("max_age", "2d"),
        ("mode", "approve"),
        ("limits", {"cooldown": "1h"}),
        ("earn", {"start": "approve"}),
    ):
        assert one.deed != read(**({"earn": {}} | {field: value})).deed
