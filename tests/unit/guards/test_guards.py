"""What each guard allows and refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import ValidationError

from app.backends.scope import Scope
from app.domain.decisions import Decision, Verdict
from app.domain.durations import Rate
from app.domain.external_facts import Freshness, Population, Standing
from app.domain.obstacles import Breaker, Hold, Storm, TargetHolder
from app.domain.plans import Condition, NotYet, PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Mode, Purpose, Risk
from app.guards.approval import approval
from app.guards.attempts import attempts
from app.guards.base import Facts
from app.guards.breaker import breaker
from app.guards.chain import CHAIN, decide, outcome
from app.guards.concurrency import concurrency
from app.guards.cooldown import cooldown
from app.guards.freeze import freeze
from app.guards.fresh import fresh
from app.guards.max_age import max_age
from app.guards.mode import mode
from app.guards.not_yet import not_yet
from app.guards.owned_elsewhere import owned_elsewhere
from app.guards.paused import paused
from app.guards.rate import rate
from app.guards.scope import scope
from app.guards.storm import storm
from app.guards.target_busy import target_busy
from tests.support.alerts import NOW
from tests.unit.guards.facts import STEP, facts, plan

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
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


def test_scope_denies_a_target_outside() -> None:
    """Waiting would not bring it in."""
    outside = facts(scope=Scope())
    assert (Verdict.DENY, Reason.OUT_OF_SCOPE) == said(scope(outside))
    inside = facts(scope=Scope(redis={"databases": ("cache/*",)}))
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


@pytest.mark.parametrize("purpose", [Purpose.UNDO, Purpose.REVERT])
def test_what_is_owed_waits_under_a_lower_ceiling(purpose: Purpose) -> None:
    """Once begun it waits for a person, as everything that stands half done."""
    owed = facts(entry={"mode": "auto"}, ceiling=Mode.OBSERVE, purpose=purpose)
    assert (Verdict.DEFER, Reason.MODE_OBSERVE) == said(mode(owed))
    assert Verdict.OBSERVE is mode(replace(owed, admitted=True)).verdict
    assert Verdict.ALLOW is mode(replace(owed, ceiling=Mode.APPROVE)).verdict


@pytest.mark.parametrize("attempt", [1, 2])
def test_attempts_within_the_limit_are_allowed(attempt: int) -> None:
    """The last attempt is one of them."""
    assert Verdict.ALLOW is attempts(facts(limits={"attempts": 2}, attempt=attempt)).verdict


def test_the_attempt_after_the_last_is_denied() -> None:
    """An episode is not tried for ever."""
    assert (Verdict.DENY, Reason.ATTEMPTS_EXHAUSTED) == said(attempts(facts(limits={"attempts": 2}, attempt=3)))


def test_an_alert_older_than_expires_is_denied() -> None:
    """At `expires` it still may act, after it no more."""
    entry = {"max_age": "1h"}
    assert Verdict.ALLOW is max_age(facts(entry=entry, alert_starts_at=NOW - 60 * MINUTE)).verdict
    older = facts(entry=entry, alert_starts_at=NOW - 61 * MINUTE)
    assert (Verdict.DENY, Reason.MAX_AGE) == said(max_age(older))


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
    assert {Verdict.ALLOW} == {guard(again).verdict for guard in (cooldown, rate, target_busy)}


def test_a_further_rung_passes_the_guards_that_ask_whether_to_begin() -> None:
    """The breaker, the alert's age and a storm stop a run before its first rung only."""
    opened = Breaker(3, NOW - MINUTE, NOW + MINUTE)
    storms = (Storm("", "all", NOW + MINUTE),)
    against = {"breaker": opened, "alert_starts_at": NOW - 61 * MINUTE, "storms": storms, "entry": {"max_age": "1h"}}
    asked = (breaker, max_age, storm)
    assert [Verdict.DEFER, Verdict.DENY, Verdict.DEFER] == [guard(facts(**against)).verdict for guard in asked]
    assert {Verdict.ALLOW} == {guard(facts(**against, admitted=True)).verdict for guard in asked}
    assert Verdict.ALLOW is max_age(facts(**against, rung=1)).verdict  # the first rung was refused, the second pages


def test_rate_defers_until_the_fullest_window_has_room() -> None:
    """Of several full windows the one that is full for longest counts."""
    decision = rate(facts(rate_full=(HOURLY, NOW + MINUTE), global_rate_full=(DAILY, NOW + 2 * MINUTE)))
    assert (Verdict.DEFER, Reason.RATE) == said(decision)
    assert NOW + 2 * MINUTE == decision.until
    assert "global rate 7/1d" in decision.message


