"""A real PgBouncer on loopback, in front of a PostgreSQL server; it runs as the user that the server runs as."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.support.binaries import find
from tests.support.postgres import SUPERUSER, PostgresServer, server_user
from tests.support.processes import Process, free_port

INI = """
[databases]
* = host={host} port={server} {forced}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = {auth}
auth_file = {home}/users
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
server_idle_timeout = 600
admin_users = postgres
{more}
"""


@contextmanager
def serve(
    server: PostgresServer, mode: str = "transaction", *, size: int = 2, user: str = "", more: str = ""
) -> Iterator[int]:
    """Pool connections to a server; with `user` all sessions there are of that one. Yields the port."""
    home = Path(tempfile.mkdtemp(prefix="remediator-pgb-"))
    port, account = free_port(), server_user()
    text = INI.format(
        host=server.host,
        server=server.port,
        port=port,
        home=home,
        mode=mode,
        size=size,
        more=more,
        auth="any" if user else "trust",
        forced=f"user={user}" if user else "",
    )
    (home / "pgbouncer.ini").write_text(text)
    roles = server.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin")
    (home / "users").write_text("".join(f'"{name}" ""\n' for (name,) in roles))
    if account:
        for path in (home, *home.iterdir()):
            shutil.chown(path, account, account)
    process = Process([find("pgbouncer"), home / "pgbouncer.ini"], home / "pgbouncer.log", user=account, cwd=home)
    try:
        process.wait_ready(lambda: _answers(port))
        yield port
    finally:
        process.stop()
        shutil.rmtree(home)


def _answers(port: int) -> bool:
    try:
        psycopg.connect(host="127.0.0.1", port=port, user=SUPERUSER, dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
