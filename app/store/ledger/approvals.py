"""People's decisions about waiting runs: approve, reject, cancel. Each is one conditional write and its event.

The condition is the state that the person saw; the write takes the run from any worker that holds it (the lease's epoch
moves on), so that a decision that is being made at the same moment is void.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update

from app.domain.errors import ConflictError, NotFoundError
from app.domain.reasons import Reason
from app.domain.states import RunState, may_become
from app.domain.wording import on_target, one_line
from app.store.audit import chain
from app.store.audit.chain import Entry, Event
from app.store.db.connection import AsyncConnection
from app.store.db.notify import announce
from app.store.db.schema import run
from app.store.ledger import endings, episodes, outbox, runs
from app.store.ledger.endings import Ended
from app.store.ledger.runs import Run

_LONGEST_WORD = 2000  # characters of a comment, as a message tells it


class DecisionKind(StrEnum):
    """The decisions that a person may make about a waiting run."""

    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    DROP = "drop"  # it waited for a breaker, which is closed without letting it go on


@dataclass(frozen=True, slots=True)
class _Effect:
    """The effect of a verb: its states before and after, its reason, and its name in the audit."""

    before: tuple[RunState, ...]
    after: RunState
    reason: Reason | None
    done: str


_WAITING = (RunState.PENDING, RunState.DEFERRED, RunState.AWAITING_APPROVAL)
_EFFECTS = {
    DecisionKind.APPROVE: _Effect((RunState.AWAITING_APPROVAL,), RunState.PENDING, None, "approved"),
    DecisionKind.REJECT: _Effect((RunState.AWAITING_APPROVAL,), RunState.DENIED, Reason.APPROVAL_REJECTED, "rejected"),
    DecisionKind.CANCEL: _Effect(_WAITING, RunState.CANCELLED, Reason.CANCELLED_BY_PERSON, "cancelled"),
    DecisionKind.DROP: _Effect((RunState.DEFERRED,), RunState.CANCELLED, Reason.BREAKER_DROPPED, "dropped"),
}


@dataclass(frozen=True, slots=True)
class HumanDecision:
    """A person's decision."""

    verb: DecisionKind
    actor: str
    comment: str = ""
    question: str = ""  # which plan it is about, as the question named it; empty: the present one

    @property
    def message(self) -> str:
        """As the audit tells it."""
        said = f"{_EFFECTS[self.verb].done} by {self.actor}"
        return f"{said}: {self.comment}" if self.comment else said


@dataclass(frozen=True, slots=True)
class Decided:
    """A run after a person's decision; `helped` when it had acted and its alerts are over."""

    run: Run
    helped: bool = False
    refused: str = ""  # why the word came too late; the run has ended for that reason


async def decide(tx: AsyncConnection, run_id: str, word: HumanDecision, now: datetime) -> Decided:
    """Write the decision; raises NotFoundError, or ConflictError that names the run's present state."""
    effect = _EFFECTS[word.verb]
    await episodes.keep_open(tx, run_id)  # locked before the run, as take-in does
    before = (await tx.execute(select(run.c.state).where(run.c.id == run_id).with_for_update())).scalar_one_or_none()
    if before is None:
        raise await _unknown(tx, run_id, word.verb)
    if before not in effect.before or not may_become(RunState(before), effect.after):
        states = " or ".join(effect.before)
        by = (await tx.execute(select(run.c.approved_by).where(run.c.id == run_id))).scalar_one()
        told = f"run {run_id} is {before}" + (f", approved by {by} already" if by is not None else "")
        raise ConflictError(f"{told}; only a run that is {states} can be {effect.done}")
    if word.verb is DecisionKind.APPROVE and not await _still_wanted(tx, run_id):
        return await _too_late(tx, run_id, now)
    if word.question:
        await _check_question(tx, run_id, word.question)
    values, helped = await _values(tx, run_id, word, effect, now)
    await tx.execute(update(run).where(run.c.id == run_id, run.c.state == before).values(values))
    data = {"comment": word.comment} if word.comment else {}
    entry = Entry(word.message, effect.reason, word.actor, data)
    await chain.append(tx, [Event(run_id, now, effect.done, effect.after, entry)])
    await announce(tx)
    decided = await runs.get(tx, run_id)
    if decided is None:
        raise NotFoundError(f"there is no run {run_id}")
    if effect.after.is_final:
        await endings.settle(tx, now, Ended.of(decided))
    await _tell(tx, decided, effect.done, word.message, now)
    return Decided(decided, helped)


