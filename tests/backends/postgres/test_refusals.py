"""What PostgreSQL refuses is told apart by its SQLSTATE, while connecting too, and in any language."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from app.backends.instances import Clients
from app.backends.postgres.actions.terminate_idle import TerminateIdle
from app.backends.postgres.backend import POSTGRES
from app.backends.scope import Scope
from app.domain.errors import ActionError, PermanentError, TransientError
from app.domain.plans import Target
from app.domain.reasons import Reason
from tests.conftest import StartPostgres
from tests.support import contexts
from tests.support.aio import run
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until
from tests.support.shop import to_postgres

TARGET = Target(backend="postgres", key="postgres:main/postgres", name="postgres")
AGAIN = None
CODES = {
    "57P03": AGAIN,  # starting up, in recovery
    "57P01": AGAIN,
    "53300": AGAIN,  # too many connections
    "53400": AGAIN,
    "08006": AGAIN,
    "XX000": AGAIN,
    "28P01": Reason.FORBIDDEN,
    "28000": Reason.FORBIDDEN,
    "42501": Reason.FORBIDDEN,
    "25006": Reason.FORBIDDEN,
    "3D000": Reason.TARGET_NOT_FOUND,
    "0A000": Reason.ACTION_FAILED,
}
# Languages of servers; the words of each would be taken for another error's in one of the others.
SEVERITIES = ("FATAL", "ВАЖНО", "FATALT")
WORDS = ("authentication failed, does not exist", "пользователь не прошёл проверку подлинности")


@contextmanager
def refusing(code: str, severity: str, words: str) -> Iterator[int]:
    """A server that says no to everybody, as PostgreSQL's protocol has it."""
    fields = b"".join(kind + text.encode() + b"\0" for kind, text in ((b"S", severity), (b"V", "FATAL")))
    fields += b"C" + code.encode() + b"\0" + b"M" + words.encode() + b"\0\0"
    answer = b"E" + struct.pack("!I", len(fields) + 4) + fields
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        while request := client.recv(1024):
                            if request[4:8] == struct.pack("!I", 80877103):  # may it be encrypted?
                                client.sendall(b"N")
                                continue
                            client.sendall(answer)
                            break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def refusal(url: str) -> ActionError:
    """What a plan of an action says."""
    with pytest.raises(ActionError) as caught:
        contexts.plan(to_postgres(url), TerminateIdle(), TARGET)
    return caught.value


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(("code", "reason"), CODES.items())
def test_the_code_decides_while_connecting(code: str, reason: Reason | None, words: str, severity: str) -> None:
    """Whatever the words say."""
    with refusing(code, severity, words) as port:
        found = refusal(f"postgresql://robot@127.0.0.1:{port}/postgres")
    assert (TransientError if reason is None else PermanentError) is type(found)
    assert reason is None or reason is found.reason
    assert f"{words} ({code})" in found.message


def test_a_full_server_may_have_room_later(start_postgres: StartPostgres) -> None:
    """53300 is no wrong password."""
    server = start_postgres({"max_connections": "5", "superuser_reserved_connections": "3"})
    server.execute("CREATE ROLE robot LOGIN")
    url = server.database_url("postgres", "robot")
    with psycopg.connect(url), psycopg.connect(url):
        found = refusal(url)
    assert isinstance(found, TransientError)
    assert "53300" in found.message


def test_logins_and_databases_are_told_apart(start_postgres: StartPostgres) -> None:
    """A wrong password, nobody of that name, no right to connect, no such database, no password at all."""
    server = start_postgres()
    server.execute("CREATE ROLE robot LOGIN PASSWORD 'right'")
    server.execute("CREATE DATABASE closed")
    server.execute("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    rules = server.data / "pg_hba.conf"
    rules.write_text("host all postgres all trust\nhost all all all scram-sha-256\n")
    server.execute("SELECT pg_reload_conf()")
    at = f"{server.host}:{server.port}"

    def is_loaded() -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(f"postgresql://robot:wrong@{at}/postgres").close()
            return False
        return True

    wait_until(is_loaded, 10, "the rules to be read")
    found = refusal(f"postgresql://robot:wrong@{at}/postgres")
    assert Reason.FORBIDDEN is found.reason
    assert "28P01" in found.message
    assert "wrong" not in found.message
    assert Reason.FORBIDDEN is refusal(f"postgresql://robot@{at}/postgres").reason
    for login, database, code, reason in (
        ("robot:right", "nosuch", "3D000", Reason.TARGET_NOT_FOUND),
        ("robot:right", "closed", "42501", Reason.FORBIDDEN),
    ):
        target = Target(backend="postgres", key=f"postgres:main/{database}", name=database)
        with pytest.raises(PermanentError, match=code) as caught:
            contexts.plan(to_postgres(f"postgresql://{login}@{at}/{database}"), TerminateIdle(), target)
        assert reason is caught.value.reason


def test_a_standby_takes_no_writes(postgres_server: PostgresServer) -> None:
    """25006 names what to change."""
    clients = Clients(to_postgres(postgres_server.url), Scope())

    async def write() -> None:
        async with (await POSTGRES.client(clients, "main")).connect("postgres") as connection:
            await connection.fetch("SELECT set_config('default_transaction_read_only', 'on', false)")
            await connection.fetch("CREATE TABLE public.never ()")

    with pytest.raises(PermanentError, match=r"25006.*name its primary") as caught:
        run(write())
    assert Reason.FORBIDDEN is caught.value.reason
