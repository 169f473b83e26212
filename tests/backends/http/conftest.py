"""A real HTTP server, and a configuration with one secret and short time-outs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from app.backends.connections import Connections
from tests.support import web


@pytest.fixture
def site() -> Iterator[web.WebServer]:
    """A server that answers 200 until told otherwise."""
    with web.serve() as server:
        yield server


@pytest.fixture
def configured() -> Callable[..., Connections]:
    """Makes a configuration whose secret `api` is `correct-horse`; its fields can be replaced."""

    def make(**fields: object) -> Connections:
        return Connections.model_validate({"secrets": {"api": {"value": "correct-horse"}}, "timeout": "5s", **fields})

    return make
