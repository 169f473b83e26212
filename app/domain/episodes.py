"""Episodes: one alert from firing to resolved, however often and in any order its senders deliver it.

The rules are pure. They follow Alertmanager's promises: delivery at least once, by every member of a cluster, with
retries that can arrive after the resolve. `startsAt` differs between members without end: a member that merged the
alert keeps the old time, a restarted member has a later one. A firing delivery therefore says one thing for certain:
the alert fires now. Only a `startsAt` well after the last such moment tells of an end that was missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from app.domain.alerts import Alert
from app.domain.ids import new_id

# What the Prometheus Operator and Cortex name their replicas by. A plain `replica` names the alert's own subject, too:
# a replica of ClickHouse, of Solr, of a database.
REPLICA_LABELS = ("prometheus_replica", "__replica__")


class Receipt(StrEnum):
    """The meaning of one delivered alert."""

    OPENED = "opened"  # a new episode
    REPEATED = "repeated"  # its episode is open already
    RESOLVED = "resolved"  # its episode ends
    LATE = "late"  # belongs to an episode that has ended
    UNKNOWN_RESOLVED = "unknown_resolved"  # resolved before anyone said that it fires


@dataclass(frozen=True, slots=True)
class Episode:
    """One alert's life.

    `firing` has each fingerprint (one per replica of an HA Prometheus) that has not resolved, with its latest start.
    """

    id: str
    identity: str
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    starts_at: datetime  # the earliest of all deliveries
    first_seen_at: datetime
    last_seen_at: datetime  # the latest moment at which the alert fired, by any delivery
    firing: Mapping[str, datetime]
    matched: frozenset[str] = frozenset()  # the remediations that it has triggered
    deliveries: int = 1
    resolved_at: datetime | None = None  # the alert's own endsAt
    closed_at: datetime | None = None  # when we learnt of it
    defect: str | None = None  # why nothing may be done about it, with any match

    @property
    def is_open(self) -> bool:
        """Whether the alert is still firing as far as we were told."""
        return self.closed_at is None


@dataclass(frozen=True, slots=True)
class EpisodeRules:
    """How far apart deliveries of one episode may lie."""

    ignored_labels: tuple[str, ...] = REPLICA_LABELS
    late_within: timedelta = timedelta(minutes=5)  # a retry may arrive this long after the resolve
    restart_after: timedelta = timedelta(hours=1)  # a startsAt this long after the alert was last seen is a new episode


@dataclass(frozen=True, slots=True)
class Received:
    """The outcome of one delivered alert: its meaning, and the episodes to write (ended first, then new)."""

    receipt: Receipt
    written: tuple[Episode, ...] = ()


def receive(alert: Alert, identity: str, last: Episode | None, now: datetime, rules: EpisodeRules) -> Received:
    """Place one delivered alert; `last` is the newest episode of this identity."""
    if alert.is_firing:
        return _firing(alert, identity, last, now, rules)
    return _resolved(alert, identity, last, now)


def _firing(alert: Alert, identity: str, last: Episode | None, now: datetime, rules: EpisodeRules) -> Received:
    if last is None:
        return Received(Receipt.OPENED, (_opened(alert, identity, now),))
    if last.is_open:
        if not _is_next(alert, last, rules):
            return Received(Receipt.REPEATED, (_repeated(last, alert, now),))
        ended = replace(last, firing={}, closed_at=now, resolved_at=alert.starts_at.astimezone(UTC))
        return Received(Receipt.OPENED, (ended, _opened(alert, identity, now)))
    if _belongs_to_ended(alert, last, now, rules):
        return Received(Receipt.LATE)
    return Received(Receipt.OPENED, (_opened(alert, identity, now),))


def _is_next(alert: Alert, last: Episode, rules: EpisodeRules) -> bool:
    """Whether a firing alert began so long after anything was seen of the open episode that a resolve was missed.

    The times that Prometheus gave count as seen too, so that a Prometheus whose clock is ahead opens nothing.
    """
    known = max((last.last_seen_at, *last.firing.values()))
    return alert.starts_at - known > rules.restart_after


def _belongs_to_ended(alert: Alert, last: Episode, now: datetime, rules: EpisodeRules) -> bool:
    """Whether a firing alert is a late delivery of an ended episode and not a new one.

    An alert that began before the other's end is a retry that was overtaken by the resolve. The same alert does come
    back with its old `startsAt` when its Prometheus was away for a while, so this holds only for a time.
    """
    ended_at = last.resolved_at or last.closed_at
    began_before_end = ended_at is not None and alert.starts_at < ended_at
    return began_before_end and last.closed_at is not None and now - last.closed_at <= rules.late_within


def _resolved(alert: Alert, identity: str, last: Episode | None, now: datetime) -> Received:
    ended_at = (alert.resolved_at or now).astimezone(UTC)
    if last is None:
        return Received(Receipt.UNKNOWN_RESOLVED, (_tombstone(alert, identity, now, ended_at),))
    if not last.is_open:
        if last.resolved_at is not None and alert.starts_at <= last.resolved_at:
            return Received(Receipt.LATE)
        return Received(Receipt.UNKNOWN_RESOLVED, (_tombstone(alert, identity, now, ended_at),))
    if _is_of_earlier(alert, ended_at, last):
        return Received(Receipt.LATE)
    firing = {name: began for name, began in last.firing.items() if name != alert.fingerprint}
    seen = max(last.last_seen_at, min(now, ended_at))
    ended = replace(last, firing=firing, last_seen_at=seen, deliveries=last.deliveries + 1)
    if firing:
        return Received(Receipt.REPEATED, (ended,))
    return Received(Receipt.RESOLVED, (replace(ended, resolved_at=ended_at, closed_at=now),))


def _is_of_earlier(alert: Alert, ended_at: datetime, last: Episode) -> bool:
    """Whether a resolve is the end of something that was over when the open episode began, or began again."""
    began = last.firing.get(alert.fingerprint)
    if began is None:
        return ended_at <= last.starts_at
    return alert.starts_at < began and ended_at <= began


def _tombstone(alert: Alert, identity: str, now: datetime, ended_at: datetime) -> Episode:
    """Make an ended episode for an alert that no sender reported as firing."""
    return replace(_opened(alert, identity, now), firing={}, resolved_at=ended_at, closed_at=now)


def _opened(alert: Alert, identity: str, now: datetime) -> Episode:
    began = alert.starts_at.astimezone(UTC)
    return Episode(
        id=new_id(now),
        identity=identity,
        fingerprint=alert.fingerprint,
        labels=alert.labels,
        annotations=alert.annotations,
        generator_url=alert.generator_url,
        starts_at=began,
        first_seen_at=now,
        last_seen_at=now,
        firing={alert.fingerprint: began},
        defect=alert.defect or None,
    )


def _repeated(last: Episode, alert: Alert, now: datetime) -> Episode:
    began = alert.starts_at.astimezone(UTC)
    return replace(
        last,
        annotations=alert.annotations,
        starts_at=min(last.starts_at, began),
        last_seen_at=max(last.last_seen_at, now),
        firing={**last.firing, alert.fingerprint: max(began, last.firing.get(alert.fingerprint, began))},
        deliveries=last.deliveries + 1,
    )
