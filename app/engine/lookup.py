"""Looks at Alertmanager's API for what no notification told: alerts that fire, and alerts that are gone.

What it finds goes into the inbox like a notification, so that take-in, identity and the one-trigger rule are the same.
When an episode may be ended this way, and when not, is docs/adr/0007-what-a-look-up-may-conclude.md.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import structlog

from app.clients.alertmanager import AlertmanagerClient, Answers, HeldAlert
from app.domain.alerts import Alert, AnyAlert, identity
from app.domain.episodes import Episode, EpisodeRules, Receipt, receive
from app.domain.errors import AppError, LeaseLostError, StoreUnavailableError
from app.engine.outside import is_active, receivers_of
from app.engine.parts import Parts
from app.engine.timekeeping import steady
from app.store import episodes, inbox
from app.store.episodes import Opened
from app.store.inbox import Inbox, Received
from app.store.leadership import LOOKUP, Fence, Leadership, alone

_OVERDUE = timedelta(minutes=10)  # by then Alertmanager has sent its first notification, whatever its route says
_ABSENT_FOR = timedelta(minutes=10)
_ABSENT_LOOKS = 3
_SETTLED_AFTER = timedelta(minutes=15)  # a started Alertmanager has no alert until Prometheus sends it again
_CHUNK = 500  # alerts in one notification
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Absence:
    """An open episode that no member has had since then, in so many looks in a row."""

    since: datetime
    looks: int
    last_seen_at: datetime  # of the episode; a delivery moves it


async def lookup_forever(parts: Parts, box: Inbox, interval: timedelta) -> None:
    """Look at once and then at each interval, where this replica leads, until cancelled."""
    client = parts.clients.alertmanager()
    if client is None:
        return
    lead = Leadership(parts.database, LOOKUP, parts.owner, parts.policy.lease)
    lookup = Lookup(parts, box, client, interval, lead.check)
    next_look = steady()
    async with lead.sought():
        while True:
            try:
                if not lead.is_held:
                    lookup.forget()
                    next_look = steady()  # once it leads
                elif steady() >= next_look:
                    next_look = steady() + interval.total_seconds()
                    await lookup.look()
            except (LeaseLostError, StoreUnavailableError) as error:
                log.debug("the look-up waits", error=error.message)
                lookup.forget()
            except Exception:  # the next look may go well
                log.exception("the look-up failed")
                lookup.forget()
            await asyncio.sleep(min(interval.total_seconds(), lead.pause))


class Lookup:
    """What one replica remembers from look to look; forgetting it only makes the next conclusions later."""

    def __init__(
        self, parts: Parts, box: Inbox, client: AlertmanagerClient, interval: timedelta, fence: Fence = alone
    ) -> None:
        self._parts = parts
        self._fence = fence
        self._box = box
        self._client = client
        # Counted and not only timed: a clock that is set forward must not make an absence long.
        self._looks = max(_ABSENT_LOOKS, math.ceil(_ABSENT_FOR / interval) + 1)
        self._missed: frozenset[str] = frozenset()
        self._absent: dict[str, _Absence] = {}
        self._started: tuple[datetime, ...] = ()

    def forget(self) -> None:
        """Begin anew: what was seen so far is not without a gap."""
        self._missed = frozenset()
        self._absent = {}

    async def look(self) -> str:
        """Look once; returns the result as the metric names it."""
        result = await self._look()
        self._parts.metrics.lookups.labels(result).inc()
        return result

    async def _look(self) -> str:
        async with self._parts.database.read() as tx:
            receivers = receivers_of(self._client, await inbox.receivers(tx))
        if not receivers:
            return "receiver_unknown"
        answers = await self._client.routed_to(receivers)
        if not answers.groups:
            log.warning("Alertmanager did not answer a look-up", missing=answers.missing)
            self.forget()
            return "unreachable"
        active = [alert for alert in _held(answers) if is_active(alert)]
        await self._pick_up(active, everywhere=not answers.missing)
        complete = not answers.missing and await self._end({alert.fingerprint for alert in _held(answers)})
        if complete:
            return "complete"
        self._absent = {}
        return "incomplete"

    async def _pick_up(self, held: Sequence[HeldAlert], *, everywhere: bool) -> None:
        """Record what fires and no episode knows, once two looks saw it so or it is overdue.

        That an open episode's alert began anew is believed only where it was looked for everywhere: the member that
        did not answer may hold it since before. And what other replicas of the Prometheus hold is recorded with it.
        """
        now, rules = self._parts.clock(), self._parts.policy.episodes
        alerts = firing_alerts(held)
        named = [(alert, identity(alert.labels, alert.fingerprint, rules.ignored_labels)) for alert in alerts]
        async with self._parts.database.read() as tx:
            known = await episodes.newest(tx, (name for _, name in named))
        missed = [
            alert
            for alert, name in named
            if is_missed(alert, name, (last := known.get(name)), now, rules)
            and (everywhere or last is None or alert.fingerprint not in last.firing)
        ]
        # What belongs to an episode that is open may have ended while Alertmanager was asked, however old it is.
        waits = {one.fingerprint for one, name in named if (last := known.get(name)) is not None and last.is_open}
        overdue = {one.fingerprint for one in missed if now - one.starts_at >= _OVERDUE} - waits
        due = [one for one in missed if one.fingerprint in self._missed | overdue]
        self._missed = frozenset(alert.fingerprint for alert in missed)
        if due:
            of_them = {name for alert, name in named if alert in due}
            await self._record(now, [_firing(alert) for alert, name in named if name in of_them])
            names = sorted({alert.labels.get("alertname", "") for alert in due})
            log.warning("alerts fire that no notification told of", alerts=len(due), alertnames=names[:10])
            self._parts.metrics.lookup_alerts.inc(len(due))

    async def _record(self, now: datetime, alerts: Sequence[dict[str, Any]]) -> None:
        """Put into the inbox what a look found; raises LeaseLostError where another replica looks by now."""
        async with self._parts.database.write() as tx:
            await self._fence(tx)
            for start in range(0, len(alerts), _CHUNK):
                await inbox.add(tx, _received(now, alerts[start : start + _CHUNK]))
        self._box.recorded.set()

    async def _end(self, held: Collection[str]) -> bool:
        """End episodes that no member has had for long; whether every member could be asked."""
        async with self._parts.database.read() as tx:
            doubtful = [one for one in await episodes.all_open(tx) if one.firing.isdisjoint(held)]
        if not doubtful:
            self._absent = {}
            return True
        try:
            started, everywhere = await self._client.started_at(), await self._client.fingerprints()
        except AppError as error:
            log.info("not every Alertmanager answered a look-up", error=error.message)
            return False
        now = self._parts.clock()
        if started != self._started or any(now - one < _SETTLED_AFTER for one in started):
            self._started, self._absent = started, {}
        else:
            self._count_absent((one for one in doubtful if one.firing.isdisjoint(everywhere)), now)
        due = {name: one for name, one in self._absent.items() if self._is_long(one, now)}
        if due:
            await self._record_ends(due, now)
        return True

    def _count_absent(self, absent: Iterable[Opened], now: datetime) -> None:
        """Count one look more for what was absent before, unless it was delivered meanwhile."""
        counted = {}
        for one in absent:
            before = self._absent.get(one.id)
            if before is None or before.last_seen_at != one.last_seen_at:
                before = _Absence(now, 0, one.last_seen_at)
            counted[one.id] = replace(before, looks=before.looks + 1)
        self._absent = counted

    def _is_long(self, one: _Absence, now: datetime) -> bool:
        return one.looks >= self._looks and now - one.since >= _ABSENT_FOR

    async def _record_ends(self, due: dict[str, _Absence], now: datetime) -> None:
        """Record the ends, unless anything was or is being delivered; the next look tries again."""
        async with self._parts.database.write(lock="intake") as tx:
            await self._fence(tx)
            if await inbox.count_waiting(tx):
                return
            ended = [
                one
                for one in await episodes.open_among(tx, sorted(due))
                if one.last_seen_at == due[one.id].last_seen_at
            ]
            resolved = list(chain.from_iterable(_resolved(one, due[one.id].since) for one in ended))
            for start in range(0, len(resolved), _CHUNK):
                await inbox.add(tx, _received(now, resolved[start : start + _CHUNK]))
        self._box.recorded.set()
        log.warning("episodes end: Alertmanager has not had their alerts for long", episodes=len(ended))
        self._parts.metrics.lookup_episodes_ended.inc(len(ended))


def _held(answers: Answers) -> Iterator[HeldAlert]:
    return (alert for groups in answers.groups for group in groups for alert in group.alerts)


def firing_alerts(held: Iterable[HeldAlert]) -> list[AnyAlert]:
    """Each alert once, as a notification would tell it; members may differ in when it began: the earliest counts."""
    earliest: dict[str, HeldAlert] = {}
    for one in held:
        before = earliest.get(one.fingerprint)
        if before is None or one.starts_at < before.starts_at:
            earliest[one.fingerprint] = one
    return [
        AnyAlert(
            status="firing",
            labels=one.labels,
            annotations=one.annotations,
            startsAt=one.starts_at,
            generatorURL=one.generator_url,
            fingerprint=one.fingerprint,
        )
        for one in earliest.values()
    ]


def is_missed(alert: Alert, name: str, last: Episode | None, now: datetime, rules: EpisodeRules) -> bool:
    """Whether no open episode knows a firing alert.

    What began before its last episode ended is left to Alertmanager: a member that was not told of the end has it, too.
    """
    if last is not None and last.is_open and alert.fingerprint not in last.firing:
        return True
    ended_at = None if last is None else last.resolved_at or last.closed_at
    if last is not None and not last.is_open and ended_at is not None and alert.starts_at < ended_at:
        return False
    return receive(alert, name, last, now, rules).receipt is Receipt.OPENED


def _firing(alert: AnyAlert) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": alert.labels,  # all of them: take-in is to see that they are too many
        "annotations": alert.kept().annotations,
        "startsAt": alert.starts_at.isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": alert.generator_url,
        "fingerprint": alert.fingerprint,
    }


def _resolved(one: Episode, ended_at: datetime) -> Iterator[dict[str, Any]]:
    for fingerprint, began in sorted(one.firing.items()):
        yield {
            "status": "resolved",
            "labels": one.labels,
            "annotations": one.annotations,
            "startsAt": began.isoformat(),
            "endsAt": max(began, ended_at).isoformat(),  # the clock of Prometheus may be ahead
            "generatorURL": one.generator_url,
            "fingerprint": fingerprint,
        }


def _received(now: datetime, alerts: Iterable[dict[str, Any]]) -> Received:
    given = list(alerts)
    status = "firing" if any(one["status"] == "firing" for one in given) else "resolved"
    body = {"version": "4", "receiver": inbox.LOOKUP, "status": status, "groupKey": inbox.LOOKUP, "alerts": given}
    return Received(now, inbox.LOOKUP, inbox.LOOKUP, len(given), 0, json.dumps(body).encode())
