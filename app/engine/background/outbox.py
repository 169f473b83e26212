"""Sends messages to people: each replica takes due messages, sends them, and writes their results.

Runs beside the worker and holds no run up. Each channel has a queue of its own, and in it each run one. A message that
its channel does not take is tried again with growing pauses, for a day.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog

from app.backends.messengers import messenger
from app.domain.errors import AppError, PermanentError, StoreUnavailableError
from app.domain.reasons import Reason
from app.engine.context import EngineContext
from app.store.audit.chain import Entry
from app.store.db.rerun import rerun
from app.store.ledger import outbox
from app.store.ledger.outbox import Taken

_PAUSE_SECONDS = 1.0
_BATCH = 5
_MARGIN = timedelta(seconds=10)  # beyond the longest that sending takes, before another replica tries
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=10)
_KEPT_TRYING = timedelta(hours=24)
log = structlog.get_logger()


async def send_forever(parts: EngineContext) -> None:
    """Send messages as they become due, until cancelled; a channel that hangs holds no other up."""
    at_work: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            parts.outbox.clear()
            nap = await _start_due(parts, at_work)
            with suppress(TimeoutError):
                async with asyncio.timeout(nap):
                    await parts.outbox.wait()
    finally:
        for task in at_work.values():
            task.cancel()
        await asyncio.gather(*at_work.values(), return_exceptions=True)


async def _start_due(parts: EngineContext, at_work: dict[str, asyncio.Task[None]]) -> float:
    """Have each channel that has something due work on it; seconds until one more may have, as far as is known now."""
    for channel in [channel for channel, task in at_work.items() if task.done()]:
        del at_work[channel]
    try:
        waiting = await _waiting(parts)
    except StoreUnavailableError as error:
        log.debug("the outbox waits for the store", error=error.message)
        return _PAUSE_SECONDS
    except Exception:  # the loop: no message may stop the others
        log.exception("the outbox could not look for messages")
        return _PAUSE_SECONDS
    now, nap = parts.clock(), parts.look_again
    for channel, due in waiting.items():
        if channel in at_work:
            continue
        if due <= now:
            at_work[channel] = asyncio.create_task(_work_on(parts, channel), name=f"outbox {channel}")
        else:
            nap = min(nap, (due - now).total_seconds())
    return nap


async def _waiting(parts: EngineContext) -> dict[str, datetime]:
    async with parts.database.read() as tx:
        return await outbox.next_due(tx)


async def _work_on(parts: EngineContext, channel: str) -> None:
    """Send a channel's messages until none is due."""
    tried = 0
    try:
        while count := await _send_batch(parts, channel):
            tried += count
    except StoreUnavailableError as error:
        tried = 0
        log.debug("the outbox waits for the store", error=error.message)
    except Exception:  # the channel's loop: it begins anew
        tried = 0
        log.exception("the outbox could not send", channel=channel)
    if not tried:  # another replica is at it, or the store away
        await asyncio.sleep(_PAUSE_SECONDS)
    parts.outbox.set()


async def send_due(parts: EngineContext) -> int:
    """Send at most a batch of each channel that has messages due, and return how many were tried."""
    now = parts.clock()
    due = [channel for channel, at in (await _waiting(parts)).items() if at <= now]
    return sum(await asyncio.gather(*(_send_batch(parts, channel) for channel in due)))


async def _send_batch(parts: EngineContext, channel: str) -> int:
    async with parts.turn() as turn:
        until = turn.now + parts.clients.connections.timeout * _BATCH + _MARGIN
        taken = await outbox.take(turn.tx, channel, turn.now, until, _BATCH)
    for failed in await asyncio.gather(*(_send(parts, one) for one in taken), return_exceptions=True):
        if failed is not None:  # the result of this message could not be written; it is sent again
            raise failed
    return len(taken)


async def _send(parts: EngineContext, taken: Taken) -> None:
    draft = taken.draft
    if taken.is_outdated:
        await _drop(parts, taken)
        return
    try:
        channel = await messenger(parts.clients, draft.channel)
        await channel.send(draft.title, draft.body, draft.tone)
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


async def _drop(parts: EngineContext, taken: Taken) -> None:
    """Leave a message unsent whose run has gone on before it could be delivered; that is told of instead."""
    now, why = parts.clock(), "its run has gone on meanwhile"
    told = ("not_told", Entry(f"{taken.draft.channel} is not told any more: {taken.draft.title}: {why}"))
    await _finish(parts, taken, told, now, given_up_at=now, error=why)


async def _failed(parts: EngineContext, taken: Taken, error: AppError) -> None:
    """Try again later; not when some have it already, and not for ever."""
    now = parts.clock()
    again = now + pause(taken.tries)
    # A channel that is not configured may be so at another replica, or soon.
    refused = isinstance(error, PermanentError) and error.reason is not Reason.CONFIG_INVALID
    parts.metrics.messages.labels("failed").inc()
    log.warning("a message was not delivered", message=taken.id, channel=taken.draft.channel, error=error.message)
    if not refused and again < taken.created_at + _KEPT_TRYING:
        async with parts.turn() as turn:
            await outbox.settle(turn.tx, taken, not_before=turn.now + pause(taken.tries), error=error.message)
        return
    parts.metrics.messages.labels("given_up").inc()
    message = f"could not tell {taken.draft.channel}: {taken.draft.title}: {error.message}"
    told = ("not_told", Entry(message, error.reason))
    await _finish(parts, taken, told, now, given_up_at=now, error=error.message)


@rerun
async def _finish(parts: EngineContext, taken: Taken, told: tuple[str, Entry], now: datetime, **columns: Any) -> None:
    async with parts.database.write() as tx:
        await outbox.finish(tx, taken, told, now, **columns)


def pause(tries: int) -> timedelta:
    """How long to wait after so many tries."""
    return min(_FIRST_PAUSE * (1 << min(tries - 1, 10)), _LONGEST_PAUSE)
