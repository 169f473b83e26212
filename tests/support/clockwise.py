"""The service on a machine whose clock is wrong: `python -m tests.support.clockwise 3600 serve --store ...`."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime, timedelta
from typing import Any


def ahead(by: timedelta) -> list[str]:
    """What runs the service, `remediator` put before its arguments, so far ahead of everybody else, or behind."""
    return [sys.executable, "-m", "tests.support.clockwise", f"{by.total_seconds():g}"]


if __name__ == "__main__":
    by = timedelta(seconds=float(sys.argv[1]))
    main: Any = importlib.import_module("app.main")
    main.utc_now = lambda: datetime.now(UTC) + by
    sys.argv = ["remediator", *sys.argv[2:]]
    importlib.import_module("app.cli").main()
