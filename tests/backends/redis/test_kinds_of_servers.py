"""What speaks Redis' protocol and is not one plain primary: cluster nodes, Sentinels, servers that lack commands."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import redis as sdk

from app.backends.connections import Connections
from app.backends.redis.actions.delete_matching import DeleteMatching
from app.backends.redis.actions.flush import Flush
from app.backends.redis.checks.memory import Memory
from app.domain.errors import AppError, CheckError, PermanentError, TransientError
from app.domain.plans import Target
from app.domain.reasons import Reason
from tests.conftest import NewDirectory, StartRedis
from tests.support import contexts
from tests.support.redis import RedisServer, sentinel

TARGET = Target(backend="redis", key="redis:cache/0", name="0")
OTHER = Target(backend="redis", key="redis:cache/3", name="3")
Configured = Callable[..., Connections]


def node(start_redis: StartRedis) -> RedisServer:
    """The only primary of a cluster."""
    server = start_redis({"cluster-enabled": "yes"})
    server.form_cluster()
    return server


def test_keys_of_many_slots_are_removed_from_a_node(start_redis: StartRedis, configured: Configured) -> None:
    """One command takes keys of one slot only; what does not match stays."""
    server = node(start_redis)
    with server.client() as client:
        for number in range(700):
            client.set(f"page:{number}", "x")
        client.set("session:1", "x")
    step = contexts.plan(configured(server), DeleteMatching(), TARGET, pattern="page:*", batch=300)
    done = contexts.apply(configured(server), DeleteMatching(), step, TARGET)
    with server.client() as client:
        assert (700, ["session:1"]) == (done["removed"], client.keys("*"))


def test_a_slot_that_is_not_served_ends_the_removal(start_redis: StartRedis, configured: Configured) -> None:
    """It is said how far that came, and nothing is tried again that was done in part."""
    server = start_redis({"cluster-enabled": "yes", "cluster-require-full-coverage": "no"})
    server.form_cluster()
    with server.client() as client:
        for number in range(50):
            client.set(f"page:{number}", "x")
        step = contexts.plan(configured(server), DeleteMatching(), TARGET, pattern="page:*")
        client.execute_command("CLUSTER DELSLOTS", client.execute_command("CLUSTER KEYSLOT", "page:7"))
    with pytest.raises(PermanentError, match=r"CLUSTERDOWN.*of the last 50 keys 49 were removed") as caught:
        contexts.apply(configured(server), DeleteMatching(), step, TARGET)
    assert Reason.ACTION_FAILED is caught.value.reason


def test_a_node_of_a_cluster_has_one_database(start_redis: StartRedis, configured: Configured) -> None:
    """It is said why."""
    with pytest.raises(PermanentError, match="has no database 3; a node of a cluster has database 0 only") as caught:
        contexts.plan(configured(node(start_redis)), Flush(), OTHER)
    assert Reason.TARGET_NOT_FOUND is caught.value.reason


@pytest.fixture
def sentinel_server(redis_server: RedisServer, processes: ExitStack, new_directory: NewDirectory) -> RedisServer:
    """A Sentinel that watches the session's server."""
    return processes.enter_context(sentinel(new_directory("sentinel"), redis_server))


@pytest.mark.parametrize("target", [TARGET, OTHER])
def test_a_sentinel_is_no_target(sentinel_server: RedisServer, configured: Configured, target: Target) -> None:
    """Actions say so; a check has observed nothing."""
    server = sentinel_server
    actions: tuple[Any, ...] = (Flush(), DeleteMatching())
    for action, params in zip(actions, ({}, {"pattern": "page:*"}), strict=True):
        with pytest.raises(PermanentError, match="this is a Sentinel") as caught:
            contexts.plan(configured(server), action, target, **params)
        assert Reason.CONFIG_INVALID is caught.value.reason
    with pytest.raises(CheckError, match="this is a Sentinel"):
        contexts.observe(configured(server), Memory(), TARGET, max="1GB")


@pytest.mark.parametrize("renamed", ['FLUSHDB ""', "FLUSHDB hidden", 'FLUSHDB ""\nrename-command ACL ""'])
def test_a_command_that_a_server_lacks_is_found_before_anybody_is_asked(
    start_redis: StartRedis, configured: Configured, renamed: str
) -> None:
    """No ACL gives it back, and none is advised."""
    server = start_redis({"rename-command": renamed})
    with server.client() as client:
        client.set("key", "value")
    with pytest.raises(PermanentError, match="the server does not know flushdb") as caught:
        contexts.plan(configured(server), Flush(), TARGET)
    assert Reason.FORBIDDEN is caught.value.reason
    assert "SETUSER" not in caught.value.message


def test_a_server_that_tells_nothing_of_its_commands_refuses_in_the_end(
    start_redis: StartRedis, configured: Configured
) -> None:
    """Whatever words it has for that."""
    server = start_redis({"rename-command": 'FLUSHDB ""\nrename-command COMMAND ""\nrename-command ACL ""'})
    with server.client() as client:
        client.set("key", "value")
    step = contexts.plan(configured(server), Flush(), TARGET)
    with pytest.raises(PermanentError, match="may be renamed or disabled") as caught:
        contexts.apply(configured(server), Flush(), step, TARGET)
    assert Reason.FORBIDDEN is caught.value.reason


def test_a_server_without_info_is_refused_plainly(start_redis: StartRedis, configured: Configured) -> None:
    """A managed one, say."""
    server = start_redis({"rename-command": 'INFO ""'})
    with pytest.raises(PermanentError) as caught:
        contexts.plan(configured(server), Flush(), TARGET)
    assert Reason.FORBIDDEN is caught.value.reason
    with pytest.raises(CheckError, match="may be renamed or disabled"):
        contexts.observe(configured(server), Memory(), TARGET, max="1GB")


def test_a_full_server_may_have_room_later(start_redis: StartRedis, configured: Configured) -> None:
    """The last connection is somebody else's."""
    server = start_redis({"maxclients": "1"})
    with server.client() as client:
        client.ping()
        with pytest.raises(TransientError, match=f"{server.host}:{server.port}"):
            contexts.plan(configured(server), Flush(), TARGET)


def test_a_busy_server_may_be_asked_again(start_redis: StartRedis, configured: Configured) -> None:
    """A script that does not end."""
    server = start_redis({"busy-reply-threshold": "10"})
    with server.client() as client, server.client() as killer:
        client.set("key", "value")
        client.connection_pool.connection_kwargs["socket_timeout"] = 30
        busy = sdk.Redis(host=server.host, port=server.port, socket_timeout=0.3, retry=None)
        with pytest.raises(sdk.RedisError):
            busy.eval("while true do end", 0)
        busy.close()
        try:
            with pytest.raises(AppError) as caught:
                contexts.plan(configured(server), Flush(), TARGET)
        finally:
            killer.script_kill()
    assert isinstance(caught.value, TransientError)
    assert "script" in caught.value.message
