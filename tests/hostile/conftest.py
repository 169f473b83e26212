"""The HTTP edge in this process, as tests/unit/api has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import quiet
from tests.unit.api.conftest import edge, empty_store, start_edge

__all__ = ["edge", "empty_store", "start_edge"]


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    with quiet.plain_logs():
        yield
