"""Looks at Alertmanager's API for alerts without a notification: alerts that fire, and alerts that are gone.

Its findings go into the inbox like a notification, so that take-in, identity and the one-trigger rule are the same.
docs/adr/0007-what-a-look-up-may-conclude.md has the rules for ending an episode this way. No clock that can be set is
asked for that: looks are counted, and times are those that Alertmanager tells.
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

from app.backends.sources import AlertSource, Answers, HeldAlert, Member
from app.domain.alerts import Alert, AnyAlert, identity
from app.domain.episodes import Episode, EpisodeRules, Receipt, receive
from app.domain.errors import AppError, LeaseLostError, StoreUnavailableError
from app.engine.clock import steady
from app.engine.context import EngineContext, Turn
from app.engine.stages.external_facts import alert_source, is_active, receivers_of
from app.store.db.leadership import LOOKUP, Fence, Leadership, alone
from app.store.ledger import episodes, inbox
from app.store.ledger.episodes import Opened
from app.store.ledger.inbox import Inbox, Received

_OVERDUE = timedelta(minutes=10)  # by then Alertmanager has sent its first notification, on any route
_ABSENT_FOR = timedelta(minutes=10)
_ABSENT_LOOKS = 3
_SETTLED_AFTER = timedelta(minutes=15)  # a started Alertmanager has no alert until Prometheus sends it again
_CHUNK = 500  # alerts in one notification
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Absence:
    """An open episode that no member has had since then, in so many looks in a row."""

    since: datetime  # by Alertmanager's clock
    looks: int
    deliveries: int  # of the episode; one more begins the count anew


async def lookup_forever(parts: EngineContext, box: Inbox, interval: timedelta) -> None:
    """Look at once and then at each interval, where this replica leads, until cancelled."""
    client = await alert_source(parts)
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
    """A replica's memory from look to look; without it the next conclusions only come later."""

    def __init__(
        self, parts: EngineContext, box: Inbox, client: AlertSource, interval: timedelta, fence: Fence = alone
    ) -> None:
        self._parts = parts
        self._fence = fence
        self._box = box
        self._client = client
        self._looks = max(_ABSENT_LOOKS, _looks_over(_ABSENT_FOR, interval))
        self._settling = _looks_over(_SETTLED_AFTER, interval)
        self._missed: frozenset[str] = frozenset()
        self._absent: dict[str, _Absence] = {}
        self._started: tuple[datetime, ...] = ()
        self._seen = 0  # how many looks have found the members started then

    def forget(self) -> None:
        """Begin again: the looks so far have a gap."""
        self._missed = frozenset()
        self._absent = {}
        self._seen = 0  # the next look may come sooner than the interval says

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
        """Record a firing alert without an episode, once two looks saw it so or it is overdue.

        That an open episode's alert began again is believed only if every member answered: a silent member may hold the
        alert since before. Alerts of other replicas of the Prometheus are recorded with it.
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
        # An alert of an open episode may have ended while Alertmanager was asked, however old it is.
        waits = {one.fingerprint for one, name in named if (last := known.get(name)) is not None and last.is_open}
        overdue = {one.fingerprint for one in held if one.has_fired_for(_OVERDUE)} - waits
        due = [one for one in missed if one.fingerprint in self._missed | overdue]
        self._missed = frozenset(alert.fingerprint for alert in missed)
        if due:
            of_them = {name for alert, name in named if alert in due}
            await self._record([_firing(alert) for alert, name in named if name in of_them])
            names = sorted({alert.labels.get("alertname", "") for alert in due})
            log.warning("alerts fire that no notification told of", alerts=len(due), alertnames=names[:10])
            self._parts.metrics.lookup_alerts.inc(len(due))

    async def _record(self, alerts: Sequence[dict[str, Any]]) -> None:
        """Put the findings of a look into the inbox; raises LeaseLostError where another replica looks by now."""
        async with self._parts.turn() as turn:
            await self._fence(turn.tx)
            await _add(turn, alerts)
        self._box.recorded.set()

    async def _end(self, held: Collection[str]) -> bool:
        """End episodes that no member has had for long; whether every member could be asked."""
        async with self._parts.database.read() as tx:
            doubtful = [one for one in await episodes.all_open(tx) if one.firing.isdisjoint(held)]
        try:
            members = await self._client.members()
            everywhere = await self._client.fingerprints() if doubtful else frozenset()
        except AppError as error:
            log.info("not every Alertmanager answered a look-up", error=error.message)
            return False
        if self._are_settled(members):
            now = min((one.now for one in members if one.now is not None), default=self._parts.clock())
            self._count_absent((one for one in doubtful if one.firing.isdisjoint(everywhere)), now)
        due = {name: one for name, one in self._absent.items() if one.looks >= self._looks}
        if due:
            await self._record_ends(due)
        return True

    def _are_settled(self, members: Iterable[Member]) -> bool:
        """Say whether no member was started in so many looks, this one included; else forget the absent alerts.

        A start time tells by which clock a member runs, and not for how long: that clock may have been set since.
        """
        started = tuple(one.started_at for one in members)
        self._seen = self._seen + 1 if started == self._started else 1
        self._started = started
        if self._seen < self._settling:
            self._absent = {}
        return self._seen >= self._settling

    def _count_absent(self, absent: Iterable[Opened], now: datetime) -> None:
        """Count one look more for each alert that was absent before, unless it was delivered meanwhile."""
        counted = {}
        for one in absent:
            before = self._absent.get(one.id)
            if before is None or before.deliveries != one.deliveries:
                before = _Absence(now, 0, one.deliveries)
            counted[one.id] = replace(before, looks=before.looks + 1)
        self._absent = counted

    async def _record_ends(self, due: dict[str, _Absence]) -> None:
        """Record the ends, unless anything was or is being delivered; the next look tries again."""
        async with self._parts.turn(lock="intake") as turn:
            await self._fence(turn.tx)
            if await inbox.count_waiting(turn.tx):
                return
            ended = [
                one
                for one in await episodes.open_among(turn.tx, sorted(due))
                if one.deliveries == due[one.id].deliveries
            ]
            await _add(turn, list(chain.from_iterable(_resolved(one, due[one.id].since) for one in ended)))
        self._box.recorded.set()
        log.warning("episodes end: Alertmanager has not had their alerts for long", episodes=len(ended))
        self._parts.metrics.lookup_episodes_ended.inc(len(ended))


def _looks_over(time: timedelta, interval: timedelta) -> int:
    """How many looks it takes until the first and the last of them are so far apart."""
    return math.ceil(time / interval) + 1


async def _add(turn: Turn, alerts: Sequence[dict[str, Any]]) -> None:
    for start in range(0, len(alerts), _CHUNK):
        await inbox.add(turn.tx, _received(turn.now, alerts[start : start + _CHUNK]))


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
    """Say whether no open episode knows a firing alert.

    An alert from before its last episode's end is left to Alertmanager: a member that did not hear of the end still has
    it.
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
