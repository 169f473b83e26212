"""Tells people of runs through the outbox: within the transaction of the change that it tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from app.domain.durations import format_duration
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Purpose, Remediation
from app.domain.states import RunState
from app.domain.tones import Tone, of_end
from app.domain.wording import on_target, one_line
from app.engine.context import Turn
from app.store.audit.chain import Entry
from app.store.ledger import outbox, runs, undos
from app.store.ledger.outbox import Draft
from app.store.ledger.runs import Run
from app.store.queries import deeds

_LONGEST_WHY = 2000
_MOST_LABELS = 20
_TOKEN = "Authorization: Bearer $REMEDIATOR_TOKEN"  # noqa: S105 - the shell puts it in
_ENDS = {
    RunState.FAILED: "Failed",
    RunState.INTERRUPTED: "Interrupted",
    RunState.EXPIRED: "Not done, no answer came",
}
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Notice:
    """A message; `key` names its occasion, which is told once."""

    key: str
    title: str
    body: str
    run_id: str | None = None
    tone: Tone = Tone.WARNING


async def tell(turn: Turn, about: Remediation | None, notice: Notice) -> None:
    """Queue a message to the remediation's channel, or to the configured one."""
    channel = channel_of(turn, about)
    if channel is None:
        log.warning("a message reaches no person: no channel is configured", title=notice.title)
        await _not_told(turn, notice)
        return
    draft = Draft(notice.key, channel, notice.title, notice.body, notice.run_id, notice.tone)
    await outbox.queue(turn.tx, draft, turn.now)


@dataclass(frozen=True, slots=True)
class End:
    """A run that has ended, and the facts about it for people."""

    run: Run
    firing: bool
    applied: bool  # every step of its last rung was applied
    again: str | None = None  # the run that tries once more


async def tell_of_end(turn: Turn, end: End, *, is_news: bool) -> None:
    """Tell people, once, how a run ended: always the channel that was asked about it, else only news.

    The channel is not told again where the run's last rung has just told it. Without a channel no person is to hear of
    it.
    """
    ended = end.run
    may_ask = ended.plan is not None and ended.remediation.mode is not Mode.OBSERVE
    channel = await outbox.asked(turn.tx, ended.id) if may_ask else None
    if channel is None and is_news:
        channel = channel_of(turn, ended.remediation)
        channel = None if channel in _told_by_rung(end) else channel
    if channel is None:
        return
    did = (await deeds.of_runs(turn.tx, [ended]))[ended.id].done
    title = f"{_title(ended)}: {_where(ended)}"
    body = "\n".join(_end(turn, end, did))
    draft = Draft(outbox.ended_key(ended.id), channel, title, body, ended.id, of_end(ended.state))
    await outbox.queue(turn.tx, draft, turn.now)


def _title(ended: Run) -> str:
    """How it ended, in words."""
    if ended.state is RunState.SUCCEEDED:
        if ended.reason is Reason.NOTHING_TO_DO:
            return "Nothing was to do"
        return "Done and verified" if ended.plan is not None and ended.plan.verify else "Done"
    if ended.reason is Reason.MAX_AGE:
        return "Gave up"
    return _ENDS.get(ended.state, "Not done" if ended.admitted_at is None else "Ended")


def _told_by_rung(end: End) -> set[str]:
    """The channels that the run's last rung has told."""
    plan = end.run.plan
    if plan is None or plan.rung != end.run.rung or not end.applied:
        return set()
    return {str(step.params.get("channel")) for step in plan.steps if step.action == "notify.send"}


def _end(turn: Turn, end: End, did: Sequence[str]) -> Iterator[str]:
    ended = end.run
    yield from _about(ended)
    yield f"How it ended: {ended.state.replace('_', ' ')}: {one_line(ended.message, _LONGEST_WHY)}"
    yield "Done:" if did else "Nothing was done."
    yield from (f"- {line}" for line in did)
    if ended.approved_by is not None:
        yield f"Approved by {one_line(ended.approved_by)}."
    yield _what_follows(end)
    yield from links(turn, ended)