async def _tell(tx: AsyncConnection, decided: Run, done: str, said: str, now: datetime) -> None:
    """Tell the channel that was asked people's answer to its question; a yes does not mean that it is done."""
    where = on_target(decided.target_key)
    title = f"{done.capitalize()}: {decided.remediation.name}{where}"
    what = "nothing is done" if decided.admitted_at is None else "nothing more is done"
    if not decided.state.is_final:
        title = f"{done.capitalize()}, not done yet: {decided.remediation.name}{where}"
        what = "it is decided once more and then done, and how it ends is told here"
    body = f"{one_line(said, _LONGEST_WORD)}; {what}. Run {decided.id}"
    await outbox.answer(tx, decided.id, (title, body), now, is_end=decided.state.is_final)


async def _check_question(tx: AsyncConnection, run_id: str, question: str) -> None:
    """Raise ConflictError when another plan is asked about by now."""
    asked = await runs.get(tx, run_id)
    present = asked.plan.question if asked is not None and asked.plan is not None else ""
    if question != present:
        told = f"the plan of run {run_id} differs from the plan of question {question[:60]!r}"
        raise ConflictError(f"{told}; look at it again, and answer question {present!r}")


async def _still_wanted(tx: AsyncConnection, run_id: str) -> bool:
    """Whether a run that waits is for anything: its alert fires, or it has begun and the engine says how it ends."""
    begun = (await tx.execute(select(run.c.admitted_at).where(run.c.id == run_id))).scalar_one() is not None
    return begun or await episodes.keep_open(tx, run_id)


async def _too_late(tx: AsyncConnection, run_id: str, now: datetime) -> Decided:
    """The alert ended before anybody approved: the same that the engine does when it looks."""
    said = "the alert resolved before anybody approved"
    ended = {"state": RunState.CANCELLED, "reason": Reason.RESOLVED_BEFORE_START, "message": said, "updated_at": now}
    ended |= runs.ended_columns(now)
    await tx.execute(update(run).where(run.c.id == run_id).values(ended | {"lease_epoch": run.c.lease_epoch + 1}))
    entry = Entry(said, Reason.RESOLVED_BEFORE_START)
    await chain.append(tx, [Event(run_id, now, RunState.CANCELLED, RunState.CANCELLED, entry)])
    cancelled = await runs.get(tx, run_id)
    if cancelled is None:
        raise NotFoundError(f"there is no run {run_id}")
    await endings.settle(tx, now, Ended.of(cancelled))
    await _tell(tx, cancelled, "cancelled", said, now)
    return Decided(cancelled, refused=f"{said}; run {run_id} is cancelled")


async def void(tx: AsyncConnection, held: Run, now: datetime, entry: Entry) -> Run:
    """Take an approval back: its run must be approved anew. Fenced by the run's lease; raises LeaseLostError."""
    await runs.fenced(tx, held, {"approved_by": None})
    await runs.note(tx, held, now, "approval_void", entry)
    return replace(held, approved_by=None)


async def _values(
    tx: AsyncConnection, run_id: str, word: HumanDecision, effect: _Effect, now: datetime
) -> tuple[dict[str, Any], bool]:
    values: dict[str, Any] = {
        "state": effect.after,
        "reason": effect.reason,
        "message": word.message,
        "updated_at": now,
        "not_before": now,
        "lease_owner": None,
        "lease_until": None,
        "lease_epoch": run.c.lease_epoch + 1,
    }
    if word.verb is DecisionKind.APPROVE:
        return values | {"approved_by": word.actor}, False
    values |= runs.ended_columns(now)
    acted = (await tx.execute(select(run.c.admitted_at).where(run.c.id == run_id))).scalar_one() is not None
    over = not await episodes.keep_open(tx, run_id)
    if acted:  # an earlier rung has: whether it helped is known now, or never
        values |= await endings.effect(tx, run_id, firing=not over)
    return values, acted and over


async def _unknown(tx: AsyncConnection, run_id: str, verb: DecisionKind) -> Exception:
    survivor = await runs.folded_into(tx, run_id)
    if survivor is None:
        return NotFoundError(f"there is no run {run_id}")
    return ConflictError(f"run {run_id} joined run {survivor}; {verb} that one")