def test_a_busy_target_defers_even_a_further_rung() -> None:
    """Nobody else may work on it, whatever this run has done before."""
    for admitted in (False, True):
        decision = target_busy(facts(admitted=admitted, holder=TargetHolder("run-1", "other", Risk.LOW)))
        assert (Verdict.DEFER, Reason.TARGET_BUSY) == said(decision)
        assert "run-1" in decision.message


def test_max_targets_defers_the_one_too_many() -> None:
    """As many as the limit may be in work."""
    limits = {"max_targets": 2}
    assert Verdict.ALLOW is concurrency(facts(limits=limits, targets_in_work=1)).verdict
    refused = concurrency(facts(limits=limits, targets_in_work=2))
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


def test_nobody_is_asked_about_a_plan_that_changes_nothing() -> None:
    """Whatever the mode; one step that changes something is enough to be asked about."""
    idle = STEP.model_copy(update={"changes": False})
    assert Verdict.ALLOW is approval(facts(entry={"mode": "approve"}, plan=plan(idle))).verdict
    assert Verdict.NEEDS_APPROVAL is approval(facts(entry={"mode": "approve"}, plan=plan(idle, STEP))).verdict


def test_what_destroys_is_asked_for_unless_the_remediation_says_otherwise() -> None:
    """`allow_destructive` is the only other way; a step that changes nothing destroys nothing."""
    asked = approval(facts(plan=plan(STEP, DESTROYS)))
    assert (Verdict.NEEDS_APPROVAL, Reason.APPROVAL_REQUIRED) == said(asked)
    assert Verdict.ALLOW is approval(facts(plan=plan(DESTROYS), entry={"allow_destructive": True})).verdict
    harmless = DESTROYS.model_copy(update={"changes": False})
    assert Verdict.ALLOW is approval(facts(plan=plan(harmless))).verdict


def test_every_hold_is_named_and_the_longest_counts() -> None:
    """Who paused what, why and until when; without an end nobody knows when to decide again."""
    short = Hold("target", "ann", "resizing the volume", NOW + MINUTE)
    long = Hold("all", "bob", "moving house", NOW + 5 * MINUTE)
    decision = paused(facts(holds=(short, long), admitted=True))
    assert (Verdict.DEFER, Reason.PAUSED) == said(decision)
    assert NOW + 5 * MINUTE == decision.until
    for word in ("ann", "resizing the volume", "bob", "moving house", "everything", "this target"):
        assert word in decision.message
    assert paused(facts(holds=(short, Hold("remediation", "eve", "broken", None)))).until is None


def test_a_freeze_defers_to_its_end() -> None:
    """A run that has begun goes on, so that nothing is left half done."""
    frozen = ("year-end", NOW + MINUTE)
    decision = freeze(facts(freeze=frozen))
    assert (Verdict.DEFER, Reason.FROZEN, NOW + MINUTE) == (*said(decision), decision.until)
    assert Verdict.ALLOW is freeze(facts(freeze=frozen, admitted=True)).verdict


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (Standing.ACTIVE, (Verdict.ALLOW, None)),
        (Standing.SILENCED, (Verdict.DEFER, Reason.SILENCED)),
        (Standing.INHIBITED, (Verdict.DEFER, Reason.INHIBITED)),
        (Standing.MUTED, (Verdict.DEFER, Reason.MUTED)),
        (Standing.GONE, (Verdict.DEFER, Reason.NOT_FIRING)),
        (Standing.UNREACHABLE, (Verdict.DEFER, Reason.ALERTMANAGER_UNREACHABLE)),
    ],
)
def test_only_what_is_active_at_alertmanager_is_fresh(standing: Standing, expected: object) -> None:
    """Everything else, an answer that did not come included, waits."""
    seen = Freshness(standing=standing, message="seen", asked_at=NOW)
    assert expected == said(fresh(facts(freshness=seen)))
    assert Verdict.ALLOW is fresh(facts(freshness=seen, admitted=True)).verdict


def test_where_no_alertmanager_is_configured_it_says_that_nobody_was_asked() -> None:
    """An answer without a question is not to be taken for one; before planning nothing is known of it."""
    decision = fresh(facts())
    assert (Verdict.ALLOW, None) == said(decision)
    assert "connections.alertmanager is not configured; not asked" == decision.message
    assert ["", "", ""] == [
        fresh(facts(**why)).message for why in ({"plan": None}, {"admitted": True}, {"purpose": Purpose.UNDO})
    ]


