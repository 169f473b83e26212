"""Which parameters are texts of a language."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from app.domain.texts import Text, kinds_of


class _Params(BaseModel):
    pattern: Annotated[str, Text.GLOB]
    where: Annotated[str, Text.URL] = Field(default="", alias="url")
    note: str = ""


def test_the_kinds_are_known_by_the_names_of_the_catalog() -> None:
    """A plain text has none."""
    assert {"pattern": Text.GLOB, "url": Text.URL} == kinds_of(_Params)
