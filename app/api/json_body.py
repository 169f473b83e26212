"""Reads the small JSON bodies that people send: into a model, or a problem that names the field."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.api.body import read_body
from app.api.problems import ProblemError, ProblemReason
from app.api.refusals import not_an_object, wrong_field
from app.domain.names import did_you_mean

_MAX_BODY = 16 * 1024
M = TypeVar("M", bound=BaseModel)


async def read_given(request: Request, model: type[M]) -> M:
    """The body as `model`; no body is an empty object."""
    body = await read_body(request, _MAX_BODY)
    try:
        return model.model_validate_json(body if body.strip() else b"{}")
    except ValidationError as error:
        found: list[Any] = error.errors(include_url=False, include_input=False)
        raise _problem(found, model) from error


def _problem(found: list[Any], model: type[BaseModel]) -> ProblemError:
    known = getattr(model, "MEANT", {})
    found.sort(key=lambda one: not (one["type"] == "extra_forbidden" and one["loc"][-1] in known))  # says the most
    first = found[0]
    if first["loc"]:
        return wrong_field(found, _hint(first, model))
    if first["type"] == "value_error":  # a rule over several fields
        return ProblemError(422, ProblemReason.WRONG_SHAPE, str(first["ctx"]["error"]))
    return not_an_object(first)


def _hint(problem: Any, model: type[BaseModel]) -> str:
    """Which field was probably meant by one that there is not."""
    if problem["type"] != "extra_forbidden":
        return ""
    field = str(problem["loc"][-1])
    meant = getattr(model, "MEANT", {}).get(field)
    if meant is not None:
        return f'; did you mean "{meant}"?'
    return did_you_mean(field, [field.alias or name for name, field in model.model_fields.items()])


def body_of(model: type[BaseModel], *, required: bool) -> dict[str, Any]:
    """The OpenAPI of a body that is read by hand."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def storable(text: str) -> str:
    """Text that any store can keep: PostgreSQL has no NUL."""
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    return text
