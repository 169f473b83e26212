"""http.request: one HTTP call, for a server with its own API (a cache to purge, a feature to switch off).

Sends no credential but the named bearer token: parameters are stored with the run and shown to people.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from app.backends.action import Action, Context
from app.backends.base import Names
from app.backends.headers import CREDENTIAL_NAME, HEADER_NAME, OWN_HEADERS
from app.backends.http.backend import HTTP
from app.backends.web import HttpRequest, HttpResponse, Status, describe
from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.model import JsonObject, Value
from app.domain.plans import PlannedStep
from app.domain.reasons import Reason
from app.domain.remediation import Risk
from app.domain.texts import Text

_KEPT_BYTES = 1024
_FORBIDDEN_STATUS = frozenset({401, 403})
_TOO_MANY = 429
_SERVER_ERROR = 500

_CREDENTIAL_VALUE = re.compile(r"\s*(basic|bearer|digest|negotiate)\s", re.IGNORECASE)
_OWN = OWN_HEADERS - {"content-type", "accept-encoding"}


class RequestParams(Value):
    """The request and the statuses that count as success."""

    url: Annotated[str, Text.URL] = Field(description="http:// or https://, without a user or password.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict, description="No credentials; see bearer_token.")
    json_: JsonValue = Field(default=None, alias="json", description="Sent as JSON.")
    body: str | None = Field(default=None, description="Sent as it is.")
    bearer_token: Annotated[str | None, Names("secrets")] = Field(
        default=None, description="The name of a secret in connections.secrets."
    )
    expect_status: tuple[Status, ...] = Field(default=(), description="Statuses that mean success. Default: any 2xx.")
    idempotent: bool = Field(default=False, description="Sending it twice does no more than sending it once.")

    @field_validator("headers")
    @classmethod
    def _plain_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
                msg = f"header {name!r} is not valid: names are tokens, values printable ASCII"
                raise ValueError(msg)
            if name.lower() in _OWN:
                msg = f"header {name!r} is set by the remediator"
                raise ValueError(msg)
            if CREDENTIAL_NAME.search(name) or _CREDENTIAL_VALUE.match(value):
                msg = (
                    f"header {name!r} looks like a credential and would be stored; use bearer_token or connections.http"
                )
                raise ValueError(msg)
        return headers

    @model_validator(mode="after")
    def _one_body(self) -> RequestParams:
        bodies = [given for given in (self.json_, self.body) if given is not None]
        if len(bodies) > 1 or (bodies and self.method in {"GET", "HEAD"}):
            msg = "give at most one of json and body, and none with GET or HEAD"
            raise ValueError(msg)
        return self

    @property
    def is_repeatable(self) -> bool:
        """Whether HTTP, or the author, says that sending again is harmless."""
        return self.idempotent or self.method in {"GET", "HEAD", "PUT", "DELETE"}


class Request(Action[RequestParams]):
    """Sends one request and judges its status."""

    name = "http.request"
    summary = "Send one HTTP request."
    Params = RequestParams
    risk = Risk.DISRUPTIVE
    repeatable = False  # depends on the request, see can_repeat

    def can_repeat(self, step: PlannedStep) -> bool:
        """Methods that are idempotent by definition, or a request that is declared so."""
        return RequestParams.model_validate(step.params).is_repeatable

    async def plan(self, context: Context, params: RequestParams) -> PlannedStep:
        """Check that the secret exists and that the host may be called; sends nothing."""
        client = context.clients.web()
        if params.bearer_token is not None:
            context.clients.connections.secret(params.bearer_token)
        await client.addresses(params.url)
        return self.planned(
            params,
            summary=f"{params.method} {describe(params.url)}",
            desired={"status": list(params.expect_status) or "2xx"},
        )

    async def apply(self, context: Context, step: PlannedStep) -> JsonObject:
        """Send the request; the idempotency key is the same however often this step is applied."""
        params = RequestParams.model_validate(step.params)
        client, connections = context.clients.web(), context.clients.connections
        configured = HTTP.configured(connections, params.url)
        request = HttpRequest(
            method=params.method,
            url=params.url,
            headers=_headers(params, _key(context.run_id, step)),
            content=_content(params),
            secret=None if params.bearer_token is None else connections.secret(params.bearer_token),
            own=configured.headers,
            query=configured.query,
        )
        try:
            response = await client.send(request, _KEPT_BYTES)
        except OutcomeUnknownError as error:
            if params.is_repeatable:
                raise TransientError(error.message) from error
            raise
        _judge(params, response)
        return {"status": response.status, "body": response.shown(_KEPT_BYTES)}


def _headers(params: RequestParams, key: str) -> dict[str, str]:
    typed = any(name.lower() == "content-type" for name in params.headers)
    kind = {"Content-Type": "application/json"} if params.json_ is not None and not typed else {}
    return {**kind, **params.headers, "Idempotency-Key": key}


def _content(params: RequestParams) -> bytes:
    if params.json_ is not None:
        return json.dumps(params.json_).encode()
    return (params.body or "").encode()


def _key(run_id: str, step: PlannedStep) -> str:
    stable: dict[str, Any] = {"action": step.action, "params": step.params}
    digest = hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()
    return f"{run_id}-{digest[:16]}"


def _judge(params: RequestParams, response: HttpResponse) -> None:
    """Raise unless the status is as expected."""
    status = response.status
    if status in params.expect_status or (not params.expect_status and response.is_success):
        return
    msg = f"{params.method} {describe(params.url)} answered {status}: {response.shown(200)}".removesuffix(": ")
    if params.is_repeatable and (status >= _SERVER_ERROR or status == _TOO_MANY):
        raise TransientError(msg, reason=Reason.ACTION_FAILED, retry_after=response.retry_after)
    raise PermanentError(msg, reason=Reason.FORBIDDEN if status in _FORBIDDEN_STATUS else Reason.ACTION_FAILED)