def _what_follows(end: End) -> str:
    if end.again is not None:
        return f"Run {end.again} tries once more."
    if not end.firing:
        return "The alert has resolved."
    if end.run.state is RunState.SUCCEEDED:
        within = format_duration(end.run.remediation.effective_within)
        return f"The alert still fires. If it does not resolve within {within}, it was not helped by this."
    return "The alert still fires, and nothing more is done about it: it needs a person."


async def tell_of_wait(turn: Turn, waiting: Run) -> bool:
    """Tell people, once for a run, that it has been deferred for long; whether they were told now."""
    channel = channel_of(turn, waiting.remediation)
    dry = waiting.admitted_at is None and Mode.OBSERVE in {waiting.remediation.mode, turn.parts.policy.ceiling}
    if channel is None or (dry and waiting.purpose is Purpose.REMEDY):
        return False
    waited = format_duration(turn.parts.policy.tell_waiting)
    lines = [
        *_about(waiting),
        f"It has not gone on for {waited}: {one_line(waiting.message, _LONGEST_WHY)}",
        "It goes on by itself as soon as it may.",
        *links(turn, waiting),
    ]
    draft = Draft(outbox.waits_key(waiting.id), channel, f"Waits: {_where(waiting)}", "\n".join(lines), waiting.id)
    return await outbox.queue(turn.tx, draft, turn.now)


def channel_of(turn: Turn, about: Remediation | None) -> str | None:
    """The channel that is told of a remediation."""
    return (about.channel if about is not None else None) or turn.parts.policy.channel


def _where(of: Run) -> str:
    return f"{of.remediation.name}{on_target(of.target_key)}"


def _about(of: Run) -> Iterator[str]:
    yield f"Remediation {of.remediation.name}: {of.remediation.summary}"
    yield _alert(of)


def _alert(of: Run) -> str:
    name = one_line(of.labels.get("alertname", ""))
    return f"Alert: {name}, firing since {of.alert_starts_at:%Y-%m-%d %H:%M:%S} UTC"


def alert_in_words(of: Run) -> Iterator[str]:
    """Describe the alert with its author's texts, and its labels."""
    yield _alert(of)
    for name in ("summary", "description"):
        if of.annotations.get(name):
            yield f"  {name}: {one_line(of.annotations[name], _LONGEST_WHY)}"
    labels = sorted((name, value) for name, value in of.labels.items() if name != "alertname")
    yield from (f"  {one_line(name)}: {one_line(value)}" for name, value in labels[:_MOST_LABELS])
    if len(labels) > _MOST_LABELS:
        yield f"  and {len(labels) - _MOST_LABELS} labels more"


def links(turn: Turn, of: Run) -> Iterator[str]:
    """Where a person reads on: the runbook, the alert's graph, and all that is known of the run."""
    given = {"Runbook": of.remediation.runbook_url or of.annotations.get("runbook_url", ""), "Graph": of.generator_url}
    for name, url in given.items():
        if url.startswith(("http://", "https://")):
            yield f"{name}: {one_line(url, _LONGEST_WHY)}"
    yield f"Run: {_address(turn, of)}"
    yield f'Look: curl -H "{_TOKEN}" "{_address(turn, of)}"'


def call(turn: Turn, of: Run, what: str) -> str:
    """A command that does something to a run; links are of no use to a person where a token is wanted."""
    return f'curl -X POST -H "{_TOKEN}" "{_address(turn, of)}/{what}"'


def _address(turn: Turn, of: Run) -> str:
    return f"{turn.parts.policy.external_url or '$REMEDIATOR_URL'}/remediations/{of.id}"


async def _not_told(turn: Turn, notice: Notice) -> None:
    """Say so on the run that it is about."""
    about = None if notice.run_id is None else await undos.keep(turn.tx, notice.run_id)
    if about is not None:
        entry = Entry(f"the message reached no person, no channel is configured: {notice.title}", Reason.CONFIG_INVALID)
        await runs.note(turn.tx, about, turn.now, "not_told", entry)
