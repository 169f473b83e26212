"""What each guard allows and refuses."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.domain.decisions import Decision, Verdict
from app.domain.durations import Rate
from app.domain.plans import Condition, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Risk
from app.domain.scope import Scope
from app.guards.approval import approval
from app.guards.attempts import attempts
from app.guards.base import Facts
from app.guards.chain import CHAIN
from app.guards.cooldown import cooldown
from app.guards.late import late
from app.guards.mode import mode
from app.guards.owned_elsewhere import owned_elsewhere
from app.guards.rate_limit import rate_limit
from app.guards.scope import scope
from app.guards.target_busy import target_busy
from tests.support.alerts import NOW
from tests.unit.guards.facts import STEP, facts, plan

MINUTE = timedelta(minutes=1)
HOURLY, DAILY = Rate(3, timedelta(hours=1)), Rate(7, timedelta(days=1))
DESTROYS = STEP.model_copy(update={"risk": Risk.DESTRUCTIVE})


def said(decision: Decision) -> tuple[Verdict, Reason | None]:
    """The part of an answer that others act on."""
    return decision.verdict, decision.reason


def met(*passes: bool) -> PlannedStep:
    """A step that met conditions at its target: one that passes by itself, or one that does not."""
    kinds = {True: Reason.ROLLOUT_IN_PROGRESS, False: Reason.ROLLOUT_PAUSED}
    found = tuple(Condition(reason=kinds[one], message="seen", passes=one) for one in passes)
    return STEP.model_copy(update={"conditions": found})


@pytest.mark.parametrize("guard", CHAIN)
@pytest.mark.parametrize("known", [facts(), facts(plan=None)])
def test_nothing_stands_against_an_ordinary_run(guard: object, known: Facts) -> None:
    """Every guard allows the usual case, planned or not."""
    assert callable(guard)
    assert (Verdict.ALLOW, None) == said(guard(known))


def test_scope_denies_a_templated_target_outside() -> None:
    """Waiting would not bring it in."""
    outside = facts(target_templated=True)
    assert (Verdict.DENY, Reason.OUT_OF_SCOPE) == said(scope(outside))
    inside = facts(target_templated=True, scope=Scope(redis=("cache/*",)))
    assert Verdict.ALLOW is scope(inside).verdict


@pytest.mark.parametrize(
    ("own", "ceiling", "blamed"),
    [
        (Mode.OBSERVE, Mode.AUTO, "remediation"),
        (Mode.AUTO, Mode.OBSERVE, "ceiling"),
        (Mode.APPROVE, Mode.OBSERVE, "ceiling"),
    ],
)
def test_mode_stops_at_observing(own: Mode, ceiling: Mode, blamed: str) -> None:
    """The lower of the two modes counts, and the answer says whose it is."""
    decision = mode(facts(entry={"mode": own.value}, ceiling=ceiling))
    assert (Verdict.OBSERVE, Reason.MODE_OBSERVE) == said(decision)
    assert blamed in decision.message


@pytest.mark.parametrize("attempt", [1, 2])
def test_attempts_within_the_limit_are_allowed(attempt: int) -> None:
    """The last attempt is one of them."""
    assert Verdict.ALLOW is attempts(facts(limits={"attempts": 2}, attempt=attempt)).verdict


def test_the_attempt_after_the_last_is_denied() -> None:
    """An episode is not tried for ever."""
    assert (Verdict.DENY, Reason.ATTEMPTS_EXHAUSTED) == said(attempts(facts(limits={"attempts": 2}, attempt=3)))


def test_an_alert_older_than_expires_is_denied() -> None:
    """At `expires` it still may act, after it no more."""
    entry = {"expires": "1h"}
    assert Verdict.ALLOW is late(facts(entry=entry, alert_starts_at=NOW - 60 * MINUTE)).verdict
    older = facts(entry=entry, alert_starts_at=NOW - 61 * MINUTE)
    assert (Verdict.DENY, Reason.LATE) == said(late(older))


def test_cooldown_defers_until_the_target_has_rested() -> None:
    """The answer names the moment when the quiet time ends, and at that moment it is over."""
    decision = cooldown(facts(last_outcome=(NOW - 4 * MINUTE, "run-1")))
    assert (Verdict.DEFER, Reason.COOLDOWN) == said(decision)
    assert NOW + 6 * MINUTE == decision.until
    assert Verdict.ALLOW is cooldown(facts(last_outcome=(NOW - 10 * MINUTE, "run-1"))).verdict


def test_a_further_rung_needs_no_rest_and_no_budget() -> None:
    """It belongs to a run that was admitted once."""
    again = facts(
        admitted=True, last_outcome=(NOW, "run-1"), rate_full=(HOURLY, NOW + MINUTE), limits={"max_targets": 1}
    )
    assert {Verdict.ALLOW} == {guard(again).verdict for guard in (cooldown, rate_limit, target_busy)}


def test_rate_limit_defers_until_the_fullest_window_has_room() -> None:
    """Of several full windows the one that is full for longest counts."""
    decision = rate_limit(facts(rate_full=(HOURLY, NOW + MINUTE), global_rate_full=(DAILY, NOW + 2 * MINUTE)))
    assert (Verdict.DEFER, Reason.RATE_LIMITED) == said(decision)
    assert NOW + 2 * MINUTE == decision.until
    assert "global rate 7/1d" in decision.message


def test_a_busy_target_defers_even_a_further_rung() -> None:
    """Nobody else may work on it, whatever this run has done before."""
    for admitted in (False, True):
        decision = target_busy(facts(admitted=admitted, holder=("run-1", "other")))
        assert (Verdict.DEFER, Reason.TARGET_BUSY) == said(decision)
        assert "run-1" in decision.message


def test_max_targets_defers_the_one_too_many() -> None:
    """As many as the limit may be in work."""
    limits = {"max_targets": 2}
    assert Verdict.ALLOW is target_busy(facts(limits=limits, targets_in_work=1)).verdict
    refused = target_busy(facts(limits=limits, targets_in_work=2))
    assert (Verdict.DEFER, Reason.TOO_MANY_TARGETS) == said(refused)


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        ((True,), (Verdict.DEFER, Reason.ROLLOUT_IN_PROGRESS)),
        ((False,), (Verdict.DENY, Reason.ROLLOUT_PAUSED)),
        ((True, False), (Verdict.DENY, Reason.ROLLOUT_PAUSED)),
    ],
)
def test_what_owns_the_target_defers_or_denies(passes: tuple[bool, ...], expected: tuple[Verdict, Reason]) -> None:
    """What passes by itself is waited for, what does not is final, and the worst of several counts."""
    assert expected == said(owned_elsewhere(facts(plan=plan(met(*passes)))))


def test_approval_is_asked_for_in_mode_approve() -> None:
    """Under the mode or the ceiling approve, unless a person has said yes."""
    asked = (Verdict.NEEDS_APPROVAL, Reason.APPROVAL_REQUIRED)
    assert asked == said(approval(facts(entry={"mode": "approve"})))
    assert asked == said(approval(facts(ceiling=Mode.APPROVE)))
    assert Verdict.ALLOW is approval(facts(ceiling=Mode.APPROVE, approved_by="jo")).verdict


def test_what_destroys_is_asked_for_unless_the_remediation_says_otherwise() -> None:
    """`allow_destructive` is the only other way; a step that changes nothing destroys nothing."""
    asked = approval(facts(plan=plan(STEP, DESTROYS)))
    assert (Verdict.NEEDS_APPROVAL, Reason.APPROVAL_REQUIRED) == said(asked)
    assert Verdict.ALLOW is approval(facts(plan=plan(DESTROYS), entry={"allow_destructive": True})).verdict
    harmless = DESTROYS.model_copy(update={"changes": False})
    assert Verdict.ALLOW is approval(facts(plan=plan(harmless))).verdict
