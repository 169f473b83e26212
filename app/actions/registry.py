"""All actions by name, found on disk."""

from __future__ import annotations

from functools import cache
from typing import Any

import app.actions
from app.actions.base import Action
from app.domain.registry import discover


@cache
def actions() -> dict[str, Action[Any]]:
    """The actions that catalogs may use."""
    return discover(app.actions, Action)  # type: ignore[type-abstract]
