"""The contract of a check: one look at something; the engine looks again until its timeout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Generic, TypeVar

from app.backends.instances import Clients
from app.backends.scope import Scope
from app.domain.errors import AppError, CheckError
from app.domain.model import JsonObject, Value
from app.domain.permissions import Permission
from app.domain.plans import Observation, PlannedStep, Target
from app.domain.redaction import redact, redact_all

P = TypeVar("P", bound=Value)


@dataclass(frozen=True, slots=True)
class CheckContext:
    """The tools of a check; `now` is the time of this look (aware, UTC)."""

    clients: Clients
    scope: Scope
    target: Target
    now: datetime
    firing: bool = True  # whether any episode of the run is still open
    steps: tuple[PlannedStep, ...] = ()  # that were applied before; none while a precondition is looked at


class Check(ABC, Generic[P]):
    """The share of runs with a known result after which the alert resolved in time."""

    name: ClassVar[str]
    summary: ClassVar[str]
    Params: ClassVar[type[Value]]
    target_backend: ClassVar[str | None] = None
    permissions: ClassVar[tuple[Permission, ...]] = ()

    @abstractmethod
    async def observe(self, context: CheckContext, params: P) -> Observation:
        """Look once; raises CheckError when the subject could not be observed."""


def observation(held: bool, message: str, **data: object) -> Observation:  # noqa: FBT001 - reads as a sentence
    """An observation; `data` are JSON values that the audit shows."""
    json: JsonObject = dict(data)
    return Observation(held=held, message=redact(message), data=redact_all(json))


@contextmanager
def observing() -> Iterator[None]:
    """Turn errors of clients into CheckError: an unreachable system was not observed."""
    try:
        yield
    except AppError as error:
        raise CheckError(error.message) from error
