"""Metrics about our own work. Each help text says what a rise means; every label is bounded and starts at zero."""

from __future__ import annotations

from prometheus_client import (
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from app.domain.remediation import Purpose
from app.domain.states import FINAL_STATES
from app.telemetry.alerts import AlertMetrics
from app.telemetry.declaring import SECONDS, zero
from app.telemetry.runs import RunMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MESSAGE_RESULTS = ("sent", "failed", "given_up")


class Metrics(AlertMetrics, RunMetrics):
    """All metrics of one process, in a registry of their own."""

    def __init__(self, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, and nobody asks when it was made
        super().__init__()
        registry = self._few
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Info("remediator_build", "The release that runs.", registry=registry).info({"version": version})
        self._intake()
        self._runs()
        self._standing()
        self._people()
        self._service()

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
        zero(self.messages, MESSAGE_RESULTS)
        self.messages_waiting = Gauge(
            "remediator_messages_waiting",
            "Messages to people that are not delivered yet. Staying up: a channel does not take them.",
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
            buckets=SECONDS[:14],
        )
