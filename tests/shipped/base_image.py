"""What an image needs that cannot be pulled: a base image of this machine's Python, and wheels of the dependencies."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.binaries import unavailable
from tests.support.docker import DockerEngine, with_libraries

ROOT = Path(__file__).parents[2]
LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "idlelib", "lib2to3", "tkinter"}
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"usr/local/lib/{VERSION}"


def import_base(engine: DockerEngine, tag: str, scratch: Path) -> None:
    """Make an image with this interpreter in /usr/local, pip and a shell, laid out as the official Python image is."""
    archive = scratch / "base.tar"
    with tarfile.open(archive, "w", dereference=True) as tar:
        files = dict(sorted((name, source) for source, name in _files()))
        # A directory without an entry of its own would be open to root alone.
        for folder in sorted({str(folder) for name in files for folder in Path(name).parents} - {"."}):
            _add(tar, folder, tarfile.DIRTYPE, 0o755)
        for name, source in files.items():
            tar.add(source, name, recursive=False)
        for name in ("python", "python3"):
            _add(tar, f"usr/local/bin/{name}", tarfile.SYMTYPE, 0o777, VERSION)
        _add(tar, "tmp", tarfile.DIRTYPE, 0o1777)
    engine.run("import", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", str(archive), tag)
    archive.unlink()


def _files() -> Iterator[tuple[Path, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    interpreter = Path(sys.executable).resolve()
    yield interpreter, f"usr/local/bin/{VERSION}"
    yield from _below(library, LIBRARY)
    yield from _below(_package("pip"), f"{LIBRARY}/site-packages/pip")
    # What the dependencies' wheels expect of a machine is what they find on this one.
    extensions = [path for root in (library / "lib-dynload", Path(sys.prefix) / "lib") for path in root.rglob("*.so")]
    for found in with_libraries("/bin/sh", "/bin/mkdir", interpreter, *extensions):
        if "libpython" in found:
            yield Path(found), f"usr/lib/{Path(found).name}"
        elif not found.startswith((str(interpreter), str(library), sys.prefix)):
            yield Path(found), found.lstrip("/")


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        unavailable(f"this Python has no {name} to put into a base image")
    return Path(spec.origin).parent


def _below(directory: Path, name: str) -> Iterator[tuple[Path, str]]:
    for folder, folders, files in os.walk(directory):
        folders[:] = [one for one in folders if one not in LEFT_OUT and not one.startswith("config-")]
        place = Path(name) / Path(folder).relative_to(directory)
        yield from ((Path(folder) / file, str(place / file)) for file in files)


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname = kind, mode, link
    tar.addfile(entry)


def wheelhouse() -> Path:
    """A directory with wheels of everything that building and running needs, downloaded once for each set of pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    constraints = ROOT / "constraints.txt"
    pins = ["--constraint", str(constraints)] if constraints.is_file() else []
    pinned = constraints.read_text(encoding="utf-8") if pins else ""
    key = hashlib.sha256("\n".join([VERSION, *wanted, pinned]).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("REMEDIATOR_CACHE") or Path.home() / ".cache" / "remediator")
    target = cache / f"wheels-{key}"
    if not target.is_dir():
        _download(target, [*pins, *wanted])
    return target


def _download(target: Path, wanted: Sequence[str]) -> None:
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(scratch)]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unavailable(f"pip cannot download the wheels of the image: {done.stderr.strip().splitlines()[-1]}")
    scratch.replace(target)
