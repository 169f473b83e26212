"""The target of a remediation as the catalog names it: whether it comes from the alert, and its allowed values.

The loader checks fixed values, the engine the results of templates; both by the same rules. An empty value is never
allowed, since an empty selection must not come to mean "all".
"""

from __future__ import annotations

import re

from app.catalog.names import did_you_mean, listed
from app.catalog.templates import TemplateContext, contains_template, render
from app.domain.errors import PermanentError
from app.domain.reasons import Reason
from app.domain.remediation import TargetSpec

KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Pod")
_MAX_LABEL, _MAX_NAME = 63, 253
_MAX_DIGITS = 9
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_INSTANCE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def target_is_templated(spec: TargetSpec) -> bool:
    """Say whether any part of the target comes from the alert, so that it must be held against the scope."""
    return contains_template(spec.model_dump())


def render_target(spec: TargetSpec, context: TemplateContext) -> TargetSpec:
    """Return the target with its templates filled in; raises PermanentError where a value cannot be one."""
    fields = render(getattr(spec, spec.backend).model_dump(), context)
    for field, value in fields.items():
        problem = objection(spec.backend, field, value)
        if problem is not None:
            raise PermanentError(f"target.{spec.backend}.{field} {problem}", reason=Reason.TEMPLATE_FAILED)
    return TargetSpec.model_validate({spec.backend: fields})


def objection(backend: str, field: str, value: object) -> str | None:  # noqa: PLR0911 - one line per field
    """Say why a rendered or literal value cannot stand in this field of a target, or None."""
    if value is None:
        return None
    text = str(value)
    if not text.strip():
        return "must not be empty"
    match backend, field:
        case "kubernetes", "kind":
            return None if text in KINDS else f'"{text}" is not one of {listed(KINDS)}{did_you_mean(text, KINDS)}'
        case "kubernetes", "namespace":
            return _unless(_LABEL, _MAX_LABEL, text, "a namespace")
        case "kubernetes", "name":
            return _unless(_NAME, _MAX_NAME, text, "a name")
        case "redis", "database":
            fits = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
            return None if fits else f'"{text[: _MAX_LABEL + 1]}" is not the number of a database'
        case _, "instance":
            return _unless(_INSTANCE, _MAX_LABEL, text, "the name of a connection")
        case _:
            return _unless_plain(text)


def _unless(pattern: re.Pattern[str], longest: int, text: str, noun: str) -> str | None:
    fits = len(text) <= longest and pattern.fullmatch(text)
    return None if fits else f'"{text[: longest + 1]}" cannot be {noun}'


def _unless_plain(text: str) -> str | None:
    # A slash would make instance/database ambiguous, and with it the scope.
    fits = len(text) <= _MAX_LABEL and text.isprintable() and "/" not in text
    return None if fits else f'"{text[: _MAX_LABEL + 1]}" cannot be the name of a database'
