"""Parts a run that alerts share, where its remediation has changed and one plan answers them no longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.domain.episodes import Episode
from app.domain.remediation import Remediation
from app.engine.context import Turn
from app.engine.stages import folding
from app.engine.stages.intake import pending_run
from app.store.audit.chain import Entry
from app.store.ledger import episodes, runs
from app.store.ledger.runs import Run


async def part(turn: Turn, run: Run, changed: Remediation) -> None:
    """Give the alerts that a run does not answer as its remediation is now runs of their own.

    Each of those follows the catalog by itself. Raises LeaseLostError.
    """
    await runs.check_lease(turn.tx, run)
    open_ones = [one for one in await episodes.of_run(turn.tx, run.id) if one.is_open]
    others = [one for one in open_ones if one.fingerprint != run.fingerprint]
    for group in _groups(turn, run, changed, others):
        own = pending_run(run.remediation, run.digest, group[0], turn.now, attempt=run.attempt)
        await runs.create(turn.tx, [own])
        for one in group:
            await episodes.hand_over(turn.tx, one.id, run.id, own.id)
        names = ", ".join(one.fingerprint for one in group)
        message = f"the remediation has changed since: run {own.id} answers {names}"
        await runs.note(turn.tx, run, turn.now, "parted", Entry(message, data={"run": own.id}))


def _groups(turn: Turn, run: Run, changed: Remediation, others: Sequence[Episode]) -> list[list[Episode]]:
    """Return the alerts of each new run, without the alerts that stay with the run."""
    matches = _matches(turn, run.labels, changed)
    known = [(replace(run, remediation=changed, approved_by=None, rung=0), matches)]
    groups: list[list[Episode]] = [[]]
    for one in others:
        own = pending_run(changed, run.digest, one, turn.now, attempt=run.attempt)
        its_matches = _matches(turn, one.labels, changed)
        for group, (leader, of_leader) in zip(groups, known, strict=True):
            if its_matches is of_leader and (not its_matches or folding.answers_still(run, leader, own)):
                group.append(one)
                break
        else:
            groups.append([one])
            known.append((own, its_matches))
    return groups[1:]


def _matches(turn: Turn, labels: dict[str, str], changed: Remediation) -> bool:
    return changed in turn.parts.catalog().match(labels)
