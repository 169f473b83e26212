"""The rule by which a record moves a mode: whatever the runs are, it never skips a step nor passes its bounds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.earned_mode import Mark, Standing, after, beginning
from app.domain.remediation import Earn, Mode, Remediation
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


@pytest.mark.parametrize(
    ("mode", "marks", "expected"),
    [
        (Mode.OBSERVE, [Mark.WOULD_ACT] * 2, (Mode.OBSERVE, 2, 0)),
        (Mode.OBSERVE, [Mark.WOULD_ACT] * 3, (Mode.APPROVE, 0, 0)),
        (Mode.OBSERVE, [Mark.HELPED] * 3, (Mode.OBSERVE, 0, 0)),
        (Mode.OBSERVE, [Mark.BAD] * 3, (Mode.OBSERVE, 0, 3)),
        (Mode.OBSERVE, [Mark.WOULD_ACT, Mark.WOULD_ACT, Mark.BAD, Mark.WOULD_ACT], (Mode.OBSERVE, 1, 0)),
        (Mode.APPROVE, [Mark.HELPED_AFTER_APPROVAL], (Mode.APPROVE, 1, 0)),
        (Mode.APPROVE, [Mark.HELPED_AFTER_APPROVAL] * 2, (Mode.AUTO, 0, 0)),
        (Mode.APPROVE, [Mark.HELPED] * 2, (Mode.APPROVE, 0, 0)),
        (Mode.APPROVE, [Mark.BAD], (Mode.APPROVE, 0, 1)),
        (Mode.APPROVE, [Mark.BAD] * 2, (Mode.OBSERVE, 0, 0)),
        (Mode.APPROVE, [Mark.HELPED_AFTER_APPROVAL, Mark.BAD], (Mode.APPROVE, 0, 1)),
        (Mode.APPROVE, [Mark.BAD, Mark.HELPED_AFTER_APPROVAL], (Mode.APPROVE, 1, 0)),
        (Mode.AUTO, [Mark.HELPED, Mark.HELPED_AFTER_APPROVAL, Mark.HELPED], (Mode.AUTO, 3, 0)),
        (Mode.AUTO, [Mark.BAD] * 2, (Mode.APPROVE, 0, 0)),
    ],
)
def test_it_moves_at_that_run_and_not_before(mode: Mode, marks: list[Mark], expected: tuple[Mode, int, int]) -> None:
    """Three runs that would act, two that helped after a yes, two bad ones in a row: each count alone, and exactly."""
    remediation = earning(Mode.AUTO, approve_after=3, auto_after=2, demote_after=2)
    standing = Standing("digest", mode, NOW)
    for mark in marks:
        standing = after(standing, mark, remediation, NOW)
    assert expected == (standing.mode, standing.good, standing.bad)
    assert "digest" == standing.digest


def test_what_has_come_as_far_as_it_may_stays_there() -> None:
    """The remediation's own mode is the last one."""
    standing = Standing("digest", Mode.APPROVE, NOW)
    for _ in range(5):
        standing = after(standing, Mark.HELPED_AFTER_APPROVAL, earning(Mode.APPROVE, auto_after=2), NOW)
    assert (Mode.APPROVE, 5) == (standing.mode, standing.good)


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
