"""Sends what is to be told to people: each replica takes due messages, sends them, and writes what became of them.

Runs beside the worker and holds no run up. A message that nobody takes is tried again with growing pauses, for a day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog

from app.domain.errors import AppError, PermanentError, StoreUnavailableError
from app.domain.reasons import Reason
from app.engine.parts import Parts
from app.store import messages
from app.store.events import Entry
from app.store.messages import Taken
from app.store.rerun import rerun

_PAUSE_SECONDS = 1.0
_BATCH = 5
_MARGIN = timedelta(seconds=10)  # beyond the longest that sending takes, before another replica tries
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=10)
_KEPT_TRYING = timedelta(hours=24)
log = structlog.get_logger()


async def send_forever(parts: Parts) -> None:
    """Send messages as they become due, until cancelled."""
    while True:
        parts.outbox.clear()
        try:
            nap = await _nap(parts)
            if not nap and not await send_due(parts):  # another replica has taken it meanwhile
                nap = _PAUSE_SECONDS
        except StoreUnavailableError as error:
            nap = _PAUSE_SECONDS
            log.debug("the outbox waits for the store", error=error.message)
        except Exception:  # the loop: no message may stop the others
            nap = _PAUSE_SECONDS
            log.exception("the outbox could not send")
        with suppress(TimeoutError):
            async with asyncio.timeout(nap):
                await parts.outbox.wait()


async def _nap(parts: Parts) -> float:
    """Seconds until the next message is due, as far as is known now."""
    async with parts.database.read() as tx:
        due = await messages.next_due(tx)
    if due is None:
        return parts.look_again
    return min(max((due - parts.clock()).total_seconds(), 0.0), parts.look_again)


async def send_due(parts: Parts) -> int:
    """Send the messages that are due, at most a batch, and return how many were tried."""
    now = parts.clock()
    async with parts.database.read() as tx:
        due = await messages.next_due(tx)
    if due is None or due > now:
        return 0
    until = now + parts.clients.connections.timeout * _BATCH + _MARGIN
    async with parts.database.write() as tx:
        taken = await messages.take(tx, now, until, _BATCH)
    about: dict[str | None, list[Taken]] = {}
    for one in taken:
        about.setdefault(one.draft.run_id, []).append(one)
    for failed in await asyncio.gather(
        *(_send_in_order(parts, some) for some in about.values()), return_exceptions=True
    ):
        if failed is not None:  # what became of this message could not be written; it is sent again
            raise failed
    return len(taken)


async def _send_in_order(parts: Parts, taken: Sequence[Taken]) -> None:
    """The question about a run comes before the answer."""
    for one in taken:
        await _send(parts, one)


async def _send(parts: Parts, taken: Taken) -> None:
    draft = taken.draft
    try:
        await parts.clients.notifier(draft.channel).send(draft.title, draft.body, "warning")
    except AppError as error:
        await _failed(parts, taken, error)
    except Exception as error:  # one message must not stop the others
        log.exception("a message could not be sent", message=taken.id)
        await _failed(parts, taken, AppError(f"unexpected {type(error).__name__}; see the log"))
    else:
        parts.metrics.messages.labels("sent").inc()
        now = parts.clock()
        told = ("told", Entry(f"told {draft.channel}: {draft.title}"))
        await _finish(parts, taken, told, now, sent_at=now, error=None)


async def _failed(parts: Parts, taken: Taken, error: AppError) -> None:
    """Try again later; not when some have it already, and not for ever."""
    now = parts.clock()
    again = now + pause(taken.tries)
    # A channel that is not configured may be so at another replica, or soon.
    refused = isinstance(error, PermanentError) and error.reason is not Reason.CONFIG_INVALID
    parts.metrics.messages.labels("failed").inc()
    log.warning("a message was not delivered", message=taken.id, channel=taken.draft.channel, error=error.message)
    if not refused and again < taken.created_at + _KEPT_TRYING:
        async with parts.database.write() as tx:
            await messages.settle(tx, taken, not_before=again, error=error.message)
        return
    parts.metrics.messages.labels("given_up").inc()
    message = f"could not tell {taken.draft.channel}: {taken.draft.title}: {error.message}"
    told = ("not_told", Entry(message, error.reason))
    await _finish(parts, taken, told, now, given_up_at=now, error=error.message)


@rerun
async def _finish(parts: Parts, taken: Taken, told: tuple[str, Entry], now: datetime, **columns: Any) -> None:
    async with parts.database.write() as tx:
        await messages.finish(tx, taken, told, now, **columns)


def pause(tries: int) -> timedelta:
    """How long to wait after so many tries."""
    return min(_FIRST_PAUSE * (1 << min(tries - 1, 10)), _LONGEST_PAUSE)
