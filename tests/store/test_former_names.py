"""Names that were changed: the store keeps the old ones, and everything that reads it shows the new ones."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from app.domain.reasons import Reason
from app.domain.states import RunState
from app.store.audit import stream
from app.store.audit.seals import Cursor
from app.store.audit.stream import Wanted
from app.store.audit.verify import verify
from app.store.db.schema import run as run_table
from tests.support.aio import run
from tests.support.engine import Engine, engine
from tests.support.entries import poke
from tests.support.web import WebServer


async def _stored(one: Engine, table: str, column: str) -> str:
    async with one.database.read() as tx:
        rows = await tx.execute(text(f"SELECT {column} FROM {table}"))
        return " ".join(str(row[0]) for row in rows)


def test_the_release_before_can_read_what_this_one_writes(store: str, tmp_path: Path, sink: WebServer) -> None:
    """A run that waits for its rate, found by its reason; the audit is intact by the old name, too."""

    async def scenario() -> None:
        given: dict[str, Any] = {"limits": {"cooldown": "0s", "rate": "1/1h"}, "max_age": "2h"}
        async with engine(store, tmp_path, poke(sink, **given), recheck=timedelta(hours=1)) as one:
            await one.fire(pod="a")
            await one.ended(count=1)
            await one.fire(pod="b")
            _, waits = await one.reached(RunState.SUCCEEDED, RunState.DEFERRED, count=2)
            assert Reason.RATE == waits.reason
            assert "rate_limited" in await _stored(one, "run", "reason")
            assert "rate_limited" in await _stored(one, "event", "reason")
            spec = await _stored(one, "run", "spec")
            assert ("match'" in spec or 'match"' in spec, "matchers" in spec, "expires" in spec) == (True, False, True)
            async with one.database.read() as tx:
                found = (await tx.execute(select(run_table.c.id).where(run_table.c.reason == Reason.RATE))).scalars()
                assert [waits.id] == list(found)
            told = [stream.described(row) async for row in stream.read(one.database, Cursor(0, 0), Wanted())]
            assert {None, "rate", "verified"} == {event["reason"] for event in told}
            assert (await verify(one.database)).is_intact

    run(scenario())
