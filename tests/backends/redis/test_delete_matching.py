"""redis.delete_matching against a real server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from app.backends.connections import Connections
from app.backends.redis.actions.delete_matching import DeleteMatching
from app.catalog.templates import TemplateContext, render_params
from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.plans import PlannedStep, Target
from app.domain.reasons import Reason
from app.domain.texts import kinds_of
from tests.support import contexts
from tests.support.proxy import forgetful
from tests.support.redis import RedisServer

ACTION = DeleteMatching()
TARGET = Target(backend="redis", key="redis:cache/2", name="2")
Configured = Callable[..., Connections]


def fill(server: RedisServer, prefix: str, keys: int) -> None:
    """Put keys of one prefix into the target's database."""
    with server.client(2) as client:
        client.mset({f"{prefix}:{number}": "value" for number in range(keys)})


def left(server: RedisServer) -> int:
    """How many keys the target's database has."""
    with server.client(2) as client:
        return int(client.dbsize())


def calls(server: RedisServer, command: str) -> int:
    """How often a command was called since the statistics were reset."""
    with server.client() as client:
        statistics = client.info("commandstats")
        return int(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def plan(connections: Connections, **given: Any) -> PlannedStep:
    """Plan on the target."""
    return contexts.plan(connections, ACTION, TARGET, **given)


def test_removes_what_matches_and_nothing_else(redis_server: RedisServer, configured: Configured) -> None:
    """Keys that match go, in batches; the others stay."""
    fill(redis_server, "session", 1200)
    fill(redis_server, "cart", 30)
    step = plan(configured(redis_server), pattern="session:*", batch=100)
    result = contexts.apply(configured(redis_server), ACTION, step, TARGET)
    assert (1200, {"removed": 1200, "stopped_at_max": False}) == (step.before["matching"], result)
    assert 30 == left(redis_server)


def test_scans_and_unlinks_instead_of_blocking(redis_server: RedisServer, configured: Configured) -> None:
    """Neither KEYS nor DEL is ever sent."""
    fill(redis_server, "session", 50)
    with redis_server.client() as client:
        client.config_resetstat()
    step = plan(configured(redis_server), pattern="session:*")
    contexts.apply(configured(redis_server), ACTION, step, TARGET)
    assert (0, 0) == (calls(redis_server, "keys"), calls(redis_server, "del"))
    assert (True, True) == (calls(redis_server, "scan") > 0, calls(redis_server, "unlink") > 0)


def test_without_a_match_there_is_nothing_to_do(redis_server: RedisServer, configured: Configured) -> None:
    """A pattern that no key has makes no change."""
    fill(redis_server, "cart", 3)
    assert not plan(configured(redis_server), pattern="session:*").changes


def test_planning_changes_nothing(redis_server: RedisServer, configured: Configured) -> None:
    """A plan only counts."""
    fill(redis_server, "session", 5)
    plan(configured(redis_server), pattern="session:*")
    assert 5 == left(redis_server)


def test_more_than_max_is_refused(redis_server: RedisServer, configured: Configured) -> None:
    """A pattern that is wider than its author thought does no harm."""
    fill(redis_server, "session", 20)
    with pytest.raises(PermanentError, match="more than 19") as caught:
        plan(configured(redis_server), pattern="session:*", max=19)
    assert Reason.BOUNDS_REACHED == caught.value.reason


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_keys_that_came_after_the_plan_do_not_exceed_max(
    redis_server: RedisServer, configured: Configured, batch: int
) -> None:
    """The bound also holds while removing, within a batch and over several."""
    fill(redis_server, "session", 10)
    step = plan(configured(redis_server), pattern="session:*", max=10, batch=batch)
    fill(redis_server, "session:late", 50)
    result = contexts.apply(configured(redis_server), ACTION, step, TARGET)
    assert ({"removed": 10, "stopped_at_max": True}, 50) == (result, left(redis_server))


@pytest.mark.parametrize("pattern", ["", "*", "**", "?", "?*", "*?*", "[a-z]*", "[^x]*", "[*", r"[\]]*", "[]*"])
def test_patterns_that_match_everything_are_refused(pattern: str) -> None:
    """A pattern needs a character that stands for itself."""
    with pytest.raises(ValidationError):
        ACTION.Params.model_validate({"pattern": pattern})


@pytest.mark.parametrize("pattern", ["a*", "*:session", r"\**", "cart", r"*\?", "[ab]:*"])
def test_patterns_with_a_literal_are_taken(pattern: str) -> None:
    """One literal character, escaped ones included, is enough."""
    assert pattern == ACTION.Params.model_validate({"pattern": pattern}).model_dump()["pattern"]


@pytest.mark.parametrize("missing", ["scan", "unlink"])
def test_a_missing_acl_command_is_named(
    start_redis: Callable[[], RedisServer], configured: Configured, missing: str
) -> None:
    """A user without one of the commands is refused, and no key is lost."""
    server = start_redis()
    fill(server, "session", 3)
    commands = [f"+{permission.resource}" for permission in ACTION.permissions if permission.resource != missing]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">correct-horse", "~*", "nocommands", *commands)
    step = plan(configured(server), pattern="session:*")
    with pytest.raises(PermanentError, match=missing) as caught:
        contexts.apply(configured(server, "limited"), ACTION, step, TARGET)
    assert (Reason.FORBIDDEN, 3) == (caught.value.reason, left(server))


def test_the_declared_permissions_are_enough(start_redis: Callable[[], RedisServer], configured: Configured) -> None:
    """An ACL user with the commands that the action declares, and no other, can do it."""
    server = start_redis()
    fill(server, "session", 3)
    commands = [f"+{permission.resource}" for permission in ACTION.permissions]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "least", "on", ">correct-horse", "~*", "nocommands", *commands)
    connections = configured(server, "least")
    step = plan(connections, pattern="session:*")
    assert 3 == contexts.apply(connections, ACTION, step, TARGET)["removed"]


def test_a_server_that_is_away_can_be_tried_again(
    start_redis: Callable[[], RedisServer], configured: Configured
) -> None:
    """Nothing was sent, so nothing was done."""
    server = start_redis()
    server.stop()
    with pytest.raises(TransientError):
        plan(configured(server), pattern="session:*")


def test_a_lost_answer_is_unknown(redis_server: RedisServer, configured: Configured) -> None:
    """An UNLINK that may have arrived is not sent again."""
    fill(redis_server, "session", 3)
    with redis_server.client() as client:
        client.config_resetstat()
    with forgetful(redis_server, b"UNLINK") as port:
        connections = configured(redis_server, port=port)
        step = plan(connections, pattern="session:*")
        with pytest.raises(OutcomeUnknownError, match="UNLINK"):
            contexts.apply(connections, ACTION, step, TARGET)
    assert (1, 0) == (calls(redis_server, "unlink"), left(redis_server))


@pytest.mark.parametrize("tenant", ["*", "?", "[a-z]", "a\\", "a*", "^", "[", "]", "\\*", "a:*", "[^x]"])
def test_a_label_is_one_tenant_and_no_pattern(redis_server: RedisServer, configured: Configured, tenant: str) -> None:
    """Only the keys of the tenant that the label names are counted; Redis compares them."""
    for name in (tenant, "a", "b", "aa"):
        fill(redis_server, f"tenant:{name}", 3)
    alert = TemplateContext(labels={"tenant": tenant}, annotations={}, fingerprint="0", starts_at=datetime.now(UTC))
    given = render_params({"pattern": "tenant:{{ labels.tenant }}:*"}, alert, kinds_of(DeleteMatching.Params))
    assert 3 == plan(configured(redis_server), **given).before["matching"]
