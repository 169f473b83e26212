"""Who has much to do leaves the loop time for its sockets, and what is urgent most of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.store import pace
from app.store.pace import Pace
from tests.support.aio import run

WORK = 0.004  # seconds, more than what may follow on each other


def _work() -> None:
    end = time.monotonic() + WORK
    while time.monotonic() < end:
        pass


def test_the_loop_looks_at_its_sockets_between_two_pieces_of_work() -> None:
    """Ten that could go on at once do not."""

    async def scenario() -> None:
        turns, looks, seen = Pace(), 0, []

        async def worker() -> None:
            await turns.turn()
            seen.append(looks)
            _work()

        workers = [asyncio.create_task(worker()) for _ in range(10)]
        while not all(one.done() for one in workers):
            await asyncio.sleep(0)
            looks += 1
        assert len(set(seen)) == len(seen), seen

    run(scenario())


def test_short_work_need_not_wait() -> None:
    """To look after each of a hundred statements would cost more than they do."""

    async def scenario() -> None:
        turns = Pace()
        for _ in range(3):
            assert None is turns.wait()

    run(scenario())


def hurried() -> Pace:
    """One under pressure."""
    turns = Pace()
    for _ in range(10):
        turns.hurry()
    return turns


def test_a_single_urgent_thing_holds_nobody_up() -> None:
    """What it leads to is to be done at once."""

    async def scenario() -> None:
        turns = Pace()
        turns.hurry()
        await turns.turn()
        _work()
        await asyncio.sleep(0)
        assert (False, None) == (turns.is_hurried, turns.wait())

    run(scenario())


def test_what_is_urgent_has_most_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it comes again and again; afterwards the rest goes on as before."""
    monkeypatch.setattr(pace, "_RECENT_SECONDS", 60)

    async def scenario() -> None:
        turns = hurried()
        await turns.turn()
        _work()
        await asyncio.sleep(0)
        begun = time.monotonic()
        await turns.turn()
        assert time.monotonic() - begun > 5 * WORK
        assert turns.is_hurried
        _work()
        await asyncio.sleep(0)
        monkeypatch.setattr(pace, "_RECENT_SECONDS", 0)
        assert not turns.is_hurried
        assert None is turns.wait()

    run(scenario())


def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the work before took."""
    monkeypatch.setattr(pace, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(pace, "_LONGEST_SECONDS", WORK)

    async def scenario() -> None:
        turns = hurried()
        await turns.turn()
        time.sleep(20 * WORK)
        await asyncio.sleep(0)
        wait = turns.wait()
        assert wait is not None
        assert wait <= WORK

    run(scenario())
