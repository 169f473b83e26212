"""The kind of text of a parameter: it decides how a value of an alert is written into it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel


class Text(StrEnum):
    """A language whose marks a value must not bring; named in a field's type, `Annotated[str, Text.PROMQL]`."""

    PLAIN = "plain"  # has no marks of its own
    PROMQL = "promql"
    REDIS_GLOB = "redis_glob"  # * ? [...] and \
    PATTERN = "pattern"  # * ? [...], as Python's fnmatch
    URL = "url"


def kinds_of(model: type[BaseModel]) -> dict[str, Text]:
    """Return the kind of each parameter that is not plain, by the name that the catalog uses."""
    return {
        field.alias or name: kind
        for name, field in model.model_fields.items()
        for kind in field.metadata
        if isinstance(kind, Text)
    }
