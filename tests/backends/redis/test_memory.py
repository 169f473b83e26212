"""redis.memory against a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from app.backends.connections import Connections
from app.backends.redis.checks.memory import Memory
from app.domain.errors import CheckError
from app.domain.plans import Target
from tests.support import contexts
from tests.support.redis import RedisServer

TARGET = Target(backend="redis", key="redis:cache/0", name="0")
Configured = Callable[..., Connections]


@pytest.mark.parametrize(("most", "held"), [("1GiB", True), ("400MB", True), (1024, False), ("10KB", False)])
def test_compares_used_memory(redis_server: RedisServer, configured: Configured, most: str | int, held: bool) -> None:
    """Sizes are bytes or carry a unit."""
    assert held == contexts.observe(configured(redis_server), Memory(), TARGET, max=most).held


@pytest.mark.parametrize(("ratio", "held"), [(0.9, True), (0.0001, False)])
def test_compares_with_maxmemory(
    start_redis: Callable[..., RedisServer], configured: Configured, ratio: float, held: bool
) -> None:
    """A ratio is a share of the server's own limit."""
    server = start_redis({"maxmemory": "100mb"})
    observation = contexts.observe(configured(server), Memory(), TARGET, max_ratio=ratio)
    assert (held, 104_857_600) == (observation.held, observation.data["maxmemory_bytes"])


def test_a_ratio_of_no_limit_is_no_observation(redis_server: RedisServer, configured: Configured) -> None:
    """Without maxmemory there is nothing to take a share of."""
    with pytest.raises(CheckError, match="maxmemory"):
        contexts.observe(configured(redis_server), Memory(), TARGET, max_ratio=0.5)


def test_a_server_that_is_away_is_no_observation(
    start_redis: Callable[[], RedisServer], configured: Configured
) -> None:
    """Not being able to look is an error of its own."""
    server = start_redis()
    server.stop()
    with pytest.raises(CheckError, match="cannot connect"):
        contexts.observe(configured(server), Memory(), TARGET, max="1GB")


@pytest.mark.parametrize("given", [{}, {"max": 1, "max_ratio": 0.5}, {"max_ratio": 1.5}, {"max": "much"}])
def test_exactly_one_bound(given: dict[str, Any]) -> None:
    """Parameters that mean nothing are refused when the catalog is loaded."""
    with pytest.raises(ValidationError):
        Memory.Params.model_validate(given)
