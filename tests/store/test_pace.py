"""Who has much to do leaves the loop time for its sockets, and what is urgent most of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any

import pytest
import uvloop

from app.store.db import pace, urgency
from app.store.db.pace import Pace, work_in_background, work_without_pause
from tests.support.pacing import Worked, urgent, work

pytestmark = pytest.mark.usefixtures("worked")
WORK = 0.004  # seconds, more than what may follow on each other


def _in_background(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run_it(*given: Any, **named: Any) -> None:
        async def scenario() -> None:
            work_in_background()
            async with asyncio.timeout(10):
                await test(*given, **named)

        asyncio.run(scenario())

    return run_it


def _hurried() -> Pace:
    """One under pressure."""
    turns = Pace()
    urgent(turns, 10)
    return turns


async def _worked(turns: Pace, seconds: float = WORK) -> None:
    """Somebody has had a turn, and the loop has looked since."""
    await turns.turn()
    work(seconds)
    await asyncio.sleep(0)


@_in_background
async def test_the_loop_looks_at_its_sockets_between_two_pieces_of_work() -> None:
    """Ten that could go on at once do not, and nobody has a third turn before all have had one."""
    turns, looks, seen = Pace(), 0, []

    async def worker(number: int) -> None:
        for _ in range(3):
            await turns.turn()
            seen.append((looks, number))
            work(WORK)

    workers = [asyncio.create_task(worker(number)) for number in range(10)]
    while not all(one.done() for one in workers):
        await asyncio.sleep(0)
        looks += 1
    assert len({look for look, _ in seen}) == len(seen), seen
    assert {*range(10)} == {number for _, number in seen[:11]}, seen


@_in_background
async def test_short_work_need_not_wait() -> None:
    """To look after each of a hundred statements would cost more than they do."""
    turns, looks = Pace(), 0

    async def look() -> None:
        nonlocal looks
        while True:
            await asyncio.sleep(0)
            looks += 1

    looking = asyncio.create_task(look())
    for _ in range(3):
        await turns.turn()
    assert 0 == looks
    looking.cancel()


@_in_background
async def test_a_single_urgent_thing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leads to is to be done at once."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 60)
    turns = Pace()
    urgent(turns)
    await _worked(turns, 1)
    assert not turns.is_hurried
    async with asyncio.timeout(5):
        await turns.turn()


@_in_background
async def test_an_answer_does_not_wait_for_a_piece_of_work_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one that is urgent follows another, however long that took; the work goes on after the answer."""
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 60)
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    turns = Pace()
    with turns.urgent():
        work(1)
    with turns.urgent():
        waiting = asyncio.create_task(turns.turn())
        assert not (await asyncio.wait([waiting], timeout=0.1))[0]
    assert not turns.is_hurried
    async with asyncio.timeout(5):
        await waiting


@pytest.mark.parametrize(
    ("quiet", "longest", "passes", "is_due"),
    [(60, 60, (0, 0), False), (600, 60, (0, 60), True), (0.2, 60, (0, 0), True), (60, 600, (61, 0), True)],
)
@_in_background
async def test_who_sends_one_after_the_other_is_answered_some_times_between_two_pieces(
    monkeypatch: pytest.MonkeyPatch, quiet: float, longest: float, passes: tuple[float, float], is_due: bool
) -> None:
    """No longer than one answer is waited for, than more come at once, and only if they do."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 0.01)
    monkeypatch.setattr(urgency, "_QUIET_SECONDS", quiet)
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", longest)
    turns = Pace()
    await _worked(turns)
    urgent(turns)
    work(passes[0])
    urgent(turns)
    work(passes[1])
    waiting = asyncio.create_task(turns.turn())
    assert is_due == bool((await asyncio.wait([waiting], timeout=5 if is_due else 0.1))[0])
    waiting.cancel()


@_in_background
async def test_who_comes_while_a_piece_is_worked_on_came_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each that is sent right after the answer before it would wait for a piece, and be the first again."""
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 60)
    monkeypatch.setattr(urgency, "_QUIET_SECONDS", 60)
    turns = Pace()
    urgent(turns)
    await _worked(turns, 100)
    urgent(turns)
    waiting = asyncio.create_task(turns.turn())
    assert not (await asyncio.wait([waiting], timeout=0.1))[0]
    waiting.cancel()


