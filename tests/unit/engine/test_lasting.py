"""Whether what a run did is still there, asked of each action that can say so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from app.backends.http.actions.request import Request
from app.domain.errors import PermanentError, TransientError
from app.domain.reasons import Reason
from app.domain.states import RunState
from tests.support.aio import run
from tests.support.engine import engine, sqlite
from tests.support.entries import asked, ok, poke, request
from tests.support.web import WebServer

Looks = Callable[[Callable[[], str]], list[bool]]
AT_ONCE = timedelta(0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Lets the action of these tests say whether it was taken back; gives the looks, each with whether of an undo."""

    def install(answer: Callable[[], str]) -> list[bool]:
        seen: list[bool] = []

        async def taken_back(_self: Request, _context: Any, _step: Any, *, undone: bool) -> str:
            seen.append(undone)
            return answer()

        monkeypatch.setattr(Request, "taken_back", taken_back)
        monkeypatch.setattr(Request, "can_be_taken_back", True)
        return seen

    return install


def _raises(error: Exception) -> Callable[[], str]:
    def answer() -> str:
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (lambda: "", (RunState.SUCCEEDED, Reason.VERIFIED)),
        (lambda: "changed back by somebody", (RunState.FAILED, Reason.TAKEN_BACK)),
        (_raises(PermanentError("gone", reason=Reason.TARGET_NOT_FOUND)), (RunState.FAILED, Reason.TAKEN_BACK)),
        (_raises(PermanentError("no", reason=Reason.FORBIDDEN)), (RunState.FAILED, Reason.CHECK_UNOBSERVABLE)),
        (_raises(TransientError("away")), (RunState.FAILED, Reason.CHECK_UNOBSERVABLE)),
        (_raises(KeyError("x")), (RunState.FAILED, Reason.CHECK_UNOBSERVABLE)),
    ],
)
def test_only_what_is_seen_to_be_there_is_verified(
    tmp_path: Path, sink: WebServer, looks: Looks, answer: Callable[[], str], ending: tuple[RunState, Reason]
) -> None:
    """After the checks; what was taken back is not tried again, however many attempts there are."""
    looks(answer)
    patience = timedelta(seconds=0.2)

    async def scenario() -> None:
        limits = {"cooldown": "0s", "rate": "1000/1h", "attempts": 3 if Reason.TAKEN_BACK in ending else 1}
        entry = poke(sink, verify=[ok(sink)], limits=limits)
        async with engine(sqlite(tmp_path), tmp_path, entry, stability=AT_ONCE, plan_timeout=patience) as one:
            await one.fire()
            (row,) = await one.ended(count=1)
            assert (*ending, 1) == (row.state, row.reason, asked(sink))

    run(scenario())


def test_a_target_that_is_away_when_the_alert_resolves_undoes_nothing(
    tmp_path: Path, sink: WebServer, looks: Looks
) -> None:
    """The state was seen after the checks; a fix that helped is not failed for a look that failed."""
    answers = chain([lambda: ""], repeat(_raises(TransientError("away"))))

    def answer() -> str:
        return next(answers)()

    looks(answer)
    patience = timedelta(seconds=0.2)

    async def scenario() -> None:
        entry = poke(sink, settle="1h")
        async with engine(sqlite(tmp_path), tmp_path, entry, stability=AT_ONCE, plan_timeout=patience) as one:
            await one.fire()
            while not (await one.runs()) or (await one.runs())[0].settle_until is None:
                await asyncio.sleep(0.01)
            one.forward(timedelta(seconds=1))
            await one.resolve()
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, Reason.VERIFIED) == (row.state, row.reason)

    run(scenario())


def test_a_target_that_is_away_for_a_moment_is_asked_again(tmp_path: Path, sink: WebServer, looks: Looks) -> None:
    """A look that fails says nothing about the state."""
    answers = iter([_raises(TransientError("away")), lambda: ""])

    def answer() -> str:
        return next(answers)()

    seen = looks(answer)

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink), stability=AT_ONCE) as one:
            await one.fire()
            (row,) = await one.ended(count=1)
            assert (RunState.SUCCEEDED, [False, False]) == (row.state, seen)

    run(scenario())


def test_the_look_comes_after_the_window(tmp_path: Path, sink: WebServer, looks: Looks) -> None:
    """Who takes back needs a moment, and the checks may hold at once."""
    seen = looks(lambda: "")

    async def scenario() -> None:
        window = timedelta(seconds=1)
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, verify=[ok(sink)]), stability=window) as one:
            begun = asyncio.get_running_loop().time()
            await one.fire()
            await one.ended(count=1)
            assert (True, [False]) == (asyncio.get_running_loop().time() - begun >= 1, seen)

    run(scenario())


def test_the_last_step_of_an_action_has_the_last_word(tmp_path: Path, sink: WebServer, looks: Looks) -> None:
    """Down and up again: only where it ended is looked at."""
    seen = looks(lambda: "")

    async def scenario() -> None:
        entry = poke(sink, steps=[request(sink, "/down"), request(sink, "/up")])
        async with engine(sqlite(tmp_path), tmp_path, entry, stability=AT_ONCE) as one:
            await one.fire()
            await one.ended(count=1)
            assert (1, 1, [False]) == (asked(sink, "/down"), asked(sink, "/up"), seen)

    run(scenario())
