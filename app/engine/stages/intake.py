"""Takes recorded notifications in: notification → episodes → pending runs, in one transaction.

Runs beside the HTTP edge, which only records. Never touches the network. A notification that cannot be taken in is set
aside with the reason, and the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

import structlog
from pydantic import ValidationError

from app.catalog.catalog import Catalog
from app.domain.alerts import Alert, Notification, identity, parse_notification
from app.domain.episodes import Episode, Receipt, receive
from app.domain.errors import StoreUnavailableError
from app.domain.ids import new_id
from app.domain.remediation import Remediation
from app.domain.states import RunState
from app.engine.clock import steady
from app.engine.context import EngineContext, Turn
from app.engine.outcomes import undo
from app.engine.outcomes.effectiveness import learn
from app.store.db.notify import announce
from app.store.db.pace import work_in_background
from app.store.db.rerun import rerun
from app.store.ledger import effectiveness, episodes, inbox, runs, undos, waking
from app.store.ledger.inbox import Inbox, Waiting
from app.store.ledger.runs import Run

_BATCH, _BATCH_ALERTS = 50, 100  # notifications; alerts, unless one notification alone has more
_SLICE = 100  # alerts, between which others get their turn
_HURRIED_ALERTS = 10  # of a batch while notifications are being received: they cannot wait as take-in can
_PAUSE_SECONDS = 1.0
T = TypeVar("T")
log = structlog.get_logger()


@dataclass
class _Batch:
    """The changes of a batch of notifications; episodes by identity, as they stand after the latest alert."""

    now: datetime
    known: dict[str, Episode]
    seen_before: frozenset[str]  # identities that had an episode before this batch
    changed: dict[str, Episode] = field(default_factory=dict)
    opened: dict[str, Episode] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    receipts: dict[Receipt, int] = field(default_factory=dict)
    unmatched: int = 0
    set_aside: int = 0  # alerts
    failures: dict[int, str] = field(default_factory=dict)  # notifications with an alert that made the engine stumble
    helped: list[str] = field(default_factory=list)  # remediations of finished runs whose alerts ended
    recurred: list[str] = field(default_factory=list)  # remediations whose alert is back although they had helped

    @property
    def ended(self) -> list[str]:
        """Episodes that this batch closed."""
        return [one.id for one in self.changed.values() if not one.is_open]


@dataclass(frozen=True, slots=True)
class _Taken:
    """How many notifications, and whether more may wait."""

    count: int
    has_more: bool


async def take_in_forever(parts: EngineContext, box: Inbox) -> None:
    """Take in the notifications of the inbox, as they come, until cancelled."""
    work_in_background()
    while True:
        box.recorded.clear()
        pause = parts.look_again  # another replica's notifications are found by looking
        try:
            has_more = (await _take_in_some(parts)).has_more
        except StoreUnavailableError as error:
            log.debug("take-in waits for the store", error=error.message)
            has_more, pause = False, _PAUSE_SECONDS
        except Exception:  # the loop: an unforeseen error must not end it
            log.exception("notifications could not be taken in")
            has_more, pause = False, _PAUSE_SECONDS
        if has_more:
            await asyncio.sleep(0)  # its runs come before the next look
        else:
            await _wait(box.recorded, pause)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def take_in(parts: EngineContext) -> int:
    """Take in the oldest waiting notifications and return how many."""
    return (await _take_in_some(parts)).count


async def _take_in_some(parts: EngineContext) -> _Taken:
    try:
        return await _take_in(parts, _BATCH)
    except StoreUnavailableError:
        raise
    except Exception:  # one of them is poison: alone it is set aside, and the others go on
        log.exception("a batch of notifications could not be taken in; the oldest is tried alone")
        return await _take_in_oldest(parts)


async def _take_in_oldest(parts: EngineContext) -> _Taken:
    async with parts.database.read() as tx:
        oldest, _ = await inbox.waiting(tx, 1)
    try:
        return await _take_in(parts, 1)
    except StoreUnavailableError:
        raise
    except Exception as error:
        log.exception("notification set aside", notifications=[one.id for one in oldest])
        why = f"unexpected {type(error).__name__}"
    await _set_aside(parts, oldest, why)
    return _Taken(1, has_more=True)


@rerun
async def _set_aside(parts: EngineContext, oldest: Sequence[Waiting], why: str) -> None:
    """Take the oldest waiting notification out, unless another replica has done so."""
    async with parts.turn(lock="intake") as turn:
        still, _ = await inbox.waiting(turn.tx, 1)
        if [one.id for one in still] == [one.id for one in oldest]:
            await inbox.mark_taken_in(turn.tx, [one.id for one in oldest], turn.now, set_aside=why)
            parts.metrics.set_aside.inc()


@rerun
async def _take_in(parts: EngineContext, limit: int) -> _Taken:
    with parts.handover.leasing(parts.owner) as lease:
        # Not synced: the notifications are, and would be taken in again.
        async with parts.turn(lock="intake", synced=False) as turn:
            begun = steady()  # not before: the turn may have come late
            most_alerts = _HURRIED_ALERTS if parts.database.pace.is_hurried else _BATCH_ALERTS
            waiting, has_more = await inbox.waiting(turn.tx, limit, most_alerts)
            if not waiting:
                return _Taken(0, has_more=False)
            readable = await _readable(turn, waiting)
            batch = await _place(turn, readable)
            batch.runs = lease(batch.runs, begun)
            await _write(turn, batch)
            taken = [one.id for one, _ in readable if one.id not in batch.failures]
            await inbox.mark_taken_in(turn.tx, taken, turn.now)
            for failed, why in batch.failures.items():
                await inbox.mark_taken_in(turn.tx, [failed], turn.now, set_aside=why)
    _count(parts, batch)
    if batch.runs or batch.ended:
        parts.work.set()
    return _Taken(len(waiting), has_more)


async def _readable(turn: Turn, waiting: Sequence[Waiting]) -> list[tuple[Waiting, Notification]]:
    readable = []
    for one in waiting:
        try:
            readable.append((one, parse_notification(inbox.unpacked(one.body))))
        except ValueError as error:  # accepted by another release, or changed or damaged in the store
            problems = error.error_count() if isinstance(error, ValidationError) else 1
            log.warning("notification set aside", notification=one.id, problems=problems)
            turn.parts.metrics.set_aside.inc()
            why = f"{problems} problems: not a notification"
            await inbox.mark_taken_in(turn.tx, [one.id], turn.now, set_aside=why)
    return readable


async def _place(turn: Turn, readable: Sequence[tuple[Waiting, Notification]]) -> _Batch:
    parts = turn.parts
    rules = parts.policy.episodes
    delivered = [
        (waiting, notification, alert, identity(alert.labels, alert.fingerprint, rules.ignored_labels))
        for waiting, notification in readable
        for alert in sorted(notification.alerts, key=_happened)
    ]
    known = await episodes.newest(turn.tx, (name for *_, name in delivered))
    batch = _Batch(turn.now, known, seen_before=frozenset(known))
    batch.set_aside = sum(len(notification.unreadable) for _, notification in readable)
    catalog = parts.catalog()
    for number, (waiting, notification, alert, name) in enumerate(delivered, start=1):
        if number % _SLICE == 0:
            await turn.tx.keep_alive()
        received = receive(alert, name, batch.known.get(name), waiting.received_at, rules)
        batch.receipts[received.receipt] = batch.receipts.get(received.receipt, 0) + 1
        for one in received.written:
            _keep(batch, one)
        if alert.defect:
            _note_defect(batch, alert, received.receipt)
        elif alert.is_firing and received.written:
            found_by = f"found by a {inbox.LOOKUP}" if notification.receiver == inbox.LOOKUP else ""
            try:
                _match(batch, catalog, batch.known[name], alert, found_by)
            except Exception as error:  # one alert must not cost the others of its notification
                log.exception("alert not matched", notification=waiting.id, fingerprint=alert.fingerprint)
                batch.failures[waiting.id] = f"{alert.fingerprint}: unexpected {type(error).__name__}"
                batch.set_aside += 1
    return batch


def _note_defect(batch: _Batch, alert: Alert, receipt: Receipt) -> None:
    """Count an alert that nothing is done about; its episode shows it to people, and says why."""
    batch.set_aside += 1
    if receipt in {Receipt.OPENED, Receipt.UNKNOWN_RESOLVED}:
        name = alert.labels.get("alertname", "")
        log.warning("alert set aside", alertname=name, fingerprint=alert.fingerprint, why=alert.defect)


def _happened(alert: Alert) -> datetime:
    """When an alert began or ended; a notification lists alerts of one episode in any order."""
    return alert.starts_at if alert.is_firing else alert.resolved_at or alert.starts_at


def _keep(batch: _Batch, one: Episode) -> None:
    """Remember an episode as it is now."""
    previous = batch.known.get(one.identity)
    batch.known[one.identity] = one
    is_known = previous is not None and previous.id == one.id and one.id not in batch.opened
    (batch.changed if is_known else batch.opened)[one.id] = one


def _match(batch: _Batch, catalog: Catalog, one: Episode, alert: Alert, found_by: str) -> None:
    """Record a run for each remediation that an alert matches and has not triggered: also one that was added since."""
    matching = [remediation for remediation in catalog.match(alert.labels) if remediation.name not in one.matched]
    if one.deliveries == 1:
        batch.unmatched += not matching
        names = [remediation.name for remediation in matching]
        log.info("alert", alertname=one.labels.get("alertname", ""), fingerprint=one.fingerprint, matched=names)
    if not matching:
        return
    pending = [pending_run(remediation, catalog.digest, one, batch.now, message=found_by) for remediation in matching]
    _keep(batch, replace(one, matched=one.matched.union(remediation.name for remediation in matching)))
    batch.runs += pending
    batch.links += [(new.id, one.id) for new in pending]


def pending_run(  # noqa: PLR0913 - what is known of it
    remediation: Remediation, digest: str, trigger: Episode, now: datetime, *, attempt: int = 1, message: str = ""
) -> Run:
    """Return a run as it is first recorded: without any decision."""
    return Run(
        id=new_id(now),
        remediation=remediation,
        digest=digest,
        state=RunState.PENDING,
        reason=None,
        message=message,
        attempt=attempt,
        rung=0,
        labels=trigger.labels,
        annotations=trigger.annotations,
        fingerprint=trigger.fingerprint,
        generator_url=trigger.generator_url,
        alert_starts_at=trigger.starts_at,
        received_at=trigger.last_seen_at,
        plan=None,
        target_key=None,
        holds_target=False,
        setback=None,
        approved_by=None,
        created_at=now,
        updated_at=now,
        not_before=now,
        admitted_at=None,
        started_at=None,
        settle_until=None,
        lease_owner=None,
        lease_epoch=0,
    )


async def _write(turn: Turn, batch: _Batch) -> None:
    tx = turn.tx
    # An episode that this batch both opened and closed is written once, as closed; its runs then cancel.
    async for changed in _slices(list(batch.changed.values())):
        await episodes.change(tx, changed)
    async for opened in _slices(list(batch.opened.values())):
        await episodes.create(tx, opened)
    async for new in _slices(batch.runs):
        await runs.create(tx, new, batch.now + turn.parts.policy.lease)
    await episodes.link(tx, batch.links)
    # A revert waits for an alert that has fired before.
    known = [one.identity for one in batch.opened.values() if one.identity in batch.seen_before]
    await undos.wake_for_alerts(tx, batch.now, known)
    if batch.runs or batch.ended:
        await announce(tx)
    if batch.ended:
        await waking.of_alerts(tx, batch.now, batch.ended)
        await undo.give_back(tx, batch.now, batch.ended)
        judged = await effectiveness.record_resolution(tx, batch.now, batch.ended)
        for one in judged:
            await learn(turn, one)
        batch.helped = [one.name for one in judged]
    again = [(one.id, one.identity) for one in batch.opened.values() if one.identity in batch.seen_before]
    batch.recurred = await effectiveness.recurring(tx, again, batch.now)


async def _slices(values: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    for start in range(0, len(values), _SLICE):
        if start:
            await asyncio.sleep(0)
        yield values[start : start + _SLICE]


def _count(parts: EngineContext, batch: _Batch) -> None:
    for receipt, count in batch.receipts.items():
        parts.metrics.alerts.labels(receipt).inc(count)
    parts.metrics.episodes_unmatched.inc(batch.unmatched)
    parts.metrics.alerts_set_aside.inc(batch.set_aside)
    for remediation in batch.helped:
        parts.metrics.runs_effective.labels(remediation).inc()
    for remediation in batch.recurred:
        parts.metrics.recurrences.labels(remediation).inc()
