"""The HTTP edge for tests of requests, and how many bodies are generated against it.

`REMEDIATOR_HYPOTHESIS=soak` generates 100,000 of them instead of 2,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.edge import Edge, StartEdge, make_store

_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("short", max_examples=2_000, deadline=None, suppress_health_check=_CHECKS)
settings.register_profile("soak", max_examples=100_000, deadline=None, suppress_health_check=_CHECKS)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store to copy, since migrating takes longer than most tests."""
    file = tmp_path_factory.mktemp("store") / "empty.db"
    make_store(file)
    return file


@pytest.fixture
def start_edge(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartEdge]:
    """Starts an edge with settings of the test's own: `start_edge(tokens=[...])`."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Edge:
            edge = Edge(tmp_path_factory.mktemp("edge"), empty_store, **settings)
            stack.callback(edge.close)
            edge.start()
            return edge

        yield start


@pytest.fixture
def edge(start_edge: StartEdge) -> Edge:
    """An edge without tokens."""
    return start_edge()