def test_an_open_breaker_lets_one_trial_through() -> None:
    """Nothing before its time, then one run and no second beside it."""
    opened = Breaker(3, NOW - MINUTE, NOW + MINUTE)
    waits = breaker(facts(breaker=opened))
    assert (Verdict.DEFER, Reason.BREAKER_OPEN, NOW + MINUTE) == (*said(waits), waits.until)
    assert Verdict.ALLOW is breaker(facts(breaker=Breaker(2))).verdict
    due = Breaker(3, NOW - 2 * MINUTE, NOW)
    assert Verdict.ALLOW is breaker(facts(breaker=due, run_id="a")).verdict
    tried = Breaker(3, NOW - 2 * MINUTE, NOW, "a")
    assert Verdict.ALLOW is breaker(facts(breaker=tried, run_id="a")).verdict
    assert (Verdict.DEFER, Reason.BREAKER_OPEN) == said(breaker(facts(breaker=tried, run_id="b")))


def test_the_breaker_says_how_it_stands() -> None:
    """Closed: how many failed; open: when the trial comes, or nothing where no time is known."""
    assert "2 failed in a row" == breaker(facts(breaker=Breaker(2))).message
    assert "" == breaker(facts()).message
    waits = breaker(facts(breaker=Breaker(3, NOW - MINUTE, NOW + MINUTE)))
    assert f"a trial follows at {NOW + MINUTE:%Y-%m-%d %H:%M:%S} UTC" in waits.message
    unknown = breaker(facts(breaker=Breaker(3, NOW - MINUTE)))
    assert (Verdict.DEFER, Reason.BREAKER_OPEN, None) == (*said(unknown), unknown.until)


def test_the_targets_own_rate_counts_too() -> None:
    """However many remediations share a target."""
    decision = rate(facts(target_rate_full=(DAILY, NOW + MINUTE)))
    assert (Verdict.DEFER, Reason.RATE, NOW + MINUTE) == (*said(decision), decision.until)
    assert "the target's" in decision.message


def test_a_stronger_action_covers_a_weaker_one() -> None:
    """And not the other way round."""
    weak = plan(STEP)
    assert (Verdict.DEFER, Reason.COVERED) == said(
        target_busy(facts(plan=weak, holder=TargetHolder("run-1", "other", Risk.DISRUPTIVE)))
    )
    assert (Verdict.DEFER, Reason.TARGET_BUSY) == said(
        target_busy(facts(plan=plan(DESTROYS), holder=TargetHolder("run-1", "other", Risk.DISRUPTIVE)))
    )
    assert (Verdict.DEFER, Reason.TARGET_BUSY) == said(  # a plan is as strong as its strongest step
        target_busy(facts(plan=plan(STEP, DESTROYS), holder=TargetHolder("run-1", "other", Risk.DISRUPTIVE)))
    )


def test_concurrency_bounds_all_runs_together() -> None:
    """A further rung has its place already."""
    full = {"runs_in_work": 10, "concurrency": 10}
    assert (Verdict.DEFER, Reason.CONCURRENCY) == said(concurrency(facts(**full)))
    assert Verdict.ALLOW is concurrency(facts(**full, admitted=True)).verdict
    assert Verdict.ALLOW is concurrency(facts(runs_in_work=9, concurrency=10)).verdict


def test_a_storm_defers_to_its_end() -> None:
    """Of several, to the end of the last."""
    storms = (Storm("", "all", NOW + 2 * MINUTE), Storm("poke", "own", NOW + MINUTE))
    decision = storm(facts(storms=storms))
    assert (Verdict.DEFER, Reason.STORM, NOW + 2 * MINUTE) == (*said(decision), decision.until)


@pytest.mark.parametrize(
    ("total", "unhealthy", "share", "allowed"),
    [
        (2, {"a"}, "50%", True),  # two of a small population are no storm
        (10, {"a", "b", "c", "d"}, "50%", True),  # with the target itself five
        (10, {"a", "b", "c", "d", "e"}, "50%", False),
        (1000, {"a", "b", "c"}, 3, False),
        (1000, {"a", "b"}, 3, True),
        (1, set(), "0%", True),
    ],
)
def test_too_large_a_share_of_the_population_is_a_storm(
    total: int, unhealthy: set[str], share: object, *, allowed: bool
) -> None:
    """The target counts as unhealthy whatever the cluster says, and two are always allowed."""
    seen = Population(where="namespace shop", total=total, unhealthy=frozenset(unhealthy))
    decision = storm(facts(limits={"max_unhealthy": share}, population=seen))
    assert ((Verdict.ALLOW, None) if allowed else (Verdict.DEFER, Reason.STORM)) == said(decision)


