"""Targets that the engine's tests act on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import quiet, web


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    with quiet.plain_logs():
        yield


@pytest.fixture
def sink() -> Iterator[web.WebServer]:
    """What is acted on."""
    with web.serve() as server:
        yield server


@pytest.fixture
def health() -> Iterator[web.WebServer]:
    """What is looked at."""
    with web.serve() as server:
        yield server
