"""Puts the HTTP edge together. It starts nothing: `app.main` runs the tasks beside it."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.api import breakers, catalog, decisions, episodes, events, handlers, holds, ops, remediations, webhook
from app.api.breakers import BreakerWord
from app.api.catalog import StandingWord
from app.api.decisions import Remark
from app.api.edge import KnownHost, Measured, SameOrigin
from app.api.holds import Pause, PauseOf
from app.api.problems import Problem
from app.api.query import only_known
from app.api.services import Services
from app.domain.alerts import Notification

_DESCRIPTION = (
    "Turns Prometheus alerts into safe, verified, audited remediations. Every error answer is a problem as RFC 9457 "
    "says. Where tokens are configured they are sent as a bearer token or as the password of basic authentication; "
    "each route names the role that it needs."
)


class Application(FastAPI):
    """FastAPI whose document also has the schemas of bodies that are read by hand and of problems.

    Notifications go past the framework, since many come at once when the machine is busiest.
    """

    def __init__(self, services: Services) -> None:
        super().__init__(
            title="remediator",
            version=__version__,
            description=_DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        self.state.services = services
        self._receiver = webhook.Receiver(self)
        self._edge = _edge(super().__call__, services)
        self._receiving = _edge(self._receiver, services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await (self._receiving if self._receiver.is_for(scope) else self._edge)(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            template = "#/components/schemas/{model}"
            read_by_hand = (Problem, Notification, Remark, Pause, PauseOf, BreakerWord, StandingWord)
            inputs = [(model, "validation") for model in read_by_hand]
            _, schemas = models_json_schema(inputs, ref_template=template)  # type: ignore[arg-type]
            document["components"]["schemas"].update(schemas["$defs"])
            self.openapi_schema = document
        return self.openapi_schema


def _edge(app: ASGIApp, services: Services) -> ASGIApp:
    return Measured(KnownHost(SameOrigin(app), is_open=services.auth.is_open), services.metrics)


def create_app(services: Services) -> FastAPI:
    """The ASGI application."""
    app = Application(services)
    for part in (webhook, ops):
        app.include_router(part.router)
    for part in (remediations, decisions, episodes, events, holds, breakers, catalog):
        app.include_router(part.router, dependencies=[Depends(only_known)])
    handlers.install(app)
    return app
