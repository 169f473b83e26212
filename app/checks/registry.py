"""All checks by name, found on disk."""

from __future__ import annotations

from functools import cache
from typing import Any

import app.checks
from app.checks.base import Check
from app.domain.registry import discover


@cache
def checks() -> dict[str, Check[Any]]:
    """The checks that catalogs may use."""
    return discover(app.checks, Check)  # type: ignore[type-abstract]
