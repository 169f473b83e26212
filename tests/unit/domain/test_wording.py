"""Words for people."""

from __future__ import annotations

import pytest

from app.domain.wording import on_target


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("redis:cache/0", " on redis:cache/0"),
        ("redis:cache\n/0", " on redis:cache /0"),
        ("none:turn/0123456789abcdef", ""),
        (None, ""),
    ],
)
def test_only_a_target_is_named(key: str | None, told: str) -> None:
    """The key of a remediation without one says nothing to people."""
    assert told == on_target(key)
