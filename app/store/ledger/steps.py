"""The steps of runs, as they begin and end; each write is fenced by the run's lease and is an event of its chain."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select, update

from app.domain.model import JsonObject
from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from app.domain.redaction import redact_all
from app.store.audit.chain import Entry
from app.store.db.connection import AsyncConnection
from app.store.db.schema import step
from app.store.ledger.runs import Run, check_lease, note


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended: succeeded, failed, skipped or interrupted."""

    state: str
    tries: int = 1
    result: JsonObject | None = None
    reason: Reason | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "result", redact_all(self.result))
        object.__setattr__(self, "error", redact_all(self.error))


@dataclass(frozen=True, slots=True)
class StepRecord:
    """The result of one step of a rung."""

    position: int
    action: str
    state: str
    tries: int
    started_at: datetime
    result: JsonObject | None
    reason: Reason | None
    error: str | None


_STEPS = (
    select(step).where(step.c.run_id == bindparam("run"), step.c.rung == bindparam("at_rung")).order_by(step.c.position)
)


async def of_rung(tx: AsyncConnection, run_id: str, rung: int) -> list[StepRecord]:
    """The recorded steps of one rung, in order."""
    return [
        StepRecord(
            row.position,
            row.action,
            row.state,
            row.tries,
            row.started_at,
            row.result,
            Reason(row.reason) if row.reason else None,
            row.error,
        )
        for row in await tx.execute(_STEPS, {"run": run_id, "at_rung": rung})
    ]


_HERE = and_(
    step.c.run_id == bindparam("of_run"), step.c.rung == bindparam("at_rung"), step.c.position == bindparam("at")
)
_AGAIN = update(step).where(_HERE).values(state="started")
_INSERT = insert(step)
_FINISH = (
    update(step)
    .where(_HERE, step.c.state == "started")
    .values({name: bindparam(f"new_{name}") for name in ("state", "tries", "result", "reason", "error", "finished_at")})
)


def _step_of(held: Run, position: int) -> dict[str, Any]:
    return {"of_run": held.id, "at_rung": held.rung, "at": position}


async def start(tx: AsyncConnection, held: Run, position: int, planned: PlannedStep, now: datetime) -> None:
    """Write, before the call, that a step starts (or starts again after a crash)."""
    await check_lease(tx, held)
    again = await tx.execute(_AGAIN, _step_of(held, position))
    if again.rowcount == 0:
        row = {"run_id": held.id, "rung": held.rung, "position": position, "action": planned.action}
        row |= {"planned": planned.model_dump(mode="json"), "state": "started", "tries": 0, "started_at": now}
        await tx.execute(_INSERT, [row])
    data = {"rung": held.rung, "position": position, "action": planned.action}
    await note(tx, held, now, "step_started", Entry(planned.summary, data=data))


async def finish(tx: AsyncConnection, held: Run, position: int, now: datetime, outcome: StepOutcome) -> None:
    """Write the result of a step."""
    await check_lease(tx, held)
    found = {f"new_{name}": value for name, value in asdict(outcome).items()}
    written = await tx.execute(_FINISH, _step_of(held, position) | found | {"new_finished_at": now})
    if written.rowcount == 0:
        return  # it was written before, by a transaction whose end was not heard
    data = {"rung": held.rung, "position": position, "result": outcome.result or {}}
    await note(tx, held, now, f"step_{outcome.state}", Entry(outcome.error or "", outcome.reason, data=data))


async def leave(tx: AsyncConnection, held: Run, position: int, now: datetime, why: str) -> None:
    """Leave a begun step to the replica that goes on with the run."""
    await check_lease(tx, held)
    await note(tx, held, now, "step_left", Entry(why, data={"rung": held.rung, "position": position}))


async def forget(tx: AsyncConnection, held: Run, position: int) -> None:
    """Take the intent of a step back that was not carried out, so that it begins anew."""
    await check_lease(tx, held)
    await tx.execute(delete(step).where(_HERE), _step_of(held, position))
