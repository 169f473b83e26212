"""Whether one run answers the alerts of another: runs fold only where nothing of either is lost by that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.backends.actions import actions
from app.catalog.templates import TemplateContext, contains_template, render
from app.domain.errors import PermanentError
from app.domain.plans import Target
from app.domain.remediation import Rung
from app.store.ledger.runs import Run

_SHARED = Target(backend="none", key="none:shared", name="shared")  # which one it is makes no difference


def answers(other: Run, candidate: Run, target: Target) -> bool:
    """Say whether `other`, which is active on the target, does the same for the candidate's alert as its own run would.

    Both are the same attempt and stand at the same rung of the same remediation, and every step and check means the
    same with the labels of either: of this rung and of those after it. A yes of a person is not given up for a run that
    still has to ask.
    """
    if other.attempt != candidate.attempt:  # one of the two alerts would be tried more often, or less, than it may
        return False
    if other.rung != candidate.rung or other.remediation.deed != candidate.remediation.deed:
        return False
    if candidate.approved_by is not None and other.approved_by is None and other.admitted_at is None:
        return False
    specs = list(_specs(candidate, with_conditions=other.admitted_at is None))
    return not contains_template(specs) or _filled_in(specs, other, target) == _filled_in(specs, candidate, target)


def answers_still(before: Run, other: Run, candidate: Run) -> bool:
    """The same of two whose remediation has changed since they shared the run `before`, and its target with that."""
    old, new = before.remediation.target, candidate.remediation.target
    target = _SHARED if before.plan is None else before.plan.target
    if old != new:
        given = [None if new is None else new.model_dump(mode="json")]
        if _filled_in(given, other, target) != _filled_in(given, candidate, target):
            return False
    return answers(other, candidate, target)


def _specs(run: Run, *, with_conditions: bool) -> Iterator[Any]:
    """Return the values with labels and counts filled in; a precondition only while it may be looked at again."""
    if with_conditions and run.rung == 0:
        yield from (check.with_ for check in run.remediation.when)
    for number, rung in enumerate(run.remediation.rungs[run.rung :], start=run.rung):
        only_tells = number == run.rung and _only_tells(rung)
        for step in rung.steps:
            words = frozenset() if only_tells else actions()[step.action].words
            yield {name: value for name, value in step.with_.items() if name not in words}
        yield from (check.with_ for check in rung.verify)


def _only_tells(rung: Rung) -> bool:
    """Whether the words are all that the rung is for."""
    return all(actions()[step.action].words for step in rung.steps)


def _filled_in(specs: list[Any], run: Run, target: Target) -> Any:
    alert = TemplateContext(
        labels=run.labels,
        annotations=run.annotations,
        fingerprint=run.fingerprint,
        starts_at=run.alert_starts_at,
        generator_url=run.generator_url,
        target=target,
    )
    try:
        return render(specs, alert)
    except PermanentError as error:  # the alert lacks a label: two that lack the same one get as far
        return error.message
