"""The engine's loops end when they are told to, whatever arrives at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from app.engine.stages.intake import take_in_forever
from tests.support.aio import run
from tests.support.engine import Engine, engine, sqlite
from tests.support.entries import poke
from tests.support.web import WebServer

Loop = tuple[Callable[[Engine], Coroutine[None, None, None]], Callable[[Engine], asyncio.Event]]
LOOPS: dict[str, Loop] = {
    "worker": (lambda one: one.worker.work_forever(), lambda one: one.parts.work),
    "take-in": (lambda one: take_in_forever(one.parts, one.box), lambda one: one.box.recorded),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("turns", range(4))
def test_a_wake_up_does_not_swallow_the_end(tmp_path: Path, sink: WebServer, name: str, turns: int) -> None:
    """A loop that is woken and cancelled within a few turns of the event loop has ended."""

    async def scenario() -> None:
        start, wake = LOOPS[name]
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), working=False) as one:
            loop = asyncio.create_task(start(one))
            while not wake(one)._waiters:  # it naps
                await asyncio.sleep(0.01)
            wake(one).set()
            for _ in range(turns):
                await asyncio.sleep(0)
            loop.cancel()
            done, _ = await asyncio.wait({loop}, timeout=5)
            assert {loop} == done

    run(scenario())
