"""How the guards' answers become one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.domain.decisions import Decision, Verdict
from app.domain.reasons import Reason
from app.guards.base import Facts
from app.guards.chain import CHAIN, decide, outcome
from tests.support.alerts import NOW
from tests.unit.guards.facts import facts

MINUTE = timedelta(minutes=1)


def answer(verdict: Verdict, guard: str = "one", minutes: int | None = None) -> Decision:
    """An answer, for a deferral with its end."""
    return Decision(guard=guard, verdict=verdict, until=None if minutes is None else NOW + minutes * MINUTE)


def test_the_order_is_the_reviewed_one() -> None:
    """What is cheapest to know and hardest to argue with comes first, the question to a person last."""
    order = [
        "paused",
        "scope",
        "freeze",
        "mode",
        "attempts",
        "max_age",
        "fresh",
        "breaker",
        "cooldown",
        "rate",
        "target_busy",
        "owned_elsewhere",
        "not_yet",
        "concurrency",
        "storm",
        "approval",
    ]
    assert order == [guard.__name__ for guard in CHAIN]


def test_every_guard_answers() -> None:
    """A person sees every objection and not only the first."""
    assert [guard.__name__ for guard in CHAIN] == [decision.guard for decision in decide(facts())]


def test_a_guard_that_raises_refuses() -> None:
    """Fail closed, without the exception's text, and without stopping the others."""

    def broken(_: Facts) -> Decision:
        raise ZeroDivisionError("secret")

    decisions = decide(facts(), (broken, *CHAIN))
    assert (Verdict.DENY, Reason.GUARD_FAILED, "broken") == (
        decisions[0].verdict,
        decisions[0].reason,
        decisions[0].guard,
    )
    assert "secret" not in decisions[0].message
    assert Verdict.DENY is outcome(decisions).verdict
    assert len(CHAIN) + 1 == len(decisions)


@pytest.mark.parametrize(
    ("graver", "milder"),
    [
        (Verdict.DENY, Verdict.OBSERVE),
        (Verdict.OBSERVE, Verdict.DEFER),
        (Verdict.DEFER, Verdict.NEEDS_APPROVAL),
        (Verdict.NEEDS_APPROVAL, Verdict.ALLOW),
    ],
)
def test_the_gravest_answer_counts(graver: Verdict, milder: Verdict) -> None:
    """Wherever it stands in the order."""
    assert graver is outcome([answer(milder), answer(graver)]).verdict
    assert graver is outcome([answer(graver), answer(milder)]).verdict


def test_of_equal_answers_the_first_counts() -> None:
    """The order of the chain decides what a person reads first."""
    assert "one" == outcome([answer(Verdict.DENY, "one"), answer(Verdict.DENY, "two")]).guard


def test_of_deferrals_the_longest_counts() -> None:
    """Deciding earlier would only meet the longer one again."""
    short, long = answer(Verdict.DEFER, "short", 1), answer(Verdict.DEFER, "long", 5)
    endless = answer(Verdict.DEFER, "endless")
    assert "long" == outcome([endless, short, long]).guard
