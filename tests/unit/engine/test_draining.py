"""SIGTERM between two tries of a step: the replica leaves at once, and the next one begins the step anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.backends.scope import Scope
from app.domain.reasons import Reason
from app.domain.states import RunState
from tests.support.aio import run
from tests.support.engine import Engine, engine, sqlite, until
from tests.support.entries import asked, poke, request
from tests.support.web import WebServer

GRACE = 30.0


async def left(one: Engine, sink: WebServer) -> None:
    """Fire an alert whose step waits between two tries, and drain in the meantime."""
    sink.status, sink.headers = 503, {"Retry-After": "60"}
    await one.fire()
    await until(lambda: tried(sink), 10, "the first try")
    one.loops[1].cancel()  # the service stops to claim before it drains
    async with asyncio.timeout(GRACE / 3):
        await one.worker.drain(GRACE)
    sink.status, sink.headers = 200, {}


async def tried(sink: WebServer) -> bool:
    """Whether the step was called."""
    return bool(asked(sink))


def test_a_step_between_two_tries_is_left_to_the_next_replica(tmp_path: Path, sink: WebServer) -> None:
    """Which has the whole of the step's time, and makes an end of the run."""

    async def scenario() -> None:
        entry = poke(sink, steps=[request(sink, timeout="2m")])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await left(one, sink)
            (row,) = await one.runs()
            assert (RunState.RUNNING, None, 1) == (row.state, row.lease_owner, asked(sink))
            assert "step_left" in await one.kinds(row.id)
        async with engine(sqlite(tmp_path), tmp_path, entry, owner="replica-2") as two:
            (row,) = await two.ended(count=1)
            assert (RunState.SUCCEEDED, 2) == (row.state, asked(sink))

    run(scenario())


def test_what_has_left_the_scope_is_not_applied(tmp_path: Path, sink: WebServer) -> None:
    """A run that was admitted under another configuration, or written into the store by somebody, ends untouched."""

    async def scenario() -> None:
        entry = poke(sink, steps=[request(sink, timeout="2m")])
        async with engine(sqlite(tmp_path), tmp_path, entry) as one:
            await left(one, sink)
        elsewhere = Scope(http={"hosts": ("elsewhere.example",)})
        async with engine(sqlite(tmp_path), tmp_path, entry, owner="replica-2", scope=elsewhere) as two:
            (row,) = await two.ended(count=1)
            assert (RunState.FAILED, Reason.OUT_OF_SCOPE, 1) == (row.state, row.reason, asked(sink))
            assert "not in scope" in row.message

    run(scenario())
