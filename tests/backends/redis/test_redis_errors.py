"""What an answer of Redis means is read from its code; its words may be any."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from pydantic import SecretStr
from redis import exceptions

from app.backends.redis.backend import RedisConnection
from app.backends.redis.client import RedisClient
from app.backends.redis.errors import answered, lost, translated
from app.backends.redis.parser import Parser
from app.backends.secrets import SecretSource
from app.domain.errors import ActionError, OutcomeUnknownError, PermanentError, TransientError
from app.domain.reasons import Reason
from tests.support.aio import run

AT = "cache.shop:6379"
AGAIN = {
    "LOADING": "loading",
    "BUSY": "script",
    "TRYAGAIN": "being moved",
    "CLUSTERDOWN": "cluster is down",
    "MASTERDOWN": "lost its primary",
    "NOREPLICAS": "too few replicas",
    "INPROG": "failover",
}
NEVER = {
    "NOAUTH": (Reason.FORBIDDEN, "asks for a login"),
    "WRONGPASS": (Reason.FORBIDDEN, "correct user and password"),
    "NOPERM": (Reason.FORBIDDEN, "ACL SETUSER"),
    "DENIED": (Reason.FORBIDDEN, "protected mode"),
    "READONLY": (Reason.FORBIDDEN, "name its primary"),
    "MOVED": (Reason.ACTION_FAILED, "another node"),
    "ASK": (Reason.ACTION_FAILED, "another node"),
    "CROSSSLOT": (Reason.ACTION_FAILED, "several slots"),
    "MISCONF": (Reason.ACTION_FAILED, "save to its disk"),
    "OOM": (Reason.ACTION_FAILED, "maxmemory"),
    "EXECABORT": (Reason.ACTION_FAILED, "nothing was done"),
    "ERR": (Reason.FORBIDDEN, "renamed or disabled"),
    "SOMETHINGNEW": (Reason.ACTION_FAILED, "refuses"),
}
# As a server may word it, in another version or another language.
WORDS = ("unknown command 'x'", "der Befehl ist nicht bekannt", "")


def answer(code: str, words: str) -> exceptions.RedisError:
    """An error as the SDK makes it of a server's line."""
    return Parser.parse_error(f"{code} {words}".strip())


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(("code", "told"), AGAIN.items())
def test_what_may_pass_is_tried_again(code: str, told: str, words: str) -> None:
    """Nothing was done, and the target may be well in a moment."""
    found = translated(answer(code, words), AT)
    assert isinstance(found, TransientError)
    assert told in found.message
    assert AT in found.message or not words


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(("code", "expected"), NEVER.items())
def test_what_will_not_pass_is_refused_with_advice(code: str, expected: tuple[Reason, str], words: str) -> None:
    """It is said what to change."""
    reason, told = expected
    found = translated(answer(code, words), AT)
    assert isinstance(found, PermanentError)
    assert reason is found.reason
    assert told in found.message
    assert code in found.message


@pytest.mark.parametrize("code", [*AGAIN, *NEVER])
def test_an_answer_is_no_lost_answer(code: str) -> None:
    """What the server said no to has not happened."""
    assert answered(answer(code, "words"))


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "TLS"),
        (TimeoutError(), "no answer in time"),
        (None, "the server closed it"),
    ],
)
def test_a_connection_that_cannot_be_made_names_address_and_cause(cause: Exception | None, told: str) -> None:
    """Whoever reads it knows which server, and what is in the way."""
    error = exceptions.ConnectionError("words of the SDK")
    error.__context__ = cause
    found = translated(error, AT, connecting=True)
    assert isinstance(found, TransientError)
    assert f"cannot connect to Redis at {AT}: " in found.message
    assert told in found.message
    unknown = lost(error, AT, "FLUSHDB")
    assert isinstance(unknown, OutcomeUnknownError)
    assert f"{AT} was lost before FLUSHDB was answered" in unknown.message


def test_a_server_that_is_full_may_have_room_later() -> None:
    """It has no code of its own for that; a refused login has, in older versions."""
    full = Parser.parse_error("ERR max number of clients reached")
    assert isinstance(translated(full, AT), TransientError)
    old = Parser.parse_error("ERR invalid password")
    assert Reason.FORBIDDEN is translated(old, AT).reason


@asynccontextmanager
async def answering(line: bytes) -> AsyncIterator[RedisClient]:
    """A client of a server that answers so to every command."""

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(line + b"\r\n")
        writer.close()

    async with await asyncio.start_server(answer_all, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = SecretSource(value=SecretStr(f"redis://127.0.0.1:{port}"))
        yield RedisClient(RedisConnection(url=url), timedelta(seconds=5))


async def ask(client: RedisClient) -> None:
    """Ask for something."""
    async with client.database(0) as redis:
        await redis.info("server")


async def empty(client: RedisClient) -> None:
    """Do something that must not be done twice."""
    async with client.database(0) as redis:
        with client.sent_once("FLUSHDB"):
            await redis.flushdb()


ODD_ERRORS = (b"-MOVED x y", b"-MOVED 5", b"-MOVED", b"-ASK a b c", b"-MOVED 5 here:x", b"-LOADING")
ODD_ANSWERS = (b":many", b"$many", b"*many", b"?", b"*1\r\n:many", b"HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize("line", [*ODD_ERRORS, *ODD_ANSWERS, b":5", b"*1\r\n:5", b"*0"])
def test_any_answer_becomes_an_error_that_says_what_to_do(line: bytes) -> None:
    """The SDK raises errors of its own for some, which would be unexpected."""

    async def scenario() -> None:
        async with answering(line) as client:
            with pytest.raises(ActionError) as found:
                await ask(client)
            code = line[1:].split(b" ")[0].decode() if line in ODD_ERRORS else "is not Redis"
            assert code in found.value.message
            assert isinstance(found.value, TransientError) == (line == b"-LOADING")

    run(scenario())


@pytest.mark.parametrize("line", [*ODD_ERRORS, *ODD_ANSWERS])
def test_any_answer_to_what_must_not_be_sent_twice(line: bytes) -> None:
    """A no is a no; what cannot be understood may be a yes."""

    async def scenario() -> None:
        async with answering(line) as client:
            with pytest.raises(ActionError) as found:
                await empty(client)
            assert isinstance(found.value, OutcomeUnknownError) == (line in ODD_ANSWERS)

    run(scenario())


def test_what_is_not_redis_is_a_mistake_in_the_configuration() -> None:
    """A web server, say."""
    found = translated(exceptions.InvalidResponse("Protocol Error: HTTP"), AT)
    assert (PermanentError, Reason.CONFIG_INVALID) == (type(found), found.reason)
