"""A share of a population, as Kubernetes writes it in `maxUnhealthy` and `maxUnavailable`: a number or a percentage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from app.domain.moments import MAX_COUNT

_PERCENT = re.compile(r"([0-9]{1,3})%", re.ASCII)


@dataclass(frozen=True, slots=True)
class Share:
    """Either `count` of them, or `percent` of them."""

    count: int | None = None
    percent: int | None = None

    def __str__(self) -> str:
        return f"{self.percent}%" if self.count is None else str(self.count)

    def of(self, total: int) -> int:
        """How many of `total` that is, rounded down."""
        return self.count if self.count is not None else total * (self.percent or 0) // 100


def parse_share(text: object) -> Share:
    """Read `3` or `40%`; raises ValueError with an example of the right form."""
    if isinstance(text, Share):
        return text
    if isinstance(text, int) and not isinstance(text, bool) and 0 <= text <= MAX_COUNT:
        return Share(count=text)
    match = _PERCENT.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[1]) > 100:  # noqa: PLR2004 - percent
        msg = f"{text!r} is not a share; write a number or a percentage, for example 3 or 40%"
        raise ValueError(msg)
    return Share(percent=int(match[1]))


ShareOrCount = Annotated[
    Share,
    BeforeValidator(parse_share),
    PlainSerializer(lambda share: str(share) if share.count is None else share.count, return_type=str | int),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,3}%$"}]}),
]
