"""Debian's sshd on loopback, for one user and with one key, as the user that runs the tests or an unprivileged one."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.binaries import find
from tests.support.postgres import server_user
from tests.support.processes import Process, free_port


class SshServer:
    """One server with a host key and an authorized key of its own."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.home = home
        self._user = server_user()  # who has a shell, where the tests run as root
        self.user = self._user or getpass.getuser()
        self.key = self._make("key")
        self._host_key = self._make("host")
        self._process: Process | None = None
        self.host_key = self._host_key.with_suffix(".pub").read_text().strip()

    def _make(self, name: str) -> Path:
        path = self.home / name
        subprocess.run([find("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path

    def start(self) -> None:
        """Start it and wait until it answers; it lets in whoever has `key`."""
        (self.home / "authorized").write_text(self.key.with_suffix(".pub").read_text())
        settings = {
            "ListenAddress": f"127.0.0.1:{self.port}",
            "HostKey": self._host_key,
            "AuthorizedKeysFile": self.home / "authorized",
            "PidFile": "none",
            "StrictModes": "no",  # the folders above are the test's
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
        }
        config = self.home / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        if self._user:
            for path in (self.home, *self.home.iterdir()):
                shutil.chown(path, self._user, self._user)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [find("sshd"), "-D", "-e", "-f", config]
        self._process = Process(command, self.home / "sshd.log", user=self._user, cwd=self.home)
        self._process.wait_ready(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End it."""
        if self._process:
            self._process.stop()

    def connection(self, **other: object) -> dict[str, object]:
        """Its settings under `connections.ssh`."""
        given: dict[str, object] = {"address": "127.0.0.1", "port": self.port, "user": self.user}
        return given | {"key": {"file": str(self.key)}, "host_keys": [self.host_key]} | other


@contextmanager
def serve() -> Iterator[SshServer]:
    """Run one server in a folder that its user can reach."""
    home = Path(tempfile.mkdtemp(prefix="ssh-"))
    server = SshServer(home)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)
