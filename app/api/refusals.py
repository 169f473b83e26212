"""Says in words why a body is wrong: the field by its path, the cause if it is known, and the remedy.

The webhook calls it. No value of the body gets into the words, only the names of fields.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from app.api.problems import ProblemError, ProblemReason

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LONGEST_NAME = 60
_TOP = frozenset({"version", "alerts"})
_PAYLOAD = "if Alertmanager sent it, the receiver's webhook_config has its own `payload` template: remove that"
_MOST_SHOWN = 10
_WORDS = {
    "missing": "is missing",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "greater_than_equal": "must not be negative",
    "less_than_equal": "is too large",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "too_short": "must not be empty",
    "datetime_parsing": "is not a time of the calendar",
    "datetime_from_date_parsing": "is not a time of the calendar",
    "string_pattern_mismatch": "must be 1 to 32 hexadecimal digits",
    "extra_forbidden": "is not known here",
    "string_too_long": "is too long",
    "too_long": "has too many entries",
}


class _Group(BaseModel):
    """As much of a refused notification as tells which group it is of."""

    group_key: str = Field(default="", alias="groupKey")


def group_of(body: bytes) -> str:
    """The group of a body that could not be read as a notification, or nothing."""
    try:
        return _Group.model_validate_json(body).group_key
    except ValidationError:
        return ""


def refusal(error: ValidationError) -> ProblemError:
    """The problem for a body that is not a notification."""
    found = error.errors(include_url=False, include_input=False)
    root = next((one for one in found if not one["loc"]), None)
    if root is not None:
        return not_an_object(root)
    missing = {str(one["loc"][0]) for one in found if one["type"] == "missing" and len(one["loc"]) == 1}
    if missing >= _TOP:
        detail = f"this is not Alertmanager's webhook payload: neither version nor alerts; {_PAYLOAD}"
        return ProblemError(422, ProblemReason.CUSTOM_PAYLOAD, detail)
    if any(one["loc"] == ("version",) for one in found) and "version" not in missing:
        detail = 'version must be "4", the only version of the payload that is read here'
        return ProblemError(422, ProblemReason.WRONG_VERSION, detail, field="version")
    return wrong_field(found, hint=f"; {_PAYLOAD}" if missing else "")


def not_an_object(root: ErrorDetails) -> ProblemError:
    """The problem for a body that is not even a JSON object."""
    if root["type"] == "json_invalid":
        where = str(root.get("ctx", {}).get("error", "")) or "it cannot be read"
        return ProblemError(400, ProblemReason.NOT_JSON, f"the body is not JSON: {where}")
    return ProblemError(400, ProblemReason.NOT_JSON, f"the body is JSON but not an object; {_PAYLOAD}")


def wrong_field(found: list[ErrorDetails], hint: str = "") -> ProblemError:
    """The problem for the first wrong field, with a word about how many more there are."""
    first, rest = found[0], len(found) - 1
    field = field_path(first["loc"])
    more = f" (and {rest} more)" if rest else ""
    words = [f"{field_path(one['loc'])} {_words(one)}" for one in found[:_MOST_SHOWN]] if rest else ()
    detail = f"{field} {_words(first)}{more}{hint}"
    return ProblemError(422, ProblemReason.WRONG_SHAPE, detail, field=field, errors=words)


def _words(problem: ErrorDetails) -> str:
    context: dict[str, Any] = problem.get("ctx", {})
    if problem["type"] == "value_error":
        return str(context["error"])
    if problem["type"] == "rfc3339":
        return problem["msg"]
    if problem["type"] == "literal_error":
        return f"must be {context['expected'].replace(chr(39), chr(34))}"
    return _WORDS.get(problem["type"], "has a wrong value")


def field_path(loc: tuple[str | int, ...]) -> str:
    """``alerts[3].labels["a key"]``; long names are cut."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _IDENTIFIER.fullmatch(part):
            path += f".{part}" if path else part
        elif part != "[key]":
            path += f"[{json.dumps(part[:_LONGEST_NAME])}]"
    return path
