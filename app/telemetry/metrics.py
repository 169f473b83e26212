"""Metrics about our own work. Each help text says what a rise means; every label is bounded and starts at zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from app.domain.decisions import Verdict
from app.domain.episodes import Receipt
from app.domain.reasons import Reason
from app.domain.remediation import Purpose
from app.domain.states import FINAL_STATES, RunState
from app.telemetry.series import Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
NOTIFICATION_RESULTS = ("accepted", "invalid", "too_large", "unauthorized", "unavailable", "wrong_path")
LOOKUP_RESULTS = ("complete", "incomplete", "unreachable", "receiver_unknown")
MESSAGE_RESULTS = ("sent", "failed", "given_up")
STEP_RESULTS = ("succeeded", "failed", "skipped", "interrupted")
CHECK_RESULTS = ("held", "failed", "unobservable")
# The guards' answers; one that is missing here only has no zero before its first refusal.
REFUSALS = {
    Verdict.OBSERVE: (Reason.MODE_OBSERVE,),
    Verdict.NEEDS_APPROVAL: (Reason.APPROVAL_REQUIRED,),
    Verdict.DEFER: (
        Reason.ALERTMANAGER_UNREACHABLE,
        Reason.COOLDOWN,
        Reason.INHIBITED,
        Reason.MUTED,
        Reason.NOT_FIRING,
        Reason.POPULATION_UNKNOWN,
        Reason.RATE,
        Reason.ROLLOUT_IN_PROGRESS,
        Reason.SILENCED,
        Reason.TARGET_BUSY,
        Reason.TOO_MANY_TARGETS,
    ),
    Verdict.DENY: (
        Reason.ATTEMPTS_EXHAUSTED,
        Reason.GUARD_FAILED,
        Reason.MAX_AGE,
        Reason.OUT_OF_SCOPE,
        Reason.OWNED_BY_GITOPS,
        Reason.OWNED_BY_HPA,
        Reason.OWNED_BY_KEDA,
        Reason.PRECONDITION_FAILED,
        Reason.ROLLOUT_PAUSED,
    ),
}


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, and nobody asks when it was made
        self.registry = CollectorRegistry()  # all of them, for readers that go one by one
        self._few = registry = CollectorRegistry()  # metrics with few series
        self.registry.register(registry)
        self._series: list[Series] = []  # the others
        self._present = frozenset[str]()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Info("remediator_build", "The release that runs.", registry=registry).info({"version": version})
        self._intake()
        self._runs()
        self._standing()
        self._people()
        self._service()

    def _intake(self) -> None:
        registry = self._few
        self.notifications = Counter(
            "remediator_notifications",
            "POSTs to the webhook by result. invalid, unauthorized or wrong_path rising: Alertmanager is misconfigured "
            "and these alerts are not seen; unavailable: the store cannot write, Alertmanager sends again.",
            ["result"],
            registry=registry,
        )
        _zero(self.notifications, NOTIFICATION_RESULTS)
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
        _zero(self.alerts, Receipt)
        self.connections_ended = Counter(
            "remediator_connections_ended",
            "Connections that the service ended: slow_headers and slow_body: the request did not come in; crowded: "
            "to make room for another one. Rising: a client opens connections and does not use them.",
            ["reason"],
            registry=registry,
        )
        _zero(self.connections_ended, ("slow_headers", "slow_body", "crowded"))
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

    def _people(self) -> None:
        registry = self._few
        self.taken_back = Counter(
            "remediator_taken_back",
            "Ended runs that take another run back, by purpose and final state. failed or denied rising: borrowed "
            "changes stay; another manager changes the same targets.",
            ["purpose", "state"],
            registry=registry,
        )
        for purpose in (Purpose.UNDO, Purpose.REVERT):
            for state in FINAL_STATES:
                self.taken_back.labels(purpose, state)
        self.messages = Counter(
            "remediator_messages",
            "Tries to tell people something, by result. failed rising: a channel does not answer; given_up: the "
            "message reached no person, look for not_told among the events of runs.",
            ["result"],
            registry=registry,
        )
        _zero(self.messages, MESSAGE_RESULTS)
        self.messages_waiting = Gauge(
            "remediator_messages_waiting",
            "Messages to people that are not delivered yet. Staying up: a channel does not take them.",
            registry=registry,
        )

    def _lookups(self) -> None:
        registry = self._few
        self.lookups = Counter(
            "remediator_lookups",
            "Looks at Alertmanager's API by result. incomplete or unreachable rising: members do not answer.",
            ["result"],
            registry=registry,
        )
        _zero(self.lookups, LOOKUP_RESULTS)
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

    def _runs(self) -> None:
        registry = self._few
        self.runs = self._by_remediation(
            "counter",
            "remediator_runs",
            "Runs by remediation and final state. failed or interrupted rising: a remediation does not help; look at "
            "its runs.",
            ["remediation", "state"],
        )
        self.runs_effective = self._by_remediation(
            "counter",
            "remediator_runs_effective",
            "Runs after which the alert resolved. Lagging behind succeeded runs: the cure does not cure.",
            ["remediation"],
        )
        self.runs_ineffective = self._by_remediation(
            "counter",
            "remediator_runs_ineffective",
            "Runs that acted and after which the alert went on. Rising: the cure does not cure; its breaker opens.",
            ["remediation"],
        )
        self.recurrences = self._by_remediation(
            "counter",
            "remediator_recurrences",
            "Alerts that fired again within a day after a run that helped. Rising: the cause is still there.",
            ["remediation"],
        )
        self.active_runs = Gauge(
            "remediator_active_runs",
            "Runs that are not final, by state. deferred staying up: limits or busy targets hold work back.",
            ["state"],
            registry=registry,
        )
        _zero(self.active_runs, [state for state in RunState if not state.is_final])
        self.run_duration = Histogram(
            "remediator_run_duration_seconds",
            "From the run's record to its final state. Rising: cures take longer.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.alert_to_action = Histogram(
            "remediator_alert_to_action_seconds",
            "From the recorded alert to the first action's call. Rising: intake or the worker is behind.",
            registry=registry,
            buckets=_SECONDS,
        )
        self.refusals = Counter(
            "remediator_refusals",
            "Guards' answers other than allow. Rising: look the reason up in docs/troubleshooting.md.",
            ["verdict", "reason"],
            registry=registry,
        )
        for verdict, reasons in REFUSALS.items():
            for reason in reasons:
                self.refusals.labels(verdict, reason)
        self.actions = Counter(
            "remediator_actions",
            "Applied steps by action and result. failed rising: targets refuse or cannot be reached.",
            ["action", "result"],
            registry=registry,
        )
        self.action_duration = Histogram(
            "remediator_action_duration_seconds",
            "Duration of applied steps, retries included. Rising: targets are slow.",
            ["action"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.checks = Counter(
            "remediator_checks",
            "Checks by final result. unobservable rising: checks cannot reach their targets.",
            ["check", "result"],
            registry=registry,
        )

    def _standing(self) -> None:
        registry = self._few
        self.pauses = Gauge(
            "remediator_pauses",
            "Pauses that stand, by scope. Above 0: people hold something; all: the service does nothing at all.",
            ["scope"],
            registry=registry,
        )
        self.breaker_state = self._by_remediation(
            "gauge",
            "remediator_breaker_state",
            "Breakers: 0 closed, 1 one run may be tried, 2 open. Above 0: the remediation has stopped by itself.",
            ["remediation"],
        )
        self.earned_mode = self._by_remediation(
            "gauge",
            "remediator_earned_mode",
            "The earned mode of a remediation: 0 observe, 1 approve, 2 auto. A fall: its record turned bad.",
            ["remediation"],
        )
        self.preflight_ok = self._by_remediation(
            "gauge",
            "remediator_preflight_ok",
            "1 when a remediation could run, 0 when it lacks a right or cannot reach something, else no number.",
            ["remediation"],
        )
        self.preflight_timestamp = Gauge(
            "remediator_preflight_timestamp_seconds",
            "When the last preflight ended. Falling behind: rights and reach are not looked at any more.",
            registry=registry,
        )

    def _service(self) -> None:
        registry = self._few
        self.catalog_reload_successful = Gauge(
            "remediator_catalog_last_reload_successful",
            "1 when the newest catalog was accepted. 0: the files are wrong and the previous catalog is running.",
            registry=registry,
        )
        self.catalog_reload_timestamp = Gauge(
            "remediator_catalog_last_reload_success_timestamp_seconds",
            "When the running catalog was loaded.",
            registry=registry,
        )
        self.catalog_remediations = Gauge(
            "remediator_catalog_remediations",
            "Loaded remediations by mode. A fall: entries were removed.",
            ["mode"],
            registry=registry,
        )
        self.lease_takeovers = Counter(
            "remediator_lease_takeovers",
            "Runs taken over from a replica that stopped renewing. Rising: replicas die or cannot reach the store.",
            registry=registry,
        )
        self.leader = Gauge(
            "remediator_leader",
            "1 where this replica leads in a matter, else 0. No 1 among all replicas for minutes: no replica leads.",
            ["matter"],
            registry=registry,
        )
        self.store_keeps = Gauge(
            "remediator_store_keeps",
            "1 when the store keeps commits through a crash or a failover, else 0: an action may happen twice.",
            ["through"],
            registry=registry,
        )
        self.store_errors = Counter(
            "remediator_store_errors",
            "Store operations that failed. Rising: the database is away, full or slow.",
            registry=registry,
        )
        self.requests = Histogram(
            "remediator_http_request_duration_seconds",
            "Answered requests by route and status. The webhook's slow quantiles rising: the store commits slowly.",
            ["method", "route", "code"],
            registry=registry,
            buckets=_SECONDS[:14],
        )

    def initialise(self, remediations: Iterable[str], actions: Iterable[str], checks: Iterable[str]) -> None:
        """Start the children of a catalog's names at zero, so that rates are right from their first event."""
        for remediation in remediations:
            self.runs_effective.labels(remediation)
            self.runs_ineffective.labels(remediation)
            self.recurrences.labels(remediation)
            for state in FINAL_STATES:
                self.runs.labels(remediation, state)
        for action in actions:
            self.action_duration.labels(action)
            for result in STEP_RESULTS:
                self.actions.labels(action, result)
        for check in checks:
            for result in CHECK_RESULTS:
                self.checks.labels(check, result)

    def forget_all_but(self, remediations: Iterable[str]) -> None:
        """Give up the state of remediations that are gone; their counts stay."""
        present = frozenset(remediations)
        if self._present - present:
            self.breaker_state.clear()
            self.earned_mode.clear()
        self._present = present

    def refused(self, verdict: Verdict, reason: Reason | None) -> None:
        """Count a guard's objection."""
        self.refusals.labels(verdict, reason or Reason.UNEXPECTED).inc()

    def exposition(self) -> Iterator[bytes]:
        """The text that /metrics answers, in pieces of a few milliseconds."""
        for series in self._series:
            yield from series.text()
        for family in self._few.collect():
            yield generate_latest(_One(family))

    def _by_remediation(
        self, kind: Literal["counter", "gauge"], name: str, documentation: str, labelnames: Sequence[str]
    ) -> Series:
        made = Series(kind, name, documentation, labelnames, self.registry)
        self._series.append(made)
        return made


@dataclass(frozen=True)
class _One:
    """A registry for `generate_latest`: a single family."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        """All there is."""
        return [self.family]


def _zero(metric: Counter | Gauge, values: Iterable[str]) -> None:
    for value in values:
        metric.labels(value)
