"""Episodes: one alert from firing to resolved, however often, by whom and in which order it is sent.

The rules are pure. They follow what Alertmanager promises: delivery at least once, by every member of a cluster, with
retries that can arrive after the resolve; `startsAt` is the earliest that was seen and may differ between members.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from app.domain.alerts import Alert
from app.domain.ids import new_id


class Receipt(StrEnum):
    """What one delivered alert meant."""

    OPENED = "opened"  # a new episode
    REPEATED = "repeated"  # its episode is open already
    RESOLVED = "resolved"  # its episode ends
    LATE = "late"  # belongs to an episode that has ended
    UNKNOWN_RESOLVED = "unknown_resolved"  # resolved before anyone said that it fires


@dataclass(frozen=True, slots=True)
class Episode:
    """One alert's life; `firing` are the fingerprints (one per replica of an HA Prometheus) that have not resolved."""

    id: str
    identity: str
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    starts_at: datetime
    first_seen_at: datetime
    last_seen_at: datetime
    firing: frozenset[str]
    matched: frozenset[str] = frozenset()  # the remediations that it has triggered
    deliveries: int = 1
    resolved_at: datetime | None = None  # the alert's own endsAt
    closed_at: datetime | None = None  # when we learnt of it

    @property
    def is_open(self) -> bool:
        """Whether the alert is still firing as far as we were told."""
        return self.closed_at is None


@dataclass(frozen=True, slots=True)
class EpisodeRules:
    """How far apart deliveries of one episode may lie."""

    ignored_labels: tuple[str, ...] = ("prometheus_replica", "__replica__", "replica")
    late_within: timedelta = timedelta(minutes=5)  # a retry may arrive this long after the resolve
    restart_after: timedelta = timedelta(minutes=5)  # startsAt this much later is a new episode, its resolve was missed


@dataclass(frozen=True, slots=True)
class Received:
    """The outcome of one delivered alert: what it meant, and the episodes to write (ended first, then new)."""

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
        if alert.starts_at - last.starts_at <= rules.restart_after or last.firing - {alert.fingerprint}:
            return Received(Receipt.REPEATED, (_repeated(last, alert, now),))
        ended = replace(last, firing=frozenset(), closed_at=now, resolved_at=alert.starts_at.astimezone(UTC))
        return Received(Receipt.OPENED, (ended, _opened(alert, identity, now)))
    if _belongs_to_ended(alert, last, now, rules):
        return Received(Receipt.LATE)
    return Received(Receipt.OPENED, (_opened(alert, identity, now),))


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
        tombstone = replace(_opened(alert, identity, now), firing=frozenset(), resolved_at=ended_at, closed_at=now)
        return Received(Receipt.UNKNOWN_RESOLVED, (tombstone,))
    if not last.is_open:
        if last.resolved_at is not None and alert.starts_at <= last.resolved_at:
            return Received(Receipt.LATE)
        tombstone = replace(_opened(alert, identity, now), firing=frozenset(), resolved_at=ended_at, closed_at=now)
        return Received(Receipt.UNKNOWN_RESOLVED, (tombstone,))
    if ended_at <= last.starts_at:
        return Received(Receipt.LATE)
    firing = last.firing - {alert.fingerprint}
    ended = replace(last, firing=firing, last_seen_at=now, deliveries=last.deliveries + 1)
    if firing:
        return Received(Receipt.REPEATED, (ended,))
    return Received(Receipt.RESOLVED, (replace(ended, resolved_at=ended_at, closed_at=now),))


def _opened(alert: Alert, identity: str, now: datetime) -> Episode:
    return Episode(
        id=new_id(now),
        identity=identity,
        fingerprint=alert.fingerprint,
        labels=alert.labels,
        annotations=alert.annotations,
        generator_url=alert.generator_url,
        starts_at=alert.starts_at.astimezone(UTC),
        first_seen_at=now,
        last_seen_at=now,
        firing=frozenset({alert.fingerprint}),
    )


def _repeated(last: Episode, alert: Alert, now: datetime) -> Episode:
    return replace(
        last,
        annotations=alert.annotations,
        starts_at=min(last.starts_at, alert.starts_at).astimezone(UTC),
        last_seen_at=max(last.last_seen_at, now),
        firing=last.firing | {alert.fingerprint},
        deliveries=last.deliveries + 1,
    )
