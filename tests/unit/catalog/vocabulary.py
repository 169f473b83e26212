"""A small vocabulary of actions and checks, so that the catalog's messages are tested apart from the real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from app.backends.action import Action, Context
from app.backends.check import Check, CheckContext
from app.catalog.catalog import Catalog
from app.catalog.loader import load
from app.domain.durations import Duration
from app.domain.errors import ConfigError
from app.domain.model import JsonObject, Value
from app.domain.plans import Observation, PlannedStep
from app.domain.remediation import Risk

NOW = datetime(2026, 11, 20, 20, 42, 5, tzinfo=UTC)


class _NoParams(Value):
    """Nothing to choose."""


class _ScaleParams(Value):
    to: int | None = Field(default=None, ge=0, le=100)
    by: int | None = None

    @model_validator(mode="after")
    def _one(self) -> _ScaleParams:
        if (self.to is None) == (self.by is None):
            msg = "exactly one of to and by must be given"
            raise ValueError(msg)
        return self


class _RequestParams(Value):
    url: str
    method: Literal["GET", "POST"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict)
    json_: Any = Field(default=None, alias="json")
    pause: Duration = timedelta()


class _OkParams(Value):
    url: str


class _Action(Action[Any]):
    """Abstract methods have to be there to make one; loading a catalog calls none, and a test that did would fail."""

    async def plan(self, context: Context, params: Any) -> PlannedStep:
        raise NotImplementedError

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        raise NotImplementedError


class _Check(Check[Any]):
    """As above: named, described and validated here, never asked."""

    async def observe(self, context: CheckContext, params: Any) -> Observation:
        raise NotImplementedError


def _action(name: str, params: type[Value], risk: Risk, backend: str | None) -> Action[Any]:
    fields = {"name": name, "summary": name, "Params": params, "risk": risk, "target_backend": backend}
    fields["can_undo"] = name == "kubernetes.scale"
    return type("Made", (_Action,), fields)()


def _check(name: str, params: type[Value], backend: str | None) -> Check[Any]:
    return type("Made", (_Check,), {"name": name, "summary": name, "Params": params, "target_backend": backend})()


_ACTIONS = (
    _action("kubernetes.rollout_restart", _NoParams, Risk.DISRUPTIVE, "kubernetes"),
    _action("kubernetes.scale", _ScaleParams, Risk.DISRUPTIVE, "kubernetes"),
    _action("redis.flush", _NoParams, Risk.DESTRUCTIVE, "redis"),
    _action("http.request", _RequestParams, Risk.LOW, None),
)
_CHECKS = (_check("http.ok", _OkParams, None), _check("redis.memory", _NoParams, "redis"))
ACTIONS = {action.name: action for action in _ACTIONS}
CHECKS = {check.name: check for check in _CHECKS}


def load_here(*paths: Path) -> Catalog:
    """A catalog in this vocabulary."""
    return load(paths, NOW, actions=ACTIONS, checks=CHECKS)


def problems_of(*paths: Path) -> list[str]:
    """What is wrong with the files, line by line, named without their directory."""
    try:
        load_here(*paths)
    except ConfigError as error:
        return [str(problem).replace(f"{paths[0].parent}/", "") for problem in error.diagnostics]
    return []
