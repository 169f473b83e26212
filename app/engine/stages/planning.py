"""Plans one rung of a run: renders templates, resolves the target, reads the state before. Changes nothing.

Called by the pipeline and by `remediator plan`; its result is everything that applying needs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from app.backends.action import Context
from app.backends.actions import actions
from app.backends.check import CheckContext
from app.backends.checks import checks
from app.backends.instances import Clients
from app.backends.registry import target_kind
from app.backends.scope import Scope
from app.catalog import exported
from app.catalog.targets import render_target
from app.catalog.templates import TemplateContext, render_params
from app.domain.errors import CheckError, PermanentError, TransientError
from app.domain.model import JsonObject, Value
from app.domain.plans import NO_BACKEND, Observation, Plan, PlannedCheck, PlannedStep, Target
from app.domain.reasons import Reason
from app.domain.redaction import redact, redact_all
from app.domain.remediation import CheckSpec, Remediation, Risk, StepSpec
from app.domain.texts import kinds_of


@dataclass(frozen=True, slots=True)
class Trigger:
    """The origin of a plan: one alert and one rung of a remediation, at one moment."""

    run_id: str
    remediation: Remediation
    rung: int
    alert: TemplateContext
    now: datetime


class Planner:
    """Makes plans with the clients and within the scope of this process."""

    def __init__(self, clients: Clients, scope: Scope, deadline_seconds: float) -> None:
        self._clients = clients
        self._scope = scope
        self._deadline_seconds = deadline_seconds

    async def plan(self, trigger: Trigger) -> Plan:
        """Resolve everything; raises PermanentError, or TransientError when a target cannot be reached now."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await self._plan(trigger)
        except TimeoutError as error:
            raise TransientError(f"planning took longer than {self._deadline_seconds:g} s") from error

    async def _plan(self, trigger: Trigger) -> Plan:
        rung = trigger.remediation.rungs[trigger.rung]
        needs_target = trigger.rung == 0 or any(actions()[step.action].target_backend for step in rung.steps)
        try:
            # A target that does not answer must leave time for the rest.
            async with asyncio.timeout(None if needs_target else self._deadline_seconds / 2):
                target = await self._resolve(trigger)
        except (PermanentError, TransientError, TimeoutError):
            # A later rung that only tells people must reach them, most of all when the target is gone.
            if needs_target:
                raise
            target = _nowhere(trigger)
        alert = replace(trigger.alert, target=target)
        conditions = trigger.remediation.when if trigger.rung == 0 else ()
        seen = [await self._look(trigger, alert, spec) for spec in conditions]
        return Plan(
            rung=trigger.rung,
            target=target,
            when=tuple(seen),
            verify=tuple(self._plan_check(alert, spec) for spec in rung.verify),
            steps=tuple([await self._plan_step(trigger, alert, spec) for spec in rung.steps]),
            settle=rung.settle,
        )

    async def _resolve(self, trigger: Trigger) -> Target:
        """The exact target that the alert and the remediation mean; the scope comes before the first read of it."""
        spec = trigger.remediation.target
        if spec is None:
            return _nowhere(trigger)
        _refuse_exporter(spec.fields, trigger.alert)
        kind = target_kind(spec.backend)
        claimed = await kind.claim(self._clients, render_target(spec, trigger.alert))
        _refuse(self._scope.objection(claimed))
        return await kind.resolve(self._clients, claimed)

    async def _plan_step(self, trigger: Trigger, alert: TemplateContext, spec: StepSpec) -> PlannedStep:
        action = actions()[spec.action]
        if action.risk is not Risk.LOW:  # a message may name both; people can tell them apart
            _refuse_exporter(spec.with_, alert)
        params = self._params(alert, action.Params, spec.with_, spec.action)
        context = Context(self._clients, self._scope, trigger.run_id, _target(alert), trigger.now)
        planned = await action.plan(context, params)
        seen = {"summary": redact(planned.summary), "before": redact_all(planned.before)}
        return planned.model_copy(update={"timeout": spec.timeout, **seen})

    def _plan_check(self, alert: TemplateContext, spec: CheckSpec) -> PlannedCheck:
        params = self._params(alert, checks()[spec.check].Params, spec.with_, spec.check)
        return PlannedCheck(
            check=spec.check, params=params.model_dump(mode="json", by_alias=True), timeout=spec.timeout
        )

    async def _look(self, trigger: Trigger, alert: TemplateContext, spec: CheckSpec) -> Observation:
        """Observe a precondition once; if it cannot be observed, it does not hold."""
        check = checks()[spec.check]
        params = self._params(alert, check.Params, spec.with_, spec.check)
        context = CheckContext(self._clients, self._scope, _target(alert), trigger.now)
        try:
            seen = await check.observe(context, params)
        except CheckError as error:
            raise PermanentError(f"when {spec.check}: {error.message}", reason=Reason.CHECK_UNOBSERVABLE) from error
        if not seen.held:
            raise PermanentError(f"when {spec.check}: {seen.message}", reason=Reason.PRECONDITION_FAILED)
        return seen

    def _params(self, alert: TemplateContext, model: type[Value], raw: JsonObject, where: str) -> Any:
        """Render and validate arguments; the error names the field and never repeats a value."""
        rendered = render_params(raw, alert, kinds_of(model))
        _refuse(self._scope.params_objection(rendered))
        try:
            return model.model_validate(rendered)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "with"
            raise PermanentError(f"{where}: {field}: {first['msg']}", reason=Reason.TEMPLATE_FAILED) from error


def _nowhere(trigger: Trigger) -> Target:
    place = f"{trigger.remediation.name}/{trigger.alert.fingerprint}"
    return Target(backend=NO_BACKEND, key=f"{NO_BACKEND}:{place}", name=place)


def _refuse(objection: str | None) -> None:
    if objection is not None:
        raise PermanentError(objection, reason=Reason.OUT_OF_SCOPE)


def _refuse_exporter(value: object, alert: TemplateContext) -> None:
    objection = exported.objection(value, alert.labels)
    if objection is not None:
        raise PermanentError(objection, reason=Reason.EXPORTED_LABEL)


def _target(alert: TemplateContext) -> Target:
    if alert.target is None:
        raise PermanentError("the target is not known", reason=Reason.TARGET_NOT_FOUND)
    return alert.target
