"""http.ok: whether a URL answers as it should; refused, silent and failing answers are observations, not errors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.backends.base import Names
from app.backends.check import Check, CheckContext, observation, observing
from app.backends.http.backend import HTTP
from app.backends.web import HttpRequest, HttpResponse, Status, describe
from app.domain.errors import OutcomeUnknownError, TransientError
from app.domain.model import Value
from app.domain.plans import Observation
from app.domain.texts import Text


class OkParams(Value):
    """The request and the expected answer."""

    url: Annotated[str, Text.URL] = Field(description="http:// or https://, without a user or password.")
    expect_status: tuple[Status, ...] = Field(default=(), description="The expected statuses. Default: any 2xx.")
    bearer_token: Annotated[str | None, Names("secrets")] = Field(
        default=None, description="The name of a secret in connections.secrets."
    )
    contains: str | None = Field(default=None, min_length=1, description="Text within the first MiB of the body.")


class Ok(Check[OkParams]):
    """Asks with GET; follows no redirect."""

    name = "http.ok"
    summary = "A URL answers with the expected status."
    Params = OkParams

    async def observe(self, context: CheckContext, params: OkParams) -> Observation:
        """Ask once."""
        with observing():
            where = describe(params.url)
            client, connections = context.clients.web(), context.clients.connections
            secret = None if params.bearer_token is None else connections.secret(params.bearer_token)
            given = HTTP.configured(connections, params.url)
            request = HttpRequest("GET", params.url, {}, secret=secret, own=given.headers, query=given.query)
            try:
                response = await client.send(request)
            except (TransientError, OutcomeUnknownError) as error:
                return observation(False, error.message)  # noqa: FBT003 - reads as a sentence
        return _judged(where, params, response)


def _judged(where: str, params: OkParams, response: HttpResponse) -> Observation:
    expected = response.status in params.expect_status if params.expect_status else response.is_success
    found = params.contains is None or params.contains in response.text()
    message = f"{where} answered {response.status}"
    if expected and not found:
        message += f" without {params.contains!r} in the body"
    return observation(expected and found, message, status=response.status)
