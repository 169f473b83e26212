"""All checks by name, found on disk."""

from __future__ import annotations

from functools import cache
from typing import Any

from app.backends.check import Check
from app.backends.registry import Found, discover


@cache
def checks() -> dict[str, Check[Any]]:
    """Return the checks that catalogs may use, by name."""
    return Found("check", discover("checks", Check))  # type: ignore[type-abstract]
