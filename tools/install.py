"""Finds the real programs that tests and demo run, and installs those that are missing where it may.

Run as `python3 tools/install.py`; the test bed imports `locate` from here, so that both look in the same places.
It uses the standard library only, and never fails because a part cannot be had: it says which one and why.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

MODULES = Path(__file__).parent / "testbed"
POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True)
class Program:
    """One program: where a variable may point to it, and which package or Go module it comes from."""

    names: tuple[str, ...]
    variable: str = ""
    package: str = ""
    module: str = ""
    source: str = ""
    for_demo: bool = False

    @property
    def origin(self) -> str:
        """What to install to get it, in words."""
        return f"Debian package {self.package}" if self.package else f"Go package {self.source}"


def _kubernetes(name: str, source: str, module: str = "kubernetes") -> Program:
    return Program((name,), "KUBEBUILDER_ASSETS", module=module, source=source)


PROGRAMS: Mapping[str, Program] = {
    "prometheus": Program(("prometheus",), "PROMETHEUS_BIN", "prometheus", for_demo=True),
    "promtool": Program(("promtool",), "PROMTOOL_BIN", "prometheus"),
    "alertmanager": Program(
        ("prometheus-alertmanager", "alertmanager"), "ALERTMANAGER_BIN", "prometheus-alertmanager", for_demo=True
    ),
    "amtool": Program(("amtool",), "AMTOOL_BIN", "prometheus-alertmanager"),
    "initdb": Program(("initdb",), "POSTGRES_BIN_DIR", "postgresql", for_demo=True),
    "postgres": Program(("postgres",), "POSTGRES_BIN_DIR", "postgresql", for_demo=True),
    "pg_dump": Program(("pg_dump",), "POSTGRES_BIN_DIR", "postgresql"),
    "pg_restore": Program(("pg_restore",), "POSTGRES_BIN_DIR", "postgresql"),
    "pgbouncer": Program(("pgbouncer",), "PGBOUNCER_BIN", "pgbouncer"),
    "redis-server": Program(("redis-server",), "REDIS_SERVER_BIN", "redis-server", for_demo=True),
    "ip": Program(("ip",), "IP_BIN", "iproute2"),
    "openssl": Program(("openssl",), "OPENSSL_BIN", "openssl"),
    "sshd": Program(("sshd",), "SSHD_BIN", "openssh-server"),
    "ssh-keygen": Program(("ssh-keygen",), "SSH_KEYGEN_BIN", "openssh-client"),
    "docker": Program(("docker",), "DOCKER_BIN", "docker.io"),
    "dockerd": Program(("dockerd",), "DOCKERD_BIN", "docker.io"),
    "etcd": _kubernetes("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": _kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": _kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": _kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubectl": _kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    "helm": _kubernetes("helm", "helm.sh/helm/v3/cmd/helm"),
    "kwok": _kubernetes("kwok", "sigs.k8s.io/kwok/cmd/kwok", module="kwok"),
}


def cache_directory(module: str) -> Path:
    """Where the programs of a Go module are kept: another go.mod is another directory."""
    root = Path(os.environ.get("REMEDIATOR_CACHE") or Path.home() / ".cache" / "remediator")
    key = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        key.update((MODULES / module / name).read_bytes())
    return root / "bin" / f"{module}-{key.hexdigest()[:12]}"


def locate(name: str) -> Path | None:
    """The program's path, None when it is nowhere.

    A variable comes first, then PATH. The Kubernetes parts are taken from KUBEBUILDER_ASSETS or our own build only,
    because they have to fit together: the API server does without watch features that an old etcd does not have.
    """
    program = PROGRAMS[name]
    return next((path for path in _candidates(program) if path.is_file() and os.access(path, os.X_OK)), None)


def _candidates(program: Program) -> Iterator[Path]:
    given = os.environ.get(program.variable)
    if given:
        yield from (Path(given), *(Path(given) / name for name in program.names))
    for name in program.names:
        if program.module:
            yield cache_directory(program.module) / name
        elif on_path := shutil.which(name):
            yield Path(on_path)
        if program.package == "openssh-server":  # not on the PATH of everybody
            yield from (Path("/usr/sbin") / name,)
        if program.package == "postgresql":
            yield from sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)


def install_packages(packages: Sequence[str]) -> None:
    """Install Debian packages without starting their services."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_services():
        subprocess.run(["apt-get", "-qq", "update"], check=True, env=environment)
        subprocess.run(
            ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def _no_services() -> Iterator[None]:
    # invoke-rc.d asks this file before it starts a service; 101 means "not allowed".
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def build(module: str, names: Sequence[str]) -> None:
    """Build programs of a Go module into the cache; each appears there complete, or not at all."""
    target = cache_directory(module)
    target.mkdir(parents=True, exist_ok=True)
    flags = ["-mod=readonly", "-trimpath", "-ldflags", _link_flags(module)]
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        for name in names:
            subprocess.run(
                ["go", "build", *flags, "-o", f"{scratch}/{name}", PROGRAMS[name].source],
                check=True,
                cwd=MODULES / module,
                env={**os.environ, "CGO_ENABLED": "0"},
            )
            Path(scratch, name).replace(target / name)


def _link_flags(module: str) -> str:
    # A program that was not stamped with its version takes itself for v0.0.0, and clients then refuse to talk to it.
    lines = (MODULES / module / "go.mod").read_text().splitlines()
    versions = [line.split()[1] for line in lines if line.strip().startswith("k8s.io/kubernetes v")]
    if not versions:
        return "-s -w"
    major, minor, _ = versions[0].removeprefix("v").split(".", 2)
    stamps = {"gitVersion": versions[0], "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items())])


def install(*, demo: bool) -> None:
    """Install every program that cannot be found; with `demo` only those that the demo needs."""
    missing = [name for name in wanted(demo=demo) if locate(name) is None]
    packages = sorted({PROGRAMS[name].package for name in missing} - {""})
    if packages:
        _attempt(f"Debian packages {' '.join(packages)}", _why_no_packages(), partial(install_packages, packages))
    for module in sorted({PROGRAMS[name].module for name in missing} - {""}):
        names = [name for name in missing if PROGRAMS[name].module == module]
        obstacle = "" if shutil.which("go") else "there is no Go compiler"
        _attempt(f"{' '.join(names)} from source (minutes, the first time)", obstacle, partial(build, module, names))


def wanted(*, demo: bool) -> list[str]:
    """The programs that a run needs."""
    return [name for name, program in PROGRAMS.items() if program.for_demo or not demo]


def _why_no_packages() -> str:
    if not shutil.which("apt-get"):
        return "there is no apt-get"
    return "" if os.geteuid() == 0 else "only root may install packages"


def _attempt(what: str, obstacle: str, work: Callable[[], None]) -> None:
    if obstacle:
        _say(f"cannot install {what}: {obstacle}")
        return
    _say(f"installing {what}")
    began = time.monotonic()
    try:
        work()
    except (subprocess.CalledProcessError, OSError) as error:
        _say(f"could not install {what}: {error}")
    else:
        _say(f"installed in {time.monotonic() - began:.0f} s")


def _say(message: str) -> None:
    print(f"test bed: {message}", flush=True)


def main() -> int:
    """Install what is missing, then name what is still not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--demo", action="store_true", help="only what the demo needs: Debian packages, no Go build")
    arguments = parser.parse_args()
    install(demo=arguments.demo)
    for name in wanted(demo=arguments.demo):
        if locate(name) is None:
            _say(f"{name} is not here ({PROGRAMS[name].origin}); what needs it is skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
