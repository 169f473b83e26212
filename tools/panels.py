"""The panels of the Grafana dashboard: the one list that tools/dashboard.py draws, and docs/dashboard.md explains.

Every query is put to a real Prometheus by tests/shipped; a panel that cannot show data there has no place here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Query:
    """One expression over this job's series, and how its series are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel; `bad_from` colours a stat red from that value on, `good_from` below it."""

    title: str
    description: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    unit: str = "short"
    bad_from: float | None = None
    good_from: float | None = None
    stacked: bool = False
    mappings: dict[str, str] = field(default_factory=dict)


def own(metric: str, labels: str = "") -> str:
    """A selector of this job's series."""
    return f'{metric}{{job=~"$job"{", " + labels if labels else ""}}}'


def rate(metric: str, by: str = "") -> Query:
    """Events per second over the graph's own interval, by a label."""
    grouping = f" by ({by})" if by else ""
    legend = f"{{{{{by}}}}}" if by else "events"
    return Query(f"sum{grouping} (rate({own(metric)}[$__rate_interval]))", legend)


def quantiles(metric: str, labels: str = "") -> tuple[Query, ...]:
    """Median and 99th percentile of a histogram."""
    buckets = f"sum by (le) (rate({own(metric + '_bucket', labels)}[$__rate_interval]))"
    return tuple(Query(f"histogram_quantile({q}, {buckets})", name) for q, name in ((0.5, "p50"), (0.99, "p99")))


def stat(title: str, description: str, expression: str, legend: str = "", **options: Any) -> Panel:
    """One number, or one for each series that the legend names."""
    return Panel(title, description, (Query(expression, legend),), kind="stat", width=4, **options)


def graph(title: str, description: str, *queries: Query, **options: Any) -> Panel:
    """Lines over time."""
    return Panel(title, description, queries, **options)


_SUCCEEDED = own("remediator_runs_total", 'state="succeeded"')
_EFFECTIVE = own("remediator_runs_effective_total")
_FAILED = own("remediator_runs_total", 'state=~"failed|interrupted"')

