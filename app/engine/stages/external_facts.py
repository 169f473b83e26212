"""Asks other systems for facts that guards need and the store lacks, before a decision and outside its transaction.

Concurrent decisions share answers (see `clients.shared`), so that a storm here is not one at Alertmanager and the API
server. A question without an answer is reported as that; the guards refuse on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from itertools import chain

from app.backends.registry import backends, having
from app.backends.sources import AlertBackend, AlertSource, Answers, HeldAlert, plain_receiver
from app.domain.errors import AppError
from app.domain.external_facts import Freshness, Outside, Population, Standing
from app.domain.plans import Plan, Target
from app.domain.remediation import Purpose, Switchable
from app.engine.context import EngineContext
from app.store.ledger import episodes, inbox
from app.store.ledger.runs import Run


async def look_outside(parts: EngineContext, run: Run, plan: Plan) -> Outside:
    """Return whether the alert is fresh, and the state of the target's population; unknown facts do not raise."""
    if run.admitted_at is not None or run.purpose is not Purpose.REMEDY:
        return Outside()
    freshness, population = await asyncio.gather(_freshness(parts, run), _population(parts, run, plan.target))
    return Outside(freshness=freshness, population=population)


async def _freshness(parts: EngineContext, run: Run) -> Freshness | None:
    if Switchable.FRESH in run.remediation.without_guards:
        return None
    client = await alert_source(parts)
    if client is None:
        return None
    async with parts.database.read() as tx:
        firing = [one for one in await episodes.of_run(tx, run.id) if one.is_open]
        receivers = receivers_of(client, await inbox.receivers(tx))
    names = {one.labels.get("alertname", "") for one in firing} or {run.labels.get("alertname", "")}
    fingerprints = frozenset(chain.from_iterable(one.firing for one in firing)) or {run.fingerprint}
    answers = await asyncio.gather(*(client.of_name(name) for name in sorted(names)))
    standing, message = judge(answers, fingerprints, receivers)
    return Freshness(standing=standing, message=message, asked_at=parts.clock())


async def alert_source(parts: EngineContext) -> AlertSource | None:
    """Return the source of alerts for notifications; None where none is configured."""
    backend = having(AlertBackend)  # type: ignore[type-abstract]
    return None if backend is None else await backend.source(parts.clients)


def receivers_of(client: AlertSource, notified: Collection[str]) -> frozenset[str]:
    """The plain names of the receivers that lead here: as configured, else as recent notifications named them."""
    return frozenset(client.receivers or map(plain_receiver, notified))


def judge(
    answers: Collection[Answers], fingerprints: Collection[str], receivers: Collection[str]
) -> tuple[Standing, str]:
    """How Alertmanager sees an alert that has these fingerprints: active as soon as any of them is, at any member."""
    missing = sorted({why for answer in answers for why in answer.missing})
    if not any(answer.groups for answer in answers):
        return Standing.UNREACHABLE, f"Alertmanager did not answer: {'; '.join(missing)}"
    held = [
        (group.receiver.name, alert)
        for answer in answers
        for groups in answer.groups
        for group in groups
        for alert in group.alerts
        if alert.fingerprint in fingerprints
    ]
    if not held and any(answer.is_silent for answer in answers):
        return Standing.UNREACHABLE, f"Alertmanager did not answer everywhere: {'; '.join(missing)}"
    if not held:
        but = f" (not asked: {'; '.join(missing)})" if missing else ""
        return Standing.GONE, f"Alertmanager does not have the alert any more{but}"
    # Another receiver's route may be muted at times that are not ours.
    ours = [alert for receiver, alert in held if receiver in receivers] or [alert for _, alert in held]
    if any(is_active(alert) for alert in ours):
        return Standing.ACTIVE, "active in Alertmanager"
    return _suppressed(ours)


def is_active(alert: HeldAlert) -> bool:
    """Whether the group's receiver is told of the alert."""
    return alert.status.state != "suppressed" and not alert.status.muted_by


def _suppressed(alerts: Collection[HeldAlert]) -> tuple[Standing, str]:
    silences = sorted({one for alert in alerts for one in alert.status.silenced_by})
    if silences:
        return Standing.SILENCED, f"silenced in Alertmanager, by silence {', '.join(silences)}"
    inhibitors = sorted({one for alert in alerts for one in alert.status.inhibited_by})
    if inhibitors:
        return Standing.INHIBITED, f"inhibited in Alertmanager, by the alert with fingerprint {', '.join(inhibitors)}"
    intervals = sorted({one for alert in alerts for one in alert.status.muted_by or ()})
    return Standing.MUTED, f"muted in Alertmanager, by the time interval {', '.join(intervals) or 'of its route'}"


async def _population(parts: EngineContext, run: Run, target: Target) -> Population | None:
    backend = backends().get(target.backend)
    where = "" if backend is None else backend.neighbourhood(target)
    if backend is None or not where or Switchable.STORM in run.remediation.without_guards:
        return None
    try:
        async with asyncio.timeout(parts.policy.plan_timeout.total_seconds()):
            seen = await backend.population(parts.clients, target)
    except TimeoutError:
        return Population(where=where, total=0, unknown="it took too long to list the targets there")
    except AppError as error:
        return Population(where=where, total=0, unknown=error.message)
    if target.key not in seen.members:
        why = f"the list of the targets there has {seen.total} entries and lacks this one"
        return Population(where=where, total=0, unknown=why)
    return seen
