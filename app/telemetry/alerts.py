"""Metrics about alerts on their way in: notifications, episodes, and look-ups of missed alerts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from app.domain.episodes import Receipt
from app.telemetry.declaring import Declared, zero

NOTIFICATION_RESULTS = ("accepted", "invalid", "too_large", "unauthorized", "unavailable", "wrong_path")
LOOKUP_RESULTS = ("complete", "incomplete", "unreachable", "receiver_unknown")


class AlertMetrics(Declared):
    """The group about alerts."""

    def _intake(self) -> None:
        registry = self._few
        self.notifications = Counter(
            "remediator_notifications",
            "POSTs to the webhook by result. invalid, unauthorized or wrong_path rising: Alertmanager is misconfigured "
            "and these alerts are not seen; unavailable: the store cannot write, Alertmanager sends again.",
            ["result"],
            registry=registry,
        )
        zero(self.notifications, NOTIFICATION_RESULTS)
        self.accepted = self.notifications.labels("accepted")  # each time looked for, it takes longer than to count
        self.last_notification = Gauge(
            "remediator_last_notification_timestamp_seconds",
            "When the last notification was recorded. Falling behind: Alertmanager no longer reaches us.",
            registry=registry,
        )
        self.alerts = Counter(
            "remediator_alerts",
            "Delivered alerts by their meaning. opened rising fast: a storm; late: deliveries overtaken by resolves.",
            ["receipt"],
            registry=registry,
        )
        zero(self.alerts, Receipt)
        self.connections_ended = Counter(
            "remediator_connections_ended",
            "Connections that the service ended: slow_headers and slow_body: the request did not come in; crowded: "
            "to make room for another one. Rising: a client opens connections and does not use them.",
            ["reason"],
            registry=registry,
        )
        zero(self.connections_ended, ("slow_headers", "slow_body", "crowded"))
        self.alerts_truncated = Counter(
            "remediator_alerts_truncated",
            "Alerts that Alertmanager left out of notifications. Rising: remove max_alerts from the receiver.",
            registry=registry,
        )
        self.alerts_set_aside = Counter(
            "remediator_alerts_set_aside",
            "Delivered alerts that are too large or malformed; nothing is done about them. Rising: see the log.",
            registry=registry,
        )
        self.episodes_unmatched = Counter(
            "remediator_episodes_unmatched",
            "Episodes that no remediation matches. Rising: alerts arrive that nothing is declared for.",
            registry=registry,
        )
        self.inbox = Gauge(
            "remediator_inbox_notifications",
            "Recorded notifications not yet taken in. Staying up: the engine is behind or stuck.",
            registry=registry,
        )
        self.set_aside = Counter(
            "remediator_notifications_set_aside",
            "Recorded notifications that could not be taken in and were set aside. Any rise is a bug to report.",
            registry=registry,
        )
        self._lookups()

    def _lookups(self) -> None:
        registry = self._few
        self.lookups = Counter(
            "remediator_lookups",
            "Looks at Alertmanager's API by result. incomplete or unreachable rising: members do not answer.",
            ["result"],
            registry=registry,
        )
        zero(self.lookups, LOOKUP_RESULTS)
        self.lookup_alerts = Counter(
            "remediator_lookup_alerts",
            "Firing alerts that a look-up found and no notification told of. Rising: notifications get lost.",
            registry=registry,
        )
        self.lookup_episodes_ended = Counter(
            "remediator_lookup_episodes_ended",
            "Episodes that a look-up ended, whose alerts Alertmanager had not for long. Rising: resolves get lost.",
            registry=registry,
        )
