"""A real PostgreSQL server on loopback: fsync off, everybody trusted, its data gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.support.binaries import find
from tests.support.processes import Process, free_port

SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
SUPERUSER = "postgres"


class PostgresServer:
    """One server; `stop` and `start` make an outage, the data stays."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self._home = home
        self._settings = {**SETTINGS, **settings}
        self._process: Process | None = None
        self._writer = 0  # the process that `hold_writer` has stopped
        self._user = server_user()

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self._home / "data"

    @property
    def url(self) -> str:
        """The superuser's URL of the database `postgres`."""
        return self.database_url("postgres")

    def database_url(self, database: str, user: str = SUPERUSER) -> str:
        """A libpq URL of one database, by default for the superuser."""
        return f"postgresql://{user}@{self.host}:{self.port}/{database}"

    def initialize(self) -> None:
        """Make the data directory."""
        if self._user:
            shutil.chown(self._home, self._user, self._user)
        command = [
            str(find("initdb")),
            "--pgdata",
            str(self._home / "data"),
            "--username",
            SUPERUSER,
            "--auth",
            "trust",
        ]
        command += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        groups: list[str] | None = [] if self._user else None
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            cwd=self._home,
            user=self._user,
            group=self._user,
            extra_groups=groups,
        )
        with (self._home / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")

    def start(self) -> None:
        """Start the server on its port and wait until it takes connections."""
        settings = {"listen_addresses": self.host, **self._settings, "unix_socket_directories": str(self._home)}
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self._process = Process(
            [find("postgres"), "-D", self._home / "data", "-p", str(self.port), *options],
            self._home / "postgres.log",
            user=self._user,
            cwd=self._home,
            stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
        )
        self._process.wait_ready(self._takes_connections)

    @property
    def pid(self) -> int | None:
        """The process's id while it is started."""
        return self._process.pid if self._process else None

    def stop(self) -> None:
        """Stop the server; its clients are cut off."""
        self._signal_writer(signal.SIGCONT)
        if self._process:
            self._process.stop()

    def hold_writer(self) -> None:
        """Have commits that wait for the disk write the log, and nothing else, until the server ends."""
        ((self._writer,),) = self.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        os.kill(self._writer, signal.SIGSTOP)

    def _signal_writer(self, number: signal.Signals) -> None:
        if self._writer:
            os.kill(self._writer, number)
            self._writer = 0

    def crash(self) -> None:
        """End it at once, without what it has not written; its machine lives on."""
        if self._process:
            self._process.send(signal.SIGQUIT)
            self._signal_writer(signal.SIGKILL)
            self._process.wait()
            self._process.stop()

    def take_place_of(self, other: PostgresServer) -> None:
        """Stop both and start this one where the other one was reached."""
        other.stop()
        self.stop()
        self.port = other.port
        self.start()

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser; its rows, if it has any."""
        with psycopg.connect(self.database_url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def count_on(self, transactions: int) -> None:
        """Use up so many numbers of transactions, as a server does in weeks."""
        self.execute(
            f"DO $$ BEGIN FOR i IN 1..{transactions} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )

    def dump(self) -> bytes:
        """What `pg_dump` makes of the database `postgres`."""
        return subprocess.run([find("pg_dump"), "-Fc", self.url], check=True, capture_output=True).stdout

    def restore(self, dump: bytes) -> None:
        """Put a dump into the database `postgres`, as `pg_restore` does."""
        command = [find("pg_restore"), "--exit-on-error", "-d", self.url]
        subprocess.run(command, check=True, capture_output=True, input=dump)

    @contextmanager
    def database(self) -> Iterator[str]:
        """A fresh database with a random name, dropped afterwards; yields its name."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _takes_connections(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def serve(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """Run a server with these settings on top of the test bed's own."""
    # Not below pytest's own directory: only its owner may enter that, and a socket's path has to be short.
    home = Path(tempfile.mkdtemp(prefix="remediator-pg-"))
    server = PostgresServer(home, settings or {})
    try:
        server.initialize()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


def server_user() -> str | None:
    """The user to run as, since PostgreSQL refuses to run as root; None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
