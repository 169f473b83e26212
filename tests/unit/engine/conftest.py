"""Targets that the engine's tests act on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import quiet, web


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    quiet.configure()


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
