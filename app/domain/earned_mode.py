"""How far a remediation has come that earns its mode: the rule by which its record moves it up and down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from app.domain.remediation import Mode, Remediation


class Mark(StrEnum):
    """The mark that one run gives to its remediation."""

    WOULD_ACT = "would_act"  # observed, and nothing but the mode stood against it
    HELPED = "helped"
    HELPED_AFTER_APPROVAL = "helped_after_approval"
    BAD = "bad"  # failed, interrupted, ineffective, or rejected by a person


_GOOD = {
    Mode.OBSERVE: frozenset({Mark.WOULD_ACT}),
    Mode.APPROVE: frozenset({Mark.HELPED_AFTER_APPROVAL}),
    Mode.AUTO: frozenset({Mark.HELPED, Mark.HELPED_AFTER_APPROVAL}),
}
_MODES = tuple(Mode)


@dataclass(frozen=True, slots=True)
class Standing:
    """The mode that a remediation has earned, and the marks for and against it since then, each in a row."""

    digest: str  # of the remediation's steps; another one begins again
    mode: Mode
    since: datetime
    good: int = 0
    bad: int = 0


def beginning(remediation: Remediation, now: datetime) -> Standing | None:
    """Where a remediation starts; None when it need not earn its mode."""
    if remediation.earn is None:
        return None
    mode = min(remediation.earn.start, remediation.mode, key=lambda mode: mode.rank)
    return Standing(remediation.deed, mode, now)


def after(standing: Standing, mark: Mark, remediation: Remediation, now: datetime) -> Standing:
    """The standing once a run has counted; a change of mode starts both counts anew."""
    earn = remediation.earn
    if earn is None:
        return standing
    rank = standing.mode.rank
    if mark is Mark.BAD:
        bad = standing.bad + 1
        if bad >= earn.demote_after and rank > 0:
            return Standing(standing.digest, _MODES[rank - 1], now)
        return replace(standing, good=0, bad=bad)
    if mark not in _GOOD[standing.mode]:
        return standing
    good = standing.good + 1
    needed = {Mode.OBSERVE: earn.approve_after, Mode.APPROVE: earn.auto_after}.get(standing.mode)
    if needed is not None and good >= needed and rank < remediation.mode.rank:
        return Standing(standing.digest, _MODES[rank + 1], now)
    return replace(standing, good=good, bad=0)
