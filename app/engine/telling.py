"""Tells people what they should know, through the outbox: within the transaction of what is told of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from app.domain.durations import format_duration
from app.domain.reasons import Reason
from app.domain.remediation import Remediation
from app.domain.states import RunState
from app.domain.wording import one_line
from app.engine.parts import Turn
from app.store import messages, runs, undos
from app.store.events import Entry
from app.store.messages import Draft
from app.store.runs import Run

_LONGEST_WHY = 2000
_ENDS = {RunState.FAILED: "Failed", RunState.INTERRUPTED: "Interrupted"}
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told; `key` names the occasion, which is told of once."""

    key: str
    title: str
    body: str
    run_id: str | None = None


async def tell(turn: Turn, about: Remediation | None, notice: Notice) -> None:
    """Queue a message to the remediation's channel, or to the configured one."""
    channel = channel_of(turn, about)
    if channel is None:
        log.warning("nobody is told: no channel is configured", title=notice.title)
        await _not_told(turn, notice)
        return
    draft = Draft(notice.key, channel, notice.title, notice.body, notice.run_id)
    await messages.queue(turn.tx, draft, turn.now)


@dataclass(frozen=True, slots=True)
class End:
    """A run that has ended, and what people want to know of it."""

    run: Run
    firing: bool
    applied: bool  # every step of its last rung was applied
    again: str | None = None  # the run that tries once more


async def tell_of_end(turn: Turn, end: End) -> None:
    """Tell people, once, that a run failed, was interrupted or gave up.

    The channel is not told again where the run's last rung has just told it. Without a channel nobody is to hear of it.
    """
    ended = end.run
    channel = channel_of(turn, ended.remediation)
    if channel is None or channel in _told_by_rung(end):
        return
    title = f"{_ENDS.get(ended.state, 'Gave up')}: {_where(ended)}"
    body = "\n".join(_end(turn, end))
    await messages.queue(turn.tx, Draft(f"ended:{ended.id}", channel, title, body, ended.id), turn.now)


def _told_by_rung(end: End) -> set[str]:
    """The channels that the run's last rung has told."""
    plan = end.run.plan
    if plan is None or plan.rung != end.run.rung or not end.applied:
        return set()
    return {str(step.params.get("channel")) for step in plan.steps if step.action == "notify.send"}


def _end(turn: Turn, end: End) -> Iterator[str]:
    yield from _about(end.run)
    yield f"Why: {one_line(end.run.message, _LONGEST_WHY)}"
    if end.again is not None:
        yield f"Run {end.again} tries once more."
    elif end.firing:
        yield "The alert still fires, and nothing more is done about it: it needs a person."
    else:
        yield "The alert has resolved meanwhile."
    yield from _links(turn, end.run)


async def tell_of_wait(turn: Turn, waiting: Run) -> bool:
    """Tell people, once for a run, that it has been deferred for long; whether they were told now."""
    channel = channel_of(turn, waiting.remediation)
    if channel is None:
        return False
    waited = format_duration(turn.parts.policy.tell_waiting)
    lines = [
        *_about(waiting),
        f"It has not gone on for {waited}: {one_line(waiting.message, _LONGEST_WHY)}",
        "It goes on by itself as soon as it may, while the alert fires.",
        *_links(turn, waiting),
    ]
    draft = Draft(f"waits:{waiting.id}", channel, f"Waits: {_where(waiting)}", "\n".join(lines), waiting.id)
    return await messages.queue(turn.tx, draft, turn.now)


def channel_of(turn: Turn, about: Remediation | None) -> str | None:
    """The channel that is told of a remediation."""
    return (about.channel if about is not None else None) or turn.parts.policy.channel


def _where(of: Run) -> str:
    return f"{of.remediation.name} on {one_line(of.target_key)}" if of.target_key else of.remediation.name


def _about(of: Run) -> Iterator[str]:
    yield f"Remediation {of.remediation.name}: {of.remediation.summary}"
    name = one_line(of.labels.get("alertname", ""))
    yield f"Alert: {name}, firing since {of.alert_starts_at:%Y-%m-%d %H:%M:%S} UTC"


def _links(turn: Turn, of: Run) -> Iterator[str]:
    if of.remediation.runbook_url is not None:
        yield f"Runbook: {of.remediation.runbook_url}"
    yield f"Look: {turn.parts.policy.external_url}/remediations/{of.id}"


async def _not_told(turn: Turn, notice: Notice) -> None:
    """Say so on the run that it is about."""
    about = None if notice.run_id is None else await undos.keep(turn.tx, notice.run_id)
    if about is not None:
        entry = Entry(f"nobody was told, no channel is configured: {notice.title}", Reason.CONFIG_INVALID)
        await runs.note(turn.tx, about, turn.now, "not_told", entry)
