"""Metrics about runs, their steps and checks, and about obstacles between a remediation and its runs."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from app.domain.decisions import Verdict
from app.domain.reasons import Reason
from app.domain.states import FINAL_STATES, RunState
from app.telemetry.declaring import SECONDS, Declared, zero

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
        Reason.MODE_OBSERVE,
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


class RunMetrics(Declared):
    """The group about runs."""

    _present = frozenset[str]()

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
        zero(self.active_runs, [state for state in RunState if not state.is_final])
        self.run_duration = Histogram(
            "remediator_run_duration_seconds",
            "From the run's record to its final state. Rising: cures take longer.",
            registry=registry,
            buckets=SECONDS,
        )
        self.alert_to_action = Histogram(
            "remediator_alert_to_action_seconds",
            "From the recorded alert to the first action's call. Rising: intake or the worker is behind.",
            registry=registry,
            buckets=SECONDS,
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
            buckets=SECONDS,
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
