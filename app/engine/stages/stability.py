"""Looks whether the changes of a run are still there: an operator, a controller or a person may take them back.

Checks see the target; they cannot tell a number that was never changed from one that was changed back.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from app.backends.action import Context
from app.backends.actions import actions
from app.domain.errors import AppError
from app.domain.plans import Plan, PlannedStep
from app.domain.reasons import Reason
from app.engine.context import EngineContext
from app.store.audit.chain import Entry
from app.store.ledger.runs import Run

_PAUSE_SECONDS = 1.0
log = structlog.get_logger()


async def taken_back(parts: EngineContext, run: Run, plan: Plan, pause: timedelta = timedelta()) -> Entry | None:
    """Return the change that was taken back, after `pause`; None when every change of the plan is still there."""
    lasting = _lasting(plan)
    if lasting and pause > timedelta():
        await asyncio.sleep(pause.total_seconds())
    for step in lasting:
        entry = await _look(parts, run, plan, step)
        if entry is not None:
            return entry
    return None


def _lasting(plan: Plan) -> list[PlannedStep]:
    """The steps to look at; of several with one action the last one, which had the last word."""
    last = {step.action: step for step in plan.steps if step.changes and actions()[step.action].can_be_taken_back}
    return list(last.values())


async def _look(parts: EngineContext, run: Run, plan: Plan, step: PlannedStep) -> Entry | None:
    """Ask until there is an answer, for as long as planning may take; without an answer the run is not verified."""
    action = actions()[step.action]
    give_up = asyncio.get_running_loop().time() + parts.policy.plan_timeout.total_seconds()
    while True:
        context = Context(parts.clients, parts.policy.scope, run.id, plan.target, parts.clock())
        try:
            found = await action.taken_back(context, step, undone=bool(plan.undoes))
        except AppError as error:
            if error.reason is Reason.TARGET_NOT_FOUND:
                return Entry(error.message, Reason.TAKEN_BACK)
            if asyncio.get_running_loop().time() >= give_up:
                message = f"whether {step.action} still holds could not be seen: {error.message}"
                return Entry(message, Reason.CHECK_UNOBSERVABLE)
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        except Exception as error:  # the step boundary: without an answer nothing is verified
            log.exception("taken_back raised", action=step.action)
            message = f"{step.action}: unexpected {type(error).__name__}; see the log of this run"
            return Entry(message, Reason.CHECK_UNOBSERVABLE)
        return Entry(found, Reason.TAKEN_BACK, data={"action": step.action}) if found else None
