"""Query parameters of the lists: the allowed ones, with a suggestion when one is wrong.

An unknown parameter is refused: a filter with a typing error would otherwise answer with everything.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from app.api.problems import ProblemError, ProblemReason
from app.domain.durations import parse_duration
from app.domain.moments import clamp
from app.domain.names import did_you_mean, listed
from app.domain.states import FINAL_STATES, RunState
from app.store.queries.search import Alerts, EpisodeFilter, Page, RunFilter

_ZONE = re.compile(r" (\d\d:\d\d)$")  # a plus sign of an offset that the sender did not escape
_TIME: TypeAdapter[datetime] = TypeAdapter(datetime)


async def only_known(request: Request) -> None:
    """Refuse a query parameter that a route does not have: it would silently be left out."""
    if not request.query_params:
        return
    route: APIRoute = request.scope["route"]
    operation = request.app.openapi()["paths"][route.path_format][request.method.lower()]
    known = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            raise ProblemError(422, ProblemReason.INVALID_QUERY, unknown_parameter(name, known), field=name[:60])


def unknown_parameter(name: str, known: Collection[str]) -> str:
    """Return the message about an unknown query parameter."""
    there = listed(sorted(known)) if known else "this path takes none"
    return f"unknown query parameter {name[:60]!r}{did_you_mean(name, known)} ({there})"


class Format(StrEnum):
    """How a list is written."""

    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"


def _label(text: str) -> str:
    if not text.partition("=")[0] or "=" not in text:
        raise ValueError(f"{text[:60]!r} is not a label; write it as name=value")
    return text


def _moment(text: str) -> str:
    moment(text, datetime.now(UTC))
    return text


def moment(text: str, now: datetime) -> datetime:
    """A point in time as RFC 3339 writes it, or a duration ago; raises ValueError."""
    wrong = f"{text[:60]!r} is no time; write 2026-01-31T12:00:00Z, or how long ago, for example 90m or 7d"
    if text[4:5] != "-":
        try:
            return clamp(now - parse_duration(text))
        except (ValueError, OverflowError) as error:
            raise ValueError(wrong) from error
    try:
        parsed = _TIME.validate_python(_ZONE.sub(r"+\1", text))
        return clamp((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValidationError, OverflowError) as error:
        raise ValueError(wrong) from error


def _cursor(text: str) -> str:
    """The id that a cursor stands for."""
    try:
        return str(uuid.UUID(bytes=base64.urlsafe_b64decode(f"{text}==")))
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not a cursor; take it from `next` of the page before") from error


def cursor(entry_id: str) -> str:
    """Return the query for the entries after this one."""
    return base64.urlsafe_b64encode(uuid.UUID(entry_id).bytes).decode().rstrip("=")


Label = Annotated[str, AfterValidator(_label)]
Moment = Annotated[str, AfterValidator(_moment)]


class ListQuery(BaseModel):
    """The parameters of all lists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alertname: str | None = Field(default=None, description="The alert's name, exactly.")
    namespace: str | None = Field(default=None, description="The alert's `namespace` label, exactly.")
    label: list[Label] = Field(default=[], description="A label of the alert as name=value; repeatable, all must hold.")
    since: Moment | None = Field(default=None, description="Not before: RFC 3339, or a duration ago (24h).")
    until: Moment | None = Field(default=None, description="Before: RFC 3339, or a duration ago (1h).")
    limit: int = Field(default=50, ge=1, le=500, description="How many entries a page has.")
    cursor: Annotated[str, AfterValidator(_cursor)] | None = Field(
        default=None, description="`next` of the page before."
    )
    format: Format | None = Field(default=None, description="Default: by the Accept header, else json.")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        """Suggest the right parameter; refuse a value that no text column can hold."""
        for name, value in dict(values).items():
            if name not in cls.model_fields:
                raise ValueError(unknown_parameter(name, cls.model_fields))
            if any("\0" in text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)):
                raise ValueError(f"query parameter {name!r} holds a NUL character")
        return values

    @property
    def page(self) -> Page:
        """The page that is asked for."""
        return Page(self.limit, self.cursor)

    def alerts(self, now: datetime) -> Alerts:
        """The part of the filter that is about alerts."""
        return Alerts(
            alertname=self.alertname,
            namespace=self.namespace,
            labels=[(name, value) for name, _, value in (label.partition("=") for label in self.label)],
            since=moment(self.since, now) if self.since else None,
            until=moment(self.until, now) if self.until else None,
        )


class RunQuery(ListQuery):
    """The parameters of the list of runs."""

    remediation: list[str] = Field(default=[], description="The remediation's name, exactly; repeatable, any may hold.")
    state: list[RunState] = Field(default=[], description="The present state; repeatable, any may hold.")
    outcome: list[RunState] = Field(
        default=[],
        description="As `state`, for final states only: " + ", ".join(sorted(FINAL_STATES)) + ".",
    )
    effective: bool | None = Field(default=None, description="Whether the alert resolved after the run acted.")
    target: str | None = Field(default=None, description="The target's key, or a part of it.")

    @model_validator(mode="after")
    def _outcomes_are_final(self) -> RunQuery:
        if not FINAL_STATES.issuperset(self.outcome):
            raise ValueError(f"an outcome is one of {', '.join(sorted(FINAL_STATES))}; use `state` for the others")
        return self

    def wanted(self, now: datetime) -> RunFilter:
        """The filter for the store."""
        states = {*self.state} & {*self.outcome} if self.state and self.outcome else {*self.state, *self.outcome}
        return RunFilter(
            alerts=self.alerts(now),
            remediations=self.remediation,
            states=states if self.state or self.outcome else None,
            effective=self.effective,
            target=self.target or None,
        )


class EpisodeQuery(ListQuery):
    """The parameters of the list of episodes."""

    open: bool | None = Field(default=None, description="Whether the alert still fires.")
    matched: bool | None = Field(default=None, description="Whether any remediation matched it.")

    def wanted(self, now: datetime) -> EpisodeFilter:
        """The filter for the store."""
        return EpisodeFilter(alerts=self.alerts(now), open=self.open, matched=self.matched)
