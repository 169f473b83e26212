"""The command of a step or check: the catalog's own text, and values that are quoted behind it."""

from __future__ import annotations

import shlex
from typing import Annotated

from pydantic import Field, field_validator

from app.domain.model import Value
from app.domain.texts import Text


class Command(Value):
    """What runs on the host."""

    command: Annotated[str, Text.LITERAL] = Field(
        min_length=1, max_length=4096, description="As a shell on the host reads it; spelled out, without a template."
    )
    arguments: tuple[str, ...] = Field(
        default=(), max_length=50, description="Values behind it, each one quoted word that does not begin with -."
    )

    @field_validator("arguments")
    @classmethod
    def _are_values(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for one in arguments:
            if not one or one.startswith("-") or not one.isprintable():
                raise ValueError(f"{one[:60]!r} cannot be an argument: an option belongs into command")
        return arguments

    @property
    def line(self) -> str:
        """The whole line for the host's shell."""
        return " ".join([self.command, *map(shlex.quote, self.arguments)])