@_in_background
async def test_an_answer_to_one_of_many_is_a_turn_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where some are in flight all the time, as on a slow disk; also when it was quiet before the first."""
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 60)
    turns = Pace()
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(turns.urgent())
        await _worked(turns)
        work(0.1)
        second.enter_context(turns.urgent())
        waiting = asyncio.create_task(_worked(turns))
        assert not (await asyncio.wait([waiting], timeout=0.1))[0], "it follows one that is not answered"
        first.close()
        async with asyncio.timeout(5):
            await waiting
        waiting = asyncio.create_task(turns.turn())
        assert not (await asyncio.wait([waiting], timeout=0.1))[0], "one is left"
        second.close()
        async with asyncio.timeout(5):
            await waiting


@_in_background
async def test_the_turn_after_an_answer_is_not_used_up_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who need not wait may be at work when it comes."""
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 60)
    turns = Pace()
    with ExitStack() as first, turns.urgent():
        first.enter_context(turns.urgent())
        await turns.turn(pauses=False)
        work(WORK)
        first.close()
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await turns.turn()


@_in_background
async def test_however_others_take_turns_with_what_is_urgent_nobody_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each answer is given while somebody works who need not wait, and the next one awaited before that ends."""
    monkeypatch.setattr(urgency, "_WAITED_SECONDS", 0.5)
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 60)
    turns = Pace()
    urgent(turns)
    with ExitStack() as flying:

        async def steady(then: Callable[[], object]) -> None:
            work_without_pause()
            await turns.turn()
            then()
            work(WORK)

        flying.enter_context(turns.urgent())
        waiting = asyncio.create_task(turns.turn())
        async with asyncio.timeout(5):
            while not waiting.done():
                await asyncio.sleep(0.01)
                follow = partial(flying.enter_context, turns.urgent())
                await asyncio.gather(steady(flying.close), steady(follow), steady(int))


@_in_background
async def test_who_waits_longest_had_no_turn_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of work that always waits does not end the waiting for answers."""
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 600)
    monkeypatch.setattr(urgency, "_WAITED_SECONDS", 60)
    turns = Pace()
    urgent(turns)
    with ExitStack() as first, turns.urgent():
        first.enter_context(turns.urgent())
        waiting = [asyncio.create_task(_worked(turns)) for _ in range(2)]
        await asyncio.sleep(0)
        work(50)
        first.close()
        async with asyncio.timeout(5):
            await waiting[0]
        work(50)
        assert not (await asyncio.wait(waiting[1:], timeout=0.2))[0]
        work(10)
        async with asyncio.timeout(5):
            await waiting[1]


@_in_background
async def test_an_answer_that_does_not_come_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs, say: it is waited for once, and more that come do not begin that anew."""
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 60)
    monkeypatch.setattr(urgency, "_SOON_SECONDS", 600)
    turns = Pace()
    urgent(turns)
    with ExitStack() as hanging:
        hanging.enter_context(turns.urgent())
        work(60)
        async with asyncio.timeout(5):
            await turns.turn()
            hanging.enter_context(turns.urgent())
            await turns.turn()


@pytest.mark.parametrize("pauses", [True, False])
@_in_background
async def test_work_that_was_under_way_counts_as_no_wait(monkeypatch: pytest.MonkeyPatch, pauses: bool) -> None:
    """Or an answer that came in the middle of a long piece would wait for the next one, too."""
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 60)
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    turns = Pace()
    urgent(turns)
    await turns.turn(pauses=pauses)
    with turns.urgent():
        work(100)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(turns.turn())
        assert not (await asyncio.wait([waiting], timeout=0.1))[0]
    async with asyncio.timeout(5):
        await waiting


@_in_background
async def test_an_answer_after_a_while_waits_beside_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one notification leads to need not wait for it, and a single one waits for little."""
    monkeypatch.setattr(urgency, "_ANSWERED_SECONDS", 60)
    turns = Pace()
    urgent(turns)
    work(0.3)
    with turns.urgent():
        async with asyncio.timeout(5):
            await turns.turn()


