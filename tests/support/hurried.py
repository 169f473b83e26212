"""The service with constants of its own set, so that what comes once in ten minutes comes many times in a test.

The product has no setting for these: they are set in the process, before it starts.
`python -m tests.support.hurried app.engine.background.housekeeping._PRUNE_SECONDS=0.3 serve --store ...` (`hurried`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from datetime import timedelta

from app.cli import main


def hurried(constants: Mapping[str, float]) -> list[str]:
    """What runs the service, `remediator` put before its arguments, with these constants in it."""
    return [sys.executable, "-m", "tests.support.hurried", *(f"{name}={value}" for name, value in constants.items())]


def _set(path: str, seconds: float) -> None:
    module_name, _, name = path.rpartition(".")
    module = importlib.import_module(module_name)
    before = getattr(module, name)
    setattr(module, name, timedelta(seconds=seconds) if isinstance(before, timedelta) else type(before)(seconds))


if __name__ == "__main__":
    words = sys.argv[1:]
    while "=" in words[0]:
        path, _, value = words.pop(0).partition("=")
        _set(path, float(value))
    sys.argv = ["remediator", *words]
    main()
