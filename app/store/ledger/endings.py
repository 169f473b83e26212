"""The door through which every run ends: by the engine, by a person, or by the claim of an unreadable row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.store.db.connection import AsyncConnection
from app.store.db.notify import announce
from app.store.gates import breakers
from app.store.ledger import episodes, waking
from app.store.ledger.runs import Run


@dataclass(frozen=True, slots=True)
class Ended:
    """The facts about an ended run that others need."""

    run_id: str
    remediation: str
    target_key: str | None
    acted: bool  # it was let through

    @classmethod
    def of(cls, run: Run) -> Ended:
        """The same of a run that can be read."""
        return cls(run.id, run.remediation.name, run.target_key, run.admitted_at is not None)


async def settle(tx: AsyncConnection, now: datetime, ended: Ended) -> None:
    """Let those go on that waited for the run; a trial that did nothing leaves its place to the next run."""
    await waking.of_run(tx, now, ended.remediation, ended.target_key, acted=ended.acted)
    if not ended.acted:
        await breakers.give_trial_back(tx, ended.remediation, ended.run_id)
    await announce(tx)


async def effect(tx: AsyncConnection, run_id: str, *, firing: bool) -> dict[str, Any]:
    """Whether a run helped that acted and did not succeed: known at its end, or never."""
    return {"effective": not firing, "resolved_at": None if firing else await episodes.last_end(tx, run_id)}
