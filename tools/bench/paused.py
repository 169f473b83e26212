"""The service without its take-in, to measure what recording alone costs: `python -m tools.bench.paused serve …`."""

from __future__ import annotations

import asyncio
from typing import Any

from app import cli, main


async def _never(*_given: Any) -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    main.take_in_forever = _never
    cli.main()