def test_the_population_is_judged_once_there_is_a_plan() -> None:
    """Before planning the target is not known that counts as unhealthy."""
    seen = Population(where="namespace shop", total=10, unhealthy=frozenset("abcdefgh"))
    assert (Verdict.ALLOW, "") == ((before := storm(facts(population=seen, plan=None))).verdict, before.message)
    assert Verdict.DEFER is storm(facts(population=seen)).verdict


@pytest.mark.parametrize(
    ("at", "started", "without", "expected"),
    [
        (10 * MINUTE, 0 * MINUTE, {}, 10 * MINUTE),
        (90 * MINUTE, 0 * MINUTE, {}, 60 * MINUTE + SECOND),  # too old by then: the run is to end, and to say so
        (90 * MINUTE, 60 * MINUTE, {}, SECOND),
        (90 * MINUTE, 60 * MINUTE + SECOND, {}, 90 * MINUTE),  # too old already, and not denied: a further rung
        (90 * MINUTE, 0 * MINUTE, {"max_age": "the backlog counts"}, 90 * MINUTE),
        (-MINUTE, 0 * MINUTE, {}, SECOND),  # the clock of the target is behind
        (None, 0 * MINUTE, {}, None),
    ],
)
def test_nothing_to_do_yet_is_asked_about_again(
    at: timedelta | None, started: timedelta, without: dict[str, str], expected: timedelta | None
) -> None:
    """When there may be something to do, at the longest until the alert is too old, and never without a pause."""
    entry = {"max_age": "1h", "without_guards": without}
    waits = NotYet(message="it is green", at=None if at is None else NOW + at)
    decision = not_yet(facts(entry=entry, alert_starts_at=NOW - started, not_yet=waits))
    assert (Verdict.DEFER, Reason.NOT_YET, "it is green") == (*said(decision), decision.message)
    assert decision.until == (None if expected is None else NOW + expected)


def test_an_unknown_population_is_refused() -> None:
    """Nobody knows whether this is one outage."""
    seen = Population(where="namespace shop", total=0, unknown="forbidden")
    assert (Verdict.DEFER, Reason.POPULATION_UNKNOWN) == said(storm(facts(population=seen)))


def test_what_takes_a_run_back_does_not_wait_for_what_alerts_wait_for() -> None:
    """The alert is over, its limits are used up and its breaker may be open for the very failure that is undone."""
    known = facts(
        purpose=Purpose.UNDO,
        attempt=9,
        alert_starts_at=NOW - timedelta(days=9),
        freshness=Freshness(standing=Standing.GONE, message="", asked_at=NOW),
        breaker=Breaker(3, NOW, NOW + MINUTE),
        last_outcome=(NOW, "run-1"),
        rate_full=(HOURLY, NOW + MINUTE),
        runs_in_work=10,
        storms=(Storm("", "all", NOW + MINUTE),),
        entry={"mode": "approve"},
    )
    assert Verdict.ALLOW is outcome(decide(known)).verdict
    held = outcome(decide(facts(purpose=Purpose.UNDO, holds=(Hold("all", "ann", "away", None),))))
    assert (Verdict.DEFER, Reason.PAUSED) == said(held)


def test_a_guard_that_is_turned_off_says_so_and_why() -> None:
    """What a remediation wrote down is shown with every decision; the others still hold."""
    entry = {"without_guards": {"cooldown": "its cache is flushed by design"}}
    decisions = decide(facts(entry=entry, last_outcome=(NOW, "run-1"), rate_full=(HOURLY, NOW + MINUTE)))
    (off,) = [decision for decision in decisions if decision.guard == "cooldown"]
    assert Verdict.ALLOW is off.verdict
    assert "its cache is flushed by design" in off.message
    assert (Verdict.DEFER, Reason.RATE) == said(outcome(decisions))


@pytest.mark.parametrize(
    "name", ["paused", "scope", "mode", "attempts", "target_busy", "owned_elsewhere", "not_yet", "approval"]
)
def test_some_guards_cannot_be_turned_off(name: str) -> None:
    """Without these nothing would be safe."""
    with pytest.raises(ValidationError):
        facts(entry={"without_guards": {name: "because"}})
