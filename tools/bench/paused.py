"""The service without one of its loops, to measure what the others cost: `… tools.bench.paused take-in serve …`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from app import cli, main


async def _never(*_given: Any) -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv.pop(1) == "take-in":
        main.take_in_forever = _never
    else:
        main.Worker.work_forever = _never  # type: ignore[method-assign]
    cli.main()
