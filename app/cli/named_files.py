"""Looks at every file that the connections of a configuration name; `app.main` reads what the start needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel

from app.backends.connection import KubernetesConnection, SecretSource
from app.domain.errors import ConfigError
from app.settings import Settings, placed

# Which parameters of a connection's URL name a file: of libpq and of redis-py.
_IN_URLS = frozenset({"sslcert", "sslcrl", "sslkey", "sslrootcert", "passfile", "ssl_ca_certs", "ssl_certfile"})
_IN_URLS |= {"ssl_keyfile"}
_NO_FILE = frozenset({"system"})  # libpq: the authorities of the system
Found = Iterator[tuple[tuple[str | int, ...], str]]


def read(settings: Settings) -> None:
    """Raise ConfigError with each file that cannot be read or used, and the setting that names it."""
    found = [placed(settings.config_file, loc, why) for loc, why in _problems(settings.connections, ("connections",))]
    if found:
        raise ConfigError("the configuration names files that cannot be used", found)


def _problems(value: Any, loc: tuple[str | int, ...]) -> Found:
    if isinstance(value, SecretSource):
        yield from _of_secret(value, loc)
    elif isinstance(value, KubernetesConnection):
        yield from _of_kubernetes(value, (*loc, "kubeconfig"))
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _problems(getattr(value, name), (*loc, name))
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _problems(one, (*loc, name))
    elif isinstance(value, tuple):
        for number, one in enumerate(value):
            yield from _problems(one, (*loc, number))


def _of_secret(source: SecretSource, loc: tuple[str | int, ...]) -> Found:
    try:
        secret = source.read().strip()
    except ConfigError as error:
        yield (*loc, "file"), error.message
        return
    if not secret:
        yield loc, f"the secret file {source.file} is empty" if source.file else "the secret is empty"
    for name, file in _named_in(secret):
        if why := _unreadable(Path(file)):
            yield loc, f"{name} of the URL: {why}"


def _named_in(secret: str) -> list[tuple[str, str]]:
    """Return the files that a connection's URL names."""
    try:
        query = urlsplit(secret).query if "://" in secret else ""
    except ValueError:
        return []
    return [(name, value) for name, value in parse_qsl(query) if name in _IN_URLS and value not in _NO_FILE]


def _of_kubernetes(connection: KubernetesConnection, loc: tuple[str | int, ...]) -> Found:
    if connection.kubeconfig is None:
        return
    why = _unreadable(connection.kubeconfig)
    if why:
        yield loc, why
        return
    from kubernetes.aio.config import ConfigException  # noqa: PLC0415 - a second, only where there is a kubeconfig

    from app.backends.kubernetes.credentials import named_files  # noqa: PLC0415 - the same

    try:
        files = named_files(connection)
    except ConfigException as error:
        yield loc, f"{connection.kubeconfig} cannot be used: {error}"
        return
    for field, file in files.items():
        if why := _unreadable(file):
            yield loc, f"{field} in {connection.kubeconfig}: {why}"


def _unreadable(file: Path) -> str:
    """Say why a file cannot be read; empty where it can."""
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        return f"cannot read {file}: {error.strerror}"
    return ""
