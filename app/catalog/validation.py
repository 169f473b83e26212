"""Validates one remediation or freeze: its own fields first, then each step and check by its name.

The loader calls it for each entry of a file. Both phases run over the same raw value, so that every problem of a file
is reported at once. It looks nothing up in connections: the configuration is known only at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.backends.action import Action
from app.backends.base import TargetKind
from app.backends.check import Check
from app.backends.registry import target_kind, targets
from app.catalog import credentials
from app.catalog.diagnostics import Place, Report, join_path, report_errors, show
from app.catalog.document import Node, Position
from app.catalog.exported import exporters
from app.catalog.matchers import Matcher, MatcherError
from app.catalog.targets import objection
from app.catalog.templates import ALERT_NAMES, NAMES, InvalidTemplateError, is_template, validate
from app.domain.freezes import Freeze
from app.domain.names import did_you_mean, listed
from app.domain.remediation import Mode, Remediation, Risk, TargetSpec
from app.domain.texts import Text, kinds_of


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The actions and checks that a catalog may use."""

    actions: Mapping[str, Action[Any]]
    checks: Mapping[str, Check[Any]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A valid remediation with its parsed matchers and where it stands."""

    remediation: Remediation
    matchers: tuple[Matcher, ...]
    file: str
    at: Position


def read_entry(place: Place, report: Report, vocabulary: Vocabulary) -> Entry | None:
    """The remediation at `place`, or None when the report has something against it."""
    before = len(report.problems)
    if not isinstance(place.node.value, dict):
        report.problem(place.at, place.path, f"must be a mapping, not {show(place.node.value)}")
        return None
    remediation = _phase_one(place, report)
    matchers = _read_matchers(place, report)
    _check_target(place, report)
    for step in _steps(place):
        _check_use(place, step, "action", vocabulary.actions, report)
        _check_risk(place, step, vocabulary, report)
    _check_undo(place, vocabulary, report)
    credentials.refuse(place, report)
    for check in _checks(place):
        _check_use(place, check, "check", vocabulary.checks, report)
    if remediation is None or len(report.problems) > before:
        return None
    _warn(place, remediation, vocabulary, report)
    return Entry(_as_written(remediation), matchers, report.file, place.at)


def read_freeze(place: Place, report: Report) -> Freeze | None:
    """The freeze at `place`, or None when the report has something against it."""
    if not isinstance(place.node.value, dict):
        report.problem(place.at, place.path, f"must be a mapping, not {show(place.node.value)}")
        return None
    try:
        return Freeze.model_validate(place.node.value)
    except ValidationError as error:
        report_errors(report, place, error, (Freeze, "a freeze"))
        return None


def _phase_one(place: Place, report: Report) -> Remediation | None:
    try:
        return Remediation.model_validate(place.node.value, by_alias=True, by_name=False)
    except ValidationError as error:
        report_errors(report, place, error, (Remediation, "a remediation"))
        return None


def _read_matchers(place: Place, report: Report) -> tuple[Matcher, ...]:
    matchers = []
    items = list(_children(place, "matchers"))
    for item in items:
        if not isinstance(item.node.value, str):
            continue
        try:
            matchers.append(Matcher.parse(item.node.value))
        except MatcherError as error:
            where = f"character {error.position + 1} of {show(item.node.value)}"
            report.problem(item.at, item.path, f"bad matcher: {error} ({where})")
    if items and len(matchers) == len(items) and not any(matcher.needs_label for matcher in matchers):
        message = 'would match every alert; add a matcher that a missing label does not meet, such as alertname="..."'
        report.problem(place.at_key("matchers"), join_path(place.path, "matchers"), message)
    return tuple(matchers)


def _check_target(place: Place, report: Report) -> None:
    target = place.child("target")
    if target is None or not isinstance(target.node.value, dict):
        return
    for backend in target.node.fields:
        child = target.child(backend)
        if child is None:
            continue
        kind = targets().get(backend)
        if kind is None:
            hint = did_you_mean(backend, targets()) or f"; there are {listed(targets())}"
            report.problem(target.at_key(backend), child.path, f'unknown field "{backend}" for "target"{hint}')
        elif isinstance(child.node.value, dict):
            _check_fields(child, kind, backend, report)


def _check_fields(place: Place, kind: TargetKind, backend: str, report: Report) -> None:
    try:
        kind.Fields.model_validate(place.node.value)
    except ValidationError as error:
        report_errors(report, place, error, (kind.Fields, f'"{backend}"'))
    for field in kind.Fields.model_fields:
        child = place.child(field)
        if child is None or not isinstance(child.node.value, str | int):
            continue
        if is_template(child.node.value):
            _check_templates(child, ALERT_NAMES, report)
        elif (wrong := objection(kind, field, child.node.value)) is not None:
            report.problem(child.at, child.path, wrong)


def _backend(place: Place) -> str | None:
    target = place.node.child("target")
    given = [name for name in targets() if target is not None and name in target.fields]
    return given[0] if given else None


def _is_misspelt(target: Node | None) -> bool:
    """Whether the target names a system that there is not, which is a problem of its own."""
    return target is not None and any(name not in targets() for name in target.fields)


def _as_written(remediation: Remediation) -> Remediation:
    """Return the remediation with a target without fields at their defaults: the store compares and keeps that."""
    spec = remediation.target
    if spec is None:
        return remediation
    fields = target_kind(spec.backend).Fields.model_validate(spec.fields)
    given = {spec.backend: fields.model_dump(mode="json", exclude_defaults=True)}
    return remediation.model_copy(update={"target": TargetSpec.model_validate(given)})


def _steps(place: Place) -> Iterator[Place]:
    for rung in (place, *_children(place, "escalate")):
        yield from _children(rung, "steps")


def _checks(place: Place) -> Iterator[Place]:
    yield from _children(place, "when")
    for rung in (place, *_children(place, "escalate")):
        yield from _children(rung, "verify")


def _children(place: Place, key: str) -> Iterator[Place]:
    below = place.child(key)
    if below is not None:
        for index in range(len(below.node.items)):
            child = below.child(index)
            if child is not None:
                yield child


def _check_use(
    place: Place, use: Place, noun: str, known: Mapping[str, Action[Any] | Check[Any]], report: Report
) -> None:
    """Phase two: the action or check of each step, and its parameters."""
    named = use.child(noun)
    if named is None or not isinstance(named.node.value, str):
        return
    spec = known.get(named.node.value)
    if spec is None:
        hint = did_you_mean(named.node.value, known) or f"; there are {listed(known)}"
        report.problem(named.at, named.path, f'unknown {noun} "{named.node.value}"{hint}')
        return
    backend = _backend(place)
    if spec.target_backend not in {None, backend} and not _is_misspelt(place.node.child("target")):
        has = f"the target of this remediation is {backend}" if backend else "this remediation has no target"
        report.problem(named.at, named.path, f"{spec.name} needs a {spec.target_backend} target; {has}")
    _check_params(use, spec, NAMES if backend else ALERT_NAMES, report)


def _check_params(use: Place, spec: Action[Any] | Check[Any], names: tuple[str, ...], report: Report) -> None:
    given = use.child("with") or Place(Node({}, use.at), join_path(use.path, "with"), use.at)
    if not isinstance(given.node.value, dict):
        return
    kinds = kinds_of(spec.Params)
    _check_keys(given, report)
    for name in given.node.fields:
        below = given.child(name)
        if below is not None:
            _check_templates(below, names, report, kinds.get(name, Text.PLAIN))
    try:
        spec.Params.model_validate(given.node.value, by_alias=True, by_name=False)
    except ValidationError as error:
        report_errors(report, given, error, (spec.Params, spec.name), templates=True)


def _check_keys(place: Place, report: Report) -> None:
    for key, at in place.node.keys.items():
        if is_template(key):
            report.problem(at, place.path, "a template can stand in a value, not in a key")


def _check_templates(place: Place, names: tuple[str, ...], report: Report, kind: Text = Text.PLAIN) -> None:
    _check_keys(place, report)
    for below in (*place.node.fields, *range(len(place.node.items))):
        child = place.child(below)
        if child is not None:
            _check_templates(child, names, report, kind)
    if is_template(place.node.value) and kind is Text.LITERAL:
        report.problem(place.at, place.path, "no template can stand here: write the text out")
    elif is_template(place.node.value):
        try:
            validate(place.node.value, names, kind)
        except InvalidTemplateError as error:
            line = f" (line {error.line} of the template)" if error.line > 1 else ""
            report.problem(place.at, place.path, f"{error}{line}")


def _check_risk(place: Place, step: Place, vocabulary: Vocabulary, report: Report) -> None:
    named = step.child("action")
    if named is None or _risk(named.node.value, vocabulary) is not Risk.DESTRUCTIVE:
        return
    if place.node.value.get("mode") == Mode.AUTO and place.node.value.get("allow_destructive") is not True:
        message = f"{named.node.value} is destructive: use mode: approve, or say allow_destructive: true"
        report.problem(named.at, named.path, message)


def _check_undo(place: Place, vocabulary: Vocabulary, report: Report) -> None:
    """Require an action that can be taken back wherever the remediation says so."""
    named = [step.child("action") for step in _steps(place)]
    used = [vocabulary.actions.get(one.node.value) for one in named if one and isinstance(one.node.value, str)]
    if any(action is None or action.can_undo for action in used):
        return
    able = listed([name for name, action in vocabulary.actions.items() if action.can_undo])
    for key in ("undo_on_failure", "revert"):
        if place.node.value.get(key):
            message = f"no step of this remediation can be undone; of all actions can be: {able}"
            report.problem(place.at_key(key), join_path(place.path, key), message)


def _risk(action: object, vocabulary: Vocabulary) -> Risk:
    spec = vocabulary.actions.get(action) if isinstance(action, str) else None
    return Risk.LOW if spec is None else spec.risk


def _warn(place: Place, remediation: Remediation, vocabulary: Vocabulary, report: Report) -> None:
    if remediation.revert is None and "revert_after" in remediation.model_fields_set:
        message = 'means nothing without "revert: on_resolved"'
        report.warning(place.at_key("revert_after"), join_path(place.path, "revert_after"), message)
    _warn_of_exporter(place, remediation, report)
    if "mode" not in remediation.model_fields_set:
        report.warning(place.at, place.path, "mode is observe, its default: the plan is only shown")
    if remediation.mode is not Mode.AUTO:
        return
    for number, rung in enumerate(remediation.rungs):
        risky = [step.action for step in rung.steps if _risk(step.action, vocabulary) is not Risk.LOW]
        if risky and not rung.verify:
            where = place if number == 0 else place.walk(("escalate", number - 1))[0]
            report.warning(where.at, where.path, f'{risky[0]} runs by itself and nothing verifies it; add "verify"')


def _warn_of_exporter(place: Place, remediation: Remediation, report: Report) -> None:
    """Warn of `labels.pod` in a remediation that matches by `exported_pod`."""
    named = {Matcher.parse(text).name for text in remediation.matchers}
    twins = {name.removeprefix("exported_") for name in named if name.startswith("exported_")}
    target = {} if remediation.target is None else remediation.target.fields
    for name in exporters(target, twins):
        message = f"labels.{name} names the exporter where an alert has exported_{name}; use labels.exported_{name}"
        report.warning(place.at_key("target"), join_path(place.path, "target"), message)