@_in_background
async def test_who_comes_from_elsewhere_has_no_turn_beside_the_others() -> None:
    """A hundred who waited for the disk, say, and go on at once: one of them between two looks, too."""
    turns, looks, seen = Pace(), 0, []

    async def worker() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            await turns.turn()
            seen.append(looks)
            work(WORK)

    workers = [asyncio.create_task(worker()) for _ in range(10)]
    while not all(one.done() for one in workers):
        await asyncio.sleep(0)
        looks += 1
    assert len(set(seen)) == len(seen), seen


@_in_background
async def test_a_storm_is_received_first(monkeypatch: pytest.MonkeyPatch, worked: Worked) -> None:
    """What works in the background hardly does; whoever does not is not held up by that."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 1)
    turns = _hurried()
    begun = worked.monotonic()
    await _worked(turns)
    waiting = asyncio.create_task(turns.turn())
    await asyncio.sleep(0)
    pace._manner.set(pace._Manner.FREE)
    await turns.turn()
    assert not waiting.done()
    await waiting
    assert worked.monotonic() - begun > 1


@_in_background
async def test_a_storm_that_is_over_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the pause that it had would have been; and one after the other, whoever else has turns meanwhile."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 0.3)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 60)
    turns = _hurried()
    await turns.turn()
    work(WORK)
    async with asyncio.timeout(5):
        await asyncio.gather(turns.turn(), turns.turn())


@_in_background
async def test_who_has_turns_without_pause_takes_none_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that verifies what it did does not keep a storm from being taken in."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 0.5)
    turns = _hurried()

    async def steady() -> None:
        work_without_pause()
        while True:
            await turns.turn()
            work(WORK)
            await asyncio.sleep(0.05)

    working = asyncio.create_task(steady())
    async with asyncio.timeout(8):
        for _ in range(4):
            await turns.turn()
            work(WORK)
            await asyncio.sleep(0)
    working.cancel()


@_in_background
async def test_there_may_be_a_storm_where_it_is_never_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some notifications come all the time; only many together are a storm."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 0.5)
    monkeypatch.setattr(urgency, "_LULL_SECONDS", 0.6)
    monkeypatch.setattr(urgency, "_BURST_SECONDS", 1)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 60)
    turns = Pace()
    for _ in range(4):
        urgent(turns)
        work(0.4)
    urgent(turns, 10)
    await _worked(turns)
    waiting = asyncio.create_task(turns.turn())
    assert not (await asyncio.wait([waiting], timeout=0.1))[0]
    waiting.cancel()


@_in_background
async def test_the_second_storm_is_received_first_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some time after the one before."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 60)
    turns = _hurried()
    work(100)
    urgent(turns, 10)
    await _worked(turns)
    waiting = asyncio.create_task(turns.turn())
    assert not (await asyncio.wait([waiting], timeout=0.1))[0]
    waiting.cancel()


@_in_background
async def test_who_has_asked_the_world_acts_before_the_answers_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm holds up what has not begun."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 60)
    turns = _hurried()
    await _worked(turns)
    patient = asyncio.create_task(turns.turn())
    await asyncio.sleep(0)

    async def steady() -> None:
        work_without_pause()
        for _ in range(3):
            await turns.turn()
            work(WORK)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(steady())
    assert not patient.done()
    patient.cancel()


@_in_background
async def test_a_storm_that_lasts_leaves_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch, worked: Worked) -> None:
    """As long as nothing but that is urgent, again and again."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(urgency, "_QUIET_SECONDS", 60)
    monkeypatch.setattr(urgency, "_BURST_SECONDS", 0)
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 60)
    turns = _hurried()
    await _worked(turns)
    begun = worked.monotonic()
    await turns.turn()
    assert worked.monotonic() - begun > 5 * WORK


