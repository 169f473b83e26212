"""Both stores: an SQLite file and a PostgreSQL database of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import quiet, web
from tests.support.pacing import Worked


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    with quiet.plain_logs():
        yield


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def sink() -> Iterator[web.WebServer]:
    """A target that remembers what was done to it."""
    with web.serve() as server:
        yield server


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Worked:
    """The clock of `pace`, which `work` puts forward."""
    return Worked(monkeypatch)
