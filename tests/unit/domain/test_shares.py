"""Shares of a population, as Kubernetes writes them."""

from __future__ import annotations

import pytest

from app.domain.int_or_percent import Share, parse_share
from app.domain.moments import MAX_COUNT


@pytest.mark.parametrize(
    ("text", "share", "of_ten"),
    [
        (0, Share(count=0), 0),
        (3, Share(count=3), 3),
        (MAX_COUNT, Share(count=MAX_COUNT), MAX_COUNT),
        ("0%", Share(percent=0), 0),
        ("39%", Share(percent=39), 3),
        ("100%", Share(percent=100), 10),
    ],
)
def test_a_share_is_a_number_or_a_percentage(text: object, share: Share, of_ten: int) -> None:
    """A percentage of a population is rounded down; what is written is what is read."""
    assert share == parse_share(text) == parse_share(share)
    assert (of_ten, str(text)) == (share.of(10), str(share))


@pytest.mark.parametrize("text", [-1, MAX_COUNT + 1, True, 1.5, None, "101%", "3", "%", "-1%", "\u0663%"])
def test_what_is_no_share_is_refused_with_an_example(text: object) -> None:
    """Also more than all of them, and digits of other scripts."""
    with pytest.raises(ValueError, match="for example 3 or 40%"):
        parse_share(text)
