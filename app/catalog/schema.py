"""The JSON Schema of a catalog file, for completion and errors while a person types it.

`remediator schema` prints it. It is made from the same models that validate, so the two cannot differ. It lacks the
rules that only the loader can check (names over several files, matchers, targets of actions).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from app.backends.action import Action
from app.backends.actions import actions as all_actions
from app.backends.check import Check
from app.backends.checks import checks as all_checks
from app.backends.registry import targets
from app.domain.durations import Rate, format_duration, format_rates
from app.domain.freezes import Freeze
from app.domain.model import JsonObject, Value
from app.domain.remediation import Remediation

_MODE: JsonSchemaMode = "validation"
_TEMPLATE: JsonObject = {"type": "string", "pattern": r"\{\{|\{%", "description": "A template."}


class _Generator(GenerateJsonSchema):
    """Writes defaults as YAML writes them."""

    def encode_default(self, dft: Any) -> Any:
        """Durations and rates have a form of their own."""
        if isinstance(dft, timedelta):
            return format_duration(dft)
        if isinstance(dft, tuple) and dft and all(isinstance(item, Rate) for item in dft):
            return format_rates(dft)
        return super().encode_default(dft)


def json_schema(
    actions: Mapping[str, Action[Any]] | None = None, checks: Mapping[str, Check[Any]] | None = None
) -> JsonObject:
    """JSON Schema, draft 2020-12, of a file with the lists `remediations` and `freezes`."""
    actions = all_actions() if actions is None else actions
    checks = all_checks() if checks is None else checks
    models: dict[type[Value], None] = {Remediation: None, Freeze: None}
    models |= dict.fromkeys(kind.Fields for kind in targets().values())
    models |= dict.fromkeys(action.Params for action in actions.values())
    models |= dict.fromkeys(check.Params for check in checks.values())
    references, definitions = models_json_schema([(model, _MODE) for model in models], schema_generator=_Generator)
    schemas = definitions["$defs"]
    schemas["TargetSpec"] |= {
        "properties": {name: references[(kind.Fields, _MODE)] for name, kind in targets().items()},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    for noun, owner, known in (("action", "StepSpec", actions), ("check", "CheckSpec", checks)):
        params = {name: references[(use.Params, _MODE)] for name, use in known.items()}
        summaries = {name: use.summary for name, use in known.items()}
        _discriminate(schemas, schemas[owner], noun, params, summaries)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Remediations",
        "type": "object",
        "properties": {
            "remediations": {"type": "array", "items": references[(Remediation, _MODE)]},
            "freezes": {"type": "array", "items": references[(Freeze, _MODE)]},
        },
        "anyOf": [{"required": ["remediations"]}, {"required": ["freezes"]}],
        "additionalProperties": False,
        "$defs": schemas,
    }


def _discriminate(
    schemas: JsonObject,
    owner: JsonObject,
    noun: str,
    params: Mapping[str, JsonObject],
    summaries: Mapping[str, str],
) -> None:
    """Let the value of `noun` choose the schema of `with`."""
    owner["properties"][noun] = {
        "type": "string",
        "oneOf": [{"const": name, "description": summaries[name]} for name in params],
    }
    owner["allOf"] = [
        {
            "if": {"properties": {noun: {"const": name}}, "required": [noun]},
            "then": _then(schemas, reference),
        }
        for name, reference in params.items()
    ]


def _then(schemas: JsonObject, reference: JsonObject) -> JsonObject:
    definition = _with_templates(schemas, reference)
    required = {"required": ["with"]} if definition.get("required") else {}
    return {"properties": {"with": reference}, **required}


def _with_templates(schemas: JsonObject, reference: JsonObject) -> JsonObject:
    """The definition of parameters, changed so that a template may stand for any value."""
    definition: JsonObject = schemas[reference["$ref"].removeprefix("#/$defs/")]
    for name, schema in definition.get("properties", {}).items():
        if _TEMPLATE not in schema.get("anyOf", ()):
            described = {key: schema[key] for key in ("title", "description", "default") if key in schema}
            definition["properties"][name] = {"anyOf": [schema, _TEMPLATE], **described}
    return definition
