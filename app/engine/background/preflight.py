"""Finds out whether each remediation could run, before an alert does: its rights, and the systems that it needs.

One per replica, beside everything else: it holds up neither the start nor a run, and decides nothing. The API, a metric
and `remediator check --live` show its findings.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Collection, Mapping
from datetime import timedelta

import structlog

from app.backends.preflight import Need
from app.catalog.catalog import Catalog
from app.domain.errors import AppError
from app.domain.findings import Finding, Report, Result
from app.domain.remediation import Remediation
from app.engine.background.requirements import needs_of
from app.engine.context import EngineContext

_PATIENCE_SECONDS = 5.0  # for one question
_AT_ONCE = 8  # questions that are put at the same time
_POLL_SECONDS = 5.0  # how soon a new catalog is noticed
_JITTER = 0.1  # replicas that started together do not ask together
_VALUES = {Result.OK: 1.0, Result.CANNOT: 0.0, Result.UNKNOWN: math.nan}
log = structlog.get_logger()


class Preflight:
    """The findings about the remediations of the running catalog."""

    def __init__(self, parts: EngineContext) -> None:
        self._parts = parts
        self._reports: Mapping[str, Report] = {}

    def report(self, remediation: str) -> Report | None:
        """The latest findings about a remediation; None before the first look."""
        return self._reports.get(remediation)

    async def look(self, remediations: Collection[Remediation]) -> list[Report]:
        """Put every question once, some at the same time; never raises for a bad answer."""
        needs = {one.name: needs_of(one, self._parts) for one in remediations}
        questions = {need.key: need for found in needs.values() for need in found if isinstance(need, Need)}
        slots = asyncio.Semaphore(_AT_ONCE)
        answers = await asyncio.gather(*(_answer(need, slots) for need in questions.values()))
        known = dict(zip(questions, answers, strict=True))
        now = self._parts.clock()
        return [
            Report.of(name, now, [known[one.key] if isinstance(one, Need) else one for one in found])
            for name, found in needs.items()
        ]

    async def look_forever(self, interval: timedelta) -> None:
        """Look at each new catalog, and again from time to time, until cancelled."""
        while True:
            catalog = self._parts.catalog()
            try:
                self._keep(await self.look(catalog.remediations.values()))
            except Exception:  # the loop: an unforeseen error of a question must not end it
                log.exception("preflight failed")
            again = interval.total_seconds() * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
            await self._wait(catalog, again)

    async def _wait(self, catalog: Catalog, seconds: float) -> None:
        """Until the time is over or another catalog runs."""
        end = asyncio.get_running_loop().time() + seconds
        while self._parts.catalog() is catalog and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - no event
            await asyncio.sleep(min(_POLL_SECONDS, seconds))

    def _keep(self, reports: Collection[Report]) -> None:
        before, self._reports = self._reports, {report.remediation: report for report in reports}
        metrics = self._parts.metrics
        metrics.preflight_ok.clear()
        for report in reports:
            metrics.preflight_ok.labels(report.remediation).set(_VALUES[report.result])
            metrics.preflight_timestamp.set(report.at.timestamp())
            known = before.get(report.remediation)
            if known is None or known.findings != report.findings:
                _tell(report)


async def _answer(need: Need, slots: asyncio.Semaphore) -> Finding:
    async with slots:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                found = await need.ask()
        except AppError as error:
            found = Finding(subject=need.subject, result=Result.CANNOT, message=error.message)
        except TimeoutError:
            message = f"no answer within {_PATIENCE_SECONDS:g} s"
            found = Finding(subject=need.subject, result=Result.CANNOT, message=message)
        except Exception as error:  # an answer that is not understood is unknown
            log.exception("preflight could not ask", subject=need.subject)
            message = f"unexpected {type(error).__name__}; see the log"
            found = Finding(subject=need.subject, result=Result.UNKNOWN, message=message)
    return found or Finding(subject=need.subject, result=Result.OK)


def _tell(report: Report) -> None:
    for finding in report.findings:
        if finding.result is Result.CANNOT:
            log.warning(
                "a remediation cannot run",
                remediation=report.remediation,
                subject=finding.subject,
                message=finding.message,
            )
