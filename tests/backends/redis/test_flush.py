"""redis.flush against a real server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import SecretStr

from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.redis.actions.flush import Flush
from app.backends.redis.backend import REDIS, RedisConnection
from app.backends.secrets import SecretSource
from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.plans import Target
from app.domain.reasons import Reason
from tests.support import contexts
from tests.support.processes import free_port
from tests.support.proxy import forgetful
from tests.support.redis import RedisServer

ACTION = Flush()
TARGET = Target(backend="redis", key="redis:cache/3", name="3")
Configured = Callable[..., Connections]


def fill(server: RedisServer, database: int = 3, keys: int = 10) -> None:
    """Put some keys into a database."""
    with server.client(database) as client:
        client.mset({f"key:{number}": "value" for number in range(keys)})


def size(server: RedisServer, database: int = 3) -> int:
    """How many keys a database has."""
    with server.client(database) as client:
        return int(client.dbsize())


def test_empties_the_target_and_no_other_database(redis_server: RedisServer, configured: Configured) -> None:
    """Only the numbered database of the target loses its keys."""
    fill(redis_server)
    fill(redis_server, database=0)
    connections = configured(redis_server)
    step = contexts.plan(connections, ACTION, TARGET)
    result = contexts.apply(connections, ACTION, step, TARGET)
    assert (10, 0) == (step.before["keys"], result["keys"])
    assert (0, 10) == (size(redis_server), size(redis_server, 0))


def test_an_empty_database_is_left_alone(redis_server: RedisServer, configured: Configured) -> None:
    """Without keys there is nothing to do."""
    step = contexts.plan(configured(redis_server), ACTION, TARGET)
    assert (False, {"keys": 0}) == (step.changes, step.desired)


def test_planning_changes_nothing(redis_server: RedisServer, configured: Configured) -> None:
    """A plan only counts."""
    fill(redis_server)
    contexts.plan(configured(redis_server), ACTION, TARGET)
    assert 10 == size(redis_server)


def test_a_database_that_does_not_exist_is_not_found(redis_server: RedisServer, configured: Configured) -> None:
    """A number beyond the server's databases is told apart from a server that is away."""
    target = Target(backend="redis", key="redis:cache/9999", name="9999")
    with pytest.raises(PermanentError) as caught:
        contexts.plan(configured(redis_server), ACTION, target)
    assert Reason.TARGET_NOT_FOUND == caught.value.reason


def test_a_user_without_flushdb_is_forbidden(start_redis: Callable[[], RedisServer], configured: Configured) -> None:
    """A user that may ask for its rights is refused while planning; else Redis refuses, and nothing is lost."""
    server = start_redis()
    fill(server)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">correct-horse", "~*", "+@all", "-flushdb")
    connections = configured(server, "limited")
    with pytest.raises(PermanentError, match=r"limited may not run flushdb; ACL SETUSER limited \+flushdb") as caught:
        contexts.plan(connections, ACTION, TARGET)
    assert Reason.FORBIDDEN == caught.value.reason
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "-acl")
    step = contexts.plan(connections, ACTION, TARGET)
    with pytest.raises(PermanentError, match=r"NOPERM.*flushdb") as caught:
        contexts.apply(connections, ACTION, step, TARGET)
    assert (Reason.FORBIDDEN, 10) == (caught.value.reason, size(server))


def test_the_declared_permissions_are_enough(start_redis: Callable[[], RedisServer], configured: Configured) -> None:
    """An ACL user with the commands that the action declares, and no other, can do it."""
    server = start_redis()
    fill(server)
    commands = [f"+{permission.resource}" for permission in ACTION.permissions]
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "least", "on", ">correct-horse", "~*", "nocommands", *commands)
    connections = configured(server, "least")
    step = contexts.plan(connections, ACTION, TARGET)
    assert 0 == contexts.apply(connections, ACTION, step, TARGET)["keys"]


def test_a_wrong_password_is_forbidden(start_redis: Callable[[], RedisServer], configured: Configured) -> None:
    """A refused login is permanent and keeps the password to itself."""
    with pytest.raises(PermanentError) as caught:
        contexts.plan(configured(start_redis(), "stranger"), ACTION, TARGET)
    assert (Reason.FORBIDDEN, False) == (caught.value.reason, "correct-horse" in caught.value.message)


def test_a_replica_is_refused(start_redis: Callable[[], RedisServer], configured: Configured) -> None:
    """A flush belongs on the primary."""
    server = start_redis()
    with server.client() as client:
        client.replicaof("127.0.0.1", free_port())
    with pytest.raises(PermanentError, match="replica"):
        contexts.plan(configured(server), ACTION, TARGET)


def test_a_server_that_is_away_can_be_tried_again(
    start_redis: Callable[[], RedisServer], configured: Configured
) -> None:
    """Nothing was sent, so nothing was done."""
    server = start_redis()
    fill(server)
    step = contexts.plan(configured(server), ACTION, TARGET)
    server.stop()
    with pytest.raises(TransientError) as caught:
        contexts.apply(configured(server), ACTION, step, TARGET)
    assert Reason.TARGET_UNREACHABLE == caught.value.reason


def test_a_lost_answer_is_unknown_and_not_sent_again(redis_server: RedisServer, configured: Configured) -> None:
    """The client does not repeat a FLUSHDB that arrived and whose answer did not."""
    fill(redis_server)
    with redis_server.client() as client:
        client.config_resetstat()
    with forgetful(redis_server, b"FLUSHDB") as port:
        connections = configured(redis_server, port=port)
        step = contexts.plan(connections, ACTION, TARGET)
        with pytest.raises(OutcomeUnknownError, match="FLUSHDB"):
            contexts.apply(connections, ACTION, step, TARGET)
    with redis_server.client() as client:
        assert client.info("commandstats")["cmdstat_flushdb"]["calls"] == 1
    assert 0 == size(redis_server)


def test_silence_is_unknown(start_redis: Callable[[], RedisServer], configured: Configured) -> None:
    """A server that hangs may still do what it was asked."""
    server = start_redis()
    fill(server)
    connections = configured(server, timeout="500ms")
    step = contexts.plan(connections, ACTION, TARGET)
    with server.client() as client:
        client.client_pause(60_000, all=False)
        with pytest.raises(OutcomeUnknownError):
            contexts.apply(connections, ACTION, step, TARGET)
        client.client_unpause()


@pytest.mark.parametrize(
    "url", ["redis://:correct-horse@127.0.0.1:6379/5", "redis://:x/correct-horse@127.0.0.1", "correct-horse://h"]
)
def test_an_unusable_url_is_refused_without_showing_it(url: str) -> None:
    """A URL that names a database, or none at all, is a mistake of the configuration."""
    connection = RedisConnection(url=SecretSource(value=SecretStr(url)))
    with pytest.raises(PermanentError) as caught:
        contexts.plan(Connections(redis={"cache": connection}), ACTION, TARGET)
    assert (Reason.CONFIG_INVALID, False) == (caught.value.reason, "correct-horse" in caught.value.message)


def test_resolving_names_instance_and_number(redis_server: RedisServer, configured: Configured) -> None:
    """The key holds both, and negative numbers are refused."""

    async def use(clients: Clients) -> Target:
        with pytest.raises(PermanentError):
            (await REDIS.client(clients, "cache")).resolve("cache", -1)
        return (await REDIS.client(clients, "cache")).resolve("cache", 3)

    assert contexts.with_clients(configured(redis_server), use) == TARGET
