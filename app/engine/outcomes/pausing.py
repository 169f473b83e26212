"""Pauses as people put and take them, and as they end by themselves: kept, audited, and told to the channel."""

from __future__ import annotations

from datetime import datetime

from app.domain.ids import new_id
from app.domain.obstacles import Hold
from app.domain.tones import Tone
from app.domain.wording import one_line
from app.engine.context import EngineContext, Turn
from app.engine.outcomes.notices import Notice, tell
from app.store.audit import chain as events
from app.store.audit.chain import ENGINE, SERVICE, Entry, Event, catalog_chain
from app.store.gates import pauses
from app.store.gates.pauses import Held

LOCK = "pause"  # of those who put and take them; the engine never has it while it works on runs
_LONGEST_WHY = 1000


def in_words(held: Held) -> str:
    """Describe the subject of a pause."""
    return "everything" if held.scope == "all" else f"{held.scope} {held.subject}"


def until_in_words(until: datetime | None) -> str:
    """When it ends, or that it does not."""
    return f"until {until:%Y-%m-%d %H:%M:%S} UTC" if until else "WITHOUT AN END, until a person takes it away"


async def pause(turn: Turn, held: Held, given: Hold, *, is_length: bool) -> None:
    """Put a pause, in a turn that has the lock; `is_length` as of `holds.put`."""
    await pauses.put(turn.tx, held, given, turn.now, is_length=is_length)
    said = f"{in_words(held)} paused by {given.holder} {until_in_words(given.until)}: {given.why}"
    await _record(turn, held, "paused", Entry(said, actor=given.holder))


async def resume(turn: Turn, held: Held, holder: str, by: str) -> bool:
    """Take a holder's pause away, in a turn that has the lock; whether there was one."""
    if not await pauses.take(turn.tx, held, holder, by, turn.now):
        return False
    said = f"{in_words(held)} resumed by {by}" + (f" for {holder}" if by != holder else "")
    await _record(turn, held, "resumed", Entry(said, actor=by))
    return True


async def end_what_is_over(parts: EngineContext) -> None:
    """Tell people of pauses whose time is over; only the replica that notices tells."""
    async with parts.database.read() as tx:
        if not await pauses.over(tx, parts.clock()):
            return
    async with parts.turn(lock=LOCK) as turn:
        for row in await pauses.over(turn.tx, turn.now):
            held = Held(row.scope, row.subject)
            await pauses.take(turn.tx, held, row.holder, ENGINE, turn.now)
            said = f"the pause of {in_words(held)} by {row.holder} is over: {row.why}"
            await _record(turn, held, "pause_ended", Entry(said))
    parts.work.set()


async def _record(turn: Turn, held: Held, kind: str, entry: Entry) -> None:
    chain = catalog_chain(held.subject) if held.scope == "remediation" else SERVICE
    data = {"scope": held.scope, "subject": held.subject}
    noted = Entry(entry.message, actor=entry.actor, data=data)
    await events.append(turn.tx, [Event(chain, turn.now, kind, "", noted)])
    about = turn.parts.catalog().get(held.subject) if held.scope == "remediation" else None
    verb = "Paused" if kind == "paused" else "Goes on"
    title = f"{verb}: {one_line(in_words(held))}"
    said = one_line(entry.message, _LONGEST_WHY)
    body = f"{said[:1].upper()}{said[1:]}.\n{_WHAT_IT_MEANS[kind]}"
    tone = Tone.WARNING if kind == "paused" else Tone.INFO
    await tell(turn, about, Notice(f"{kind}:{new_id(turn.now)}", title, body, tone=tone))
    turn.parts.outbox.set()


_GOES_ON = "Waiting runs are decided now, unless another pause stands: remediator status, or GET /pause."
_WHAT_IT_MEANS = {
    "paused": "A call under way finishes; nothing further begins. To go on: remediator resume, or DELETE /pause.",
    "resumed": _GOES_ON,
    "pause_ended": _GOES_ON,
}
