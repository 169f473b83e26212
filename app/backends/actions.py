"""All actions by name, found on disk."""

from __future__ import annotations

from functools import cache
from typing import Any

from app.backends.action import Action
from app.backends.registry import Found, discover


@cache
def actions() -> dict[str, Action[Any]]:
    """Return the actions that catalogs may use, by name."""
    return Found("action", discover("actions", Action))  # type: ignore[type-abstract]