@_in_background
async def test_a_storm_that_lasts_leaves_the_time_that_it_does_not_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as nothing urgent was done for a moment."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(urgency, "_LONGEST_SECONDS", 60)
    monkeypatch.setattr(urgency, "_BURST_SECONDS", 0)
    turns = _hurried()
    await _worked(turns, 1)
    async with asyncio.timeout(5):
        await turns.turn()


@_in_background
async def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the work before took."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(urgency, "_QUIET_SECONDS", 60)
    monkeypatch.setattr(urgency, "_BURST_SECONDS", 0)
    monkeypatch.setattr(urgency, "_LONGEST_SECONDS", WORK)
    turns = _hurried()
    await _worked(turns, 1)
    async with asyncio.timeout(5):
        await turns.turn()


@_in_background
async def test_who_gives_up_its_turn_keeps_nobody_from_theirs() -> None:
    """Before it came, and when it has just come."""
    turns, had = Pace(), []

    async def worker(number: int) -> None:
        await turns.turn()
        had.append(number)
        work(WORK)

    workers = [asyncio.create_task(worker(number)) for number in range(6)]
    await asyncio.sleep(0)
    for one in workers[1::2]:
        one.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert [0, 2, 4] == had
    await turns.turn()


@_in_background
async def test_others_go_on_while_a_long_answer_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner where much is urgent."""
    monkeypatch.setattr(urgency, "_RECENT_SECONDS", 60)
    monkeypatch.setattr(pace, "_ANSWER_SECONDS", 60)

    def pieces() -> Iterator[int]:
        for number in range(3):
            work(WORK)
            yield number

    for turns, expected in ((Pace(), 0), (_hurried(), 3)):
        answer, looks = asyncio.create_task(turns.collect(pieces())), -1
        while not answer.done():
            await asyncio.sleep(0)
            looks += 1
        assert [0, 1, 2] == answer.result()
        assert expected == looks


async def _worker(turns: Pace, chance: random.Random) -> None:
    work_in_background()
    if chance.random() < 0.4:
        work_without_pause()
    for _ in range(12):
        await turns.turn(pauses=chance.random() < 0.8)
        if chance.random() < 0.1:
            work(WORK)
        if chance.random() < 0.02:
            raise ZeroDivisionError
        await asyncio.sleep(chance.choice([0, 0, 0, 0.001, 0.01]))


async def _storms(turns: Pace, chance: random.Random) -> None:
    while True:
        for _ in range(chance.choice([1, 6])):
            with turns.urgent():
                await asyncio.sleep(chance.choice([0, 0.001]))
        await asyncio.sleep(chance.choice([0.001, 0.05, 0.2]))


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("seed", range(3))
def test_everybody_has_their_turns_in_the_end(seed: int, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes, gives up, breaks down or is urgent meanwhile."""
    monkeypatch.setattr(urgency, "_BURST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(urgency, "_LONGEST_SECONDS", 0.01)
    turns, chance = Pace(), random.Random(seed)

    async def scenario() -> None:
        storm, workers = asyncio.create_task(_storms(turns, chance)), []
        for _ in range(120):
            workers.append(asyncio.create_task(_worker(turns, chance)))
            await asyncio.sleep(chance.choice([0, 0.002]))
            if chance.random() < 0.2:
                chance.choice(workers).cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        storm.cancel()
        work_in_background()
        await turns.turn()
        ends = [one.exception() for one in workers if not one.cancelled()]
        assert None in ends
        assert {type(None), ZeroDivisionError} >= {type(one) for one in ends}, ends

    async def in_time() -> None:
        async with asyncio.timeout(60):
            await scenario()

    runner(in_time())