ROWS: dict[str, tuple[Panel, ...]] = {
    "Health": (
        stat("Up", "Replicas that Prometheus can scrape.", f"sum({own('up')})", good_from=1),
        stat(
            "Catalog",
            "Refused: the files are wrong and the previous catalog is running.",
            f"min({own('remediator_catalog_last_reload_successful')})",
            good_from=1,
            mappings={"0": "refused", "1": "accepted"},
        ),
        stat(
            "Remediations",
            "Loaded remediations of all modes.",
            f"max(sum by (instance) ({own('remediator_catalog_remediations')}))",
            good_from=1,
        ),
        stat(
            "Inbox",
            "Recorded notifications not yet taken in; staying up means that the engine is behind or stuck.",
            f"max({own('remediator_inbox_notifications')})",
            bad_from=100,
        ),
        stat(
            "Last notification",
            "How long ago; empty until the first one since the start.",
            f"time() - max({own('remediator_last_notification_timestamp_seconds')} > 0)",
            unit="s",
        ),
        stat("Release", "Replicas by release.", f"count by (version) ({own('remediator_build_info')})", "{{version}}"),
    ),
    "What it did": (
        stat(
            "Succeeded, last day",
            "Runs whose checks held.",
            f"sum(increase({_SUCCEEDED}[1d]))",
        ),
        stat(
            "Failed, last day",
            "Runs that failed or were interrupted: a person has to look.",
            f"sum(increase({_FAILED}[1d]))",
            bad_from=1,
        ),
        graph("Runs by state", "Runs that came to an end.", rate("remediator_runs_total", "state"), stacked=True),
        graph("Runs by remediation", "Who is at work.", rate("remediator_runs_total", "remediation"), stacked=True),
    ),
    "Effect": (
        graph(
            "Effective share by remediation, last day",
            "Of the runs that were judged, after how many the alert resolved. Far below 100 %: the cure does not cure.",
            Query(
                f"sum by (remediation) (increase({_EFFECTIVE}[1d]))"
                f" / (sum by (remediation) (increase({_EFFECTIVE}[1d]))"
                f" + sum by (remediation) (increase({own('remediator_runs_ineffective_total')}[1d])) > 0)",
                "{{remediation}}",
            ),
            unit="percentunit",
        ),
        graph(
            "Alert to action",
            "From the recorded alert to the first action's call. Rising: intake or the worker is behind.",
            *quantiles("remediator_alert_to_action_seconds"),
            unit="s",
        ),
        graph(
            "Duration of runs",
            "From the run's record to its final state.",
            *quantiles("remediator_run_duration_seconds"),
            unit="s",
        ),
    ),
    "What it did not do": (
        graph(
            "Refusals by reason",
            "Guards' answers other than allow; docs/troubleshooting.md explains each reason.",
            rate("remediator_refusals_total", "reason"),
            stacked=True,
        ),
        graph(
            "Runs under way and waiting",
            "deferred staying up: limits or busy targets hold work back. awaiting_approval: people are asked.",
            # From the shared store: every replica says the same.
            Query(f"max by (state) ({own('remediator_active_runs')})", "{{state}}"),
        ),
        graph(
            "Episodes that nothing matches",
            "Alerts arrive that nothing is declared for.",
            rate("remediator_episodes_unmatched_total"),
        ),
    ),
    "Records and readiness": (
        graph(
            "Back within a day, last day",
            "Alerts that fired again within a day after a run that had helped: the cause is still there.",
            Query(
                f"sum by (remediation) (increase({own('remediator_recurrences_total')}[1d]))",
                "{{remediation}}",
            ),
            width=5,
        ),
        graph(
            "Breakers and earned modes",
            "Breakers: 0 closed, 1 half-open, 2 open. Earned modes: 0 observe, 1 approve, 2 auto.",
            # From the shared store: every replica says the same.
            Query(f"max by (remediation) ({own('remediator_breaker_state')})", "breaker {{remediation}}"),
            Query(f"max by (remediation) ({own('remediator_earned_mode')})", "earned {{remediation}}"),
            width=5,
        ),
        graph(
            "Pauses",
            "Pauses that stand, by what they are on. all above 0: nothing is done at all.",
            Query(f"max by (scope) ({own('remediator_pauses')})", "{{scope}}"),
            width=4,
        ),
        graph(
            "Preflight by remediation",
            "1: it could run. 0: it lacks a right, or something cannot be reached; GET /catalog/{name} says what.",
            Query(f"min by (remediation) ({own('remediator_preflight_ok')})", "{{remediation}}"),
            width=5,
        ),
        graph(
            "Age of the preflight",
            "Growing without end: rights and reach are not looked at any more.",
            Query(f"time() - ({own('remediator_preflight_timestamp_seconds')} > 0)", "{{instance}}"),
            unit="s",
            width=5,
        ),
    ),
    "Actions and checks": (
        graph(
            "Actions by result",
            "failed rising: targets refuse or cannot be reached.",
            Query(
                f"sum by (action, result) (rate({own('remediator_actions_total')}[$__rate_interval]))",
                "{{action}} {{result}}",
            ),
        ),
        graph(
            "Duration of actions, p99",
            "Retries included. Rising: targets are slow.",
            Query(
                "histogram_quantile(0.99, sum by (action, le) "
                f"(rate({own('remediator_action_duration_seconds_bucket')}[$__rate_interval])))",
                "{{action}}",
            ),
            unit="s",
        ),
        graph(
            "Checks by result",
            "unobservable rising: checks cannot reach their targets.",
            Query(
                f"sum by (check, result) (rate({own('remediator_checks_total')}[$__rate_interval]))",
                "{{check}} {{result}}",
            ),
        ),
    ),
    "Intake": (
        graph(
            "Notifications by result",
            "invalid, unauthorized, wrong_path: Alertmanager is misconfigured. unavailable: the store cannot write.",
            rate("remediator_notifications_total", "result"),
            width=6,
        ),
        graph(
            "Alerts by what they meant",
            "opened rising fast: a storm.",
            rate("remediator_alerts_total", "receipt"),
            width=6,
        ),
        graph(
            "Alerts left out by Alertmanager",
            "Anything above 0: remove max_alerts from the receiver.",
            rate("remediator_alerts_truncated_total"),
            width=6,
        ),
        graph(
            "Notifications set aside",
            "Any rise is a bug to report.",
            rate("remediator_notifications_set_aside_total"),
            width=6,
        ),
    ),
    "The service itself": (
        graph(
            "Answer of the webhook",
            "Rising: the store commits slowly. Alertmanager gives up after its group_interval.",
            *quantiles("remediator_http_request_duration_seconds", 'route="/webhooks/alertmanager"'),
            unit="s",
            width=6,
        ),
        graph(
            "Requests by status",
            "All routes.",
            rate("remediator_http_request_duration_seconds_count", "code"),
            width=6,
        ),
        graph(
            "Store errors and lease takeovers",
            "The database is away, full or slow; replicas die or cannot reach it.",
            Query(f"sum(rate({own('remediator_store_errors_total')}[$__rate_interval]))", "store errors"),
            Query(f"sum(rate({own('remediator_lease_takeovers_total')}[$__rate_interval]))", "lease takeovers"),
            width=6,
        ),
        graph(
            "Memory",
            "Resident memory of each replica.",
            Query(own("process_resident_memory_bytes"), "{{instance}}"),
            unit="bytes",
            width=6,
        ),
    ),
}
