"""The kind of text of a parameter: it decides how a value of an alert is written into it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel


class Text(StrEnum):
    """A language whose marks a value must not bring; named in a field's type, `Annotated[str, Text.PROMQL]`."""

    LITERAL = "literal"  # the author's own: no value of an alert stands in it
    PLAIN = "plain"  # has no marks of its own
    PROMQL = "promql"
    GLOB = "glob"  # * ? [...], and a backslash that takes the next character as it is
    PATTERN = "pattern"  # * ? [...], as Python's fnmatch
    URL = "url"


def kinds_of(model: type[BaseModel]) -> dict[str, Text]:
    """The kind of each parameter that is not plain, by the name that the catalog uses."""
    return {
        field.alias or name: kind
        for name, field in model.model_fields.items()
        for kind in field.metadata
        if isinstance(kind, Text)
    }
