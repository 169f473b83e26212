"""A real Docker engine: the one that DOCKER_HOST names, else one of our own with its own socket and data.

The engine of the test bed has no bridge network: containers run with `--network=host` or `--network=none`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.binaries import find, unavailable
from tests.support.processes import Process


class DockerEngine:
    """One engine, driven through its command line."""

    def __init__(self, host: str) -> None:
        self.host = host

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker <words>`; a failure shows what docker said, unless it is expected."""
        # BuildKit is no part of Debian's package; the engine's own builder needs no plugin.
        environment = {**os.environ, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0"}
        command = [str(find("docker")), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def answers(self) -> bool:
        """Whether the engine is there."""
        return self.run("version", check=False).returncode == 0

    def import_image(self, tag: str, paths: Sequence[Path | str], changes: Sequence[str] = ()) -> None:
        """Make an image out of files of this machine, so that nothing has to be pulled.

        `changes` are Dockerfile instructions such as `ENTRYPOINT ["/bin/sh"]`.
        """
        words = [word for change in changes for word in ("--change", change)]
        archive = ["tar", "--create", "--absolute-names", "--dereference", "--hard-dereference"]
        with subprocess.Popen([*archive, *map(str, paths)], stdout=subprocess.PIPE) as tar:
            environment = {**os.environ, "DOCKER_HOST": self.host}
            command = [str(find("docker")), "import", *words, "-", tag]
            subprocess.run(command, stdin=tar.stdout, env=environment, capture_output=True, check=True)
        assert tar.returncode == 0, "tar failed; its message is above"


@contextmanager
def serve() -> Iterator[DockerEngine]:
    """Use the engine that DOCKER_HOST names, or run one for the session."""
    given = os.environ.get("DOCKER_HOST")
    if given:
        yield DockerEngine(given)
        return
    if os.geteuid() != 0:
        unavailable("a Docker engine of our own needs root, and DOCKER_HOST names no other")
    # Outside of pytest's directory: a socket's path has to be short, and old runs keep no layers.
    home = Path(tempfile.mkdtemp(prefix="remediator-docker-"))
    engine = DockerEngine(f"unix://{home}/docker.sock")
    process = _start(home)
    try:
        process.wait_ready(engine.answers, timeout=60)
        yield engine
    finally:
        process.stop(timeout=30)
        shutil.rmtree(home, ignore_errors=True)


def _start(home: Path) -> Process:
    config = home / "daemon.json"
    config.write_text(
        json.dumps(
            {
                "hosts": [f"unix://{home}/docker.sock"],
                "data-root": str(home / "data"),
                "exec-root": str(home / "exec"),
                "pidfile": str(home / "docker.pid"),
                "storage-driver": "vfs",
                "bridge": "none",
                "iptables": False,
                "ip6tables": False,
            }
        )
    )
    return Process([find("dockerd"), "--config-file", config], home / "dockerd.log")


def with_libraries(*programs: Path | str) -> list[str]:
    """Programs and the shared libraries that they load, as paths for `import_image`."""
    found = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True).stdout
    libraries = {word for word in found.split() if word.startswith("/") and not word.endswith(":")}
    return sorted(libraries | {str(program) for program in programs})
