"""Earned autonomy: lets runs count for and against their remediation, and moves its mode by that.

A run counts in the transaction that ends or judges it, so that no crash forgets or doubles it. One that was made of an
older form of its remediation says nothing about the present one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import structlog

from app.catalog.catalog import Catalog
from app.domain.earned_mode import Mark, Standing, after, beginning
from app.domain.errors import ConflictError
from app.domain.remediation import Mode, Remediation
from app.domain.tones import Tone
from app.engine.context import Turn
from app.engine.outcomes.notices import Notice, tell
from app.engine.precedence import is_newest
from app.store.audit.chain import Entry
from app.store.db.connection import AsyncConnection
from app.store.gates import earned_modes

log = structlog.get_logger()


async def earned(tx: AsyncConnection, remediation: Remediation, now: datetime) -> Mode | None:
    """The mode that a remediation has earned so far, or None when it need not earn any."""
    if remediation.earn is None:
        return None
    found = present(remediation, await earned_modes.get(tx, remediation.name), now)
    return None if found is None else found.mode


def present(remediation: Remediation, known: Standing | None, now: datetime) -> Standing | None:
    """The standing of this form of a remediation; one of an older form is worth nothing."""
    first = beginning(remediation, now)
    return first if first is None or known is None or known.digest != first.digest else known


async def count(turn: Turn, remediation: Remediation, run_id: str, mark: Mark) -> None:
    """Let one run count; its remediation may be promoted or demoted by that."""
    current = turn.parts.catalog().get(remediation.name)
    if current is None or current.deed != remediation.deed:
        return
    before = await _present(turn, remediation)
    if before is None:
        return
    now_has = after(before, mark, remediation, turn.now)
    if now_has == before:
        return
    await earned_modes.put(turn.tx, remediation.name, now_has)
    if now_has.mode is before.mode:
        return
    promoted = now_has.mode.rank > before.mode.rank
    counted = before.good + 1 if promoted else before.bad + 1
    why = f"{counted} good runs in a row" if promoted else f"{counted} bad runs in a row"
    message = f"{'promoted' if promoted else 'demoted'} from {before.mode} to {now_has.mode} after {why}"
    await _tell(turn, remediation, now_has, Entry(message, data={"run": run_id}))


async def set_by_hand(turn: Turn, remediation: Remediation, mode: Mode, said: Entry) -> Standing:
    """Put a remediation where a person says; raises ConflictError where it earns nothing or may not go so far."""
    before = await _present(turn, remediation)
    if before is None:
        if remediation.earn is not None:
            raise ConflictError(f"another replica has a newer form of {remediation.name}; ask that one")
        raise ConflictError(f"remediation {remediation.name} does not earn its mode; it has no `earn`")
    if mode.rank > remediation.mode.rank:
        raise ConflictError(f"the mode of {remediation.name} is {remediation.mode}; its standing cannot be {mode}")
    given = replace(before, mode=mode, since=turn.now, good=0, bad=0)
    await earned_modes.put(turn.tx, remediation.name, given)
    message = f"set from {before.mode} to {mode} by {said.actor}" + (f": {said.message}" if said.message else "")
    data = {"comment": said.message} if said.message else {}
    await _tell(turn, remediation, given, Entry(message, actor=said.actor, data=data))
    return given


def behind(catalog: Catalog, known: Mapping[str, Standing]) -> list[Remediation]:
    """Return the remediations that are new in a loaded catalog, or do something else than before."""
    return [
        one
        for name, one in catalog.remediations.items()
        if one.earn is not None and (name not in known or known[name].digest != one.deed)
    ]


async def follow(turn: Turn, remediation: Remediation) -> None:
    """Let new or changed remediations begin again, unless the catalog has changed again meanwhile."""
    if turn.parts.catalog().get(remediation.name) is remediation:
        await _present(turn, remediation)


async def _present(turn: Turn, remediation: Remediation) -> Standing | None:
    """The standing of this form of the remediation, kept from others until the turn ends; None where it has none."""
    first = beginning(remediation, turn.now)
    if first is None:
        return None
    found, is_new = await earned_modes.begin(turn.tx, remediation.name, first)
    if is_new:
        entry = Entry(f"begins at {first.mode}; it may come to {remediation.mode}")
        await _record(turn, remediation, first, entry)
        return first
    if found.digest == first.digest:
        return found
    if not await is_newest(turn):  # it is the newer form's, which other replicas have
        return None
    await earned_modes.put(turn.tx, remediation.name, first)
    message = f"the remediation has changed; it begins anew at {first.mode}, after {found.mode}"
    await (_record if first.mode is found.mode else _tell)(turn, remediation, first, Entry(message))
    return first


async def _tell(turn: Turn, remediation: Remediation, standing: Standing, entry: Entry) -> None:
    """Record a change of mode, and tell people of it."""
    await _record(turn, remediation, standing, entry)
    key = f"standing:{remediation.name}:{standing.digest[:12]}:{turn.now.isoformat()}"
    title = f"Remediation {remediation.name} is in mode {standing.mode}"
    body = f"{entry.message[0].upper()}{entry.message[1:]}."
    await tell(turn, remediation, Notice(key, title, body, tone=Tone.INFO))


async def _record(turn: Turn, remediation: Remediation, standing: Standing, entry: Entry) -> None:
    noted = replace(entry, data=entry.data | {"mode": standing.mode.value})
    await earned_modes.note(turn.tx, remediation.name, turn.now, noted)
    log.info("standing", remediation=remediation.name, mode=standing.mode.value, message=entry.message)
