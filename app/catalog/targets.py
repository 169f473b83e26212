"""The target of a remediation as the catalog names it: whether it comes from the alert, and its allowed values.

The loader checks what is spelled out, the engine what a template made; both by the rules of the backend that is named.
An empty value is never allowed, since an empty selection must not come to mean "all".
"""

from __future__ import annotations

from typing import Any

from app.backends.base import TargetKind
from app.backends.registry import target_kind
from app.catalog.templates import TemplateContext, contains_template, is_template, render
from app.domain.errors import PermanentError
from app.domain.model import Value
from app.domain.plans import Target
from app.domain.reasons import Reason
from app.domain.remediation import TargetSpec


def target_is_templated(spec: TargetSpec) -> bool:
    """Whether any part of the target comes from the alert, so that it must be held against the scope."""
    return contains_template(spec.fields)


def render_target(spec: TargetSpec, context: TemplateContext) -> Value:
    """The target's fields, templates filled in; raises PermanentError where a value cannot be one."""
    kind = target_kind(spec.backend)
    fields = render(spec.fields, context)
    for field, value in fields.items():
        problem = objection(kind, field, value)
        if problem is not None:
            raise PermanentError(f"target.{spec.backend}.{field} {problem}", reason=Reason.TEMPLATE_FAILED)
    return kind.Fields.model_validate(fields)


def spelled(spec: TargetSpec) -> Target | None:
    """As much of a target as no alert fills in; None where that is too little to be judged."""
    kind = target_kind(spec.backend)
    fields = {name: None if is_template(value) else value for name, value in spec.fields.items()}
    return kind.known(fields)


def objection(kind: TargetKind, field: str, value: Any) -> str | None:
    """Say why a rendered or literal value cannot stand in this field of a target, or None."""
    if value is None:
        return None
    text = str(value)
    if not text.strip():
        return "must not be empty"
    return kind.field_objection(field, text)
