"""Looks at every file that the connections of a configuration name; `app.main` reads the files for the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel

from app.backends.registry import backends
from app.backends.secrets import SecretSource, unreadable
from app.domain.errors import ConfigError
from app.settings import Settings, placed

# The parameters of a connection's URL that name a file.
_IN_URLS = frozenset({"sslcert", "sslcrl", "sslkey", "sslrootcert", "passfile", "ssl_ca_certs", "ssl_certfile"})
_IN_URLS |= {"ssl_keyfile"}
_NO_FILE = frozenset({"system"})  # libpq: the authorities of the system
Found = Iterator[tuple[tuple[str | int, ...], str]]


def read(settings: Settings) -> None:
    """Raise ConfigError with each file that cannot be read or used, and the setting that names it."""
    named = [*_problems(settings.connections, ("connections",)), *_of_backends(settings)]
    found = [placed(settings.config_file, loc, why) for loc, why in named]
    if found:
        raise ConfigError("the configuration names files that cannot be used", found)


def _of_backends(settings: Settings) -> Found:
    for name, backend in backends().items():
        for instance, connection in settings.connections.of(name).items():
            for field, why in backend.file_problems(connection):
                yield ("connections", name, instance, field), why


def _problems(value: Any, loc: tuple[str | int, ...]) -> Found:
    if isinstance(value, SecretSource):
        yield from _of_secret(value, loc)
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
        if why := unreadable(Path(file)):
            yield loc, f"{name} of the URL: {why}"


def _named_in(secret: str) -> list[tuple[str, str]]:
    """The files that a connection's URL names."""
    try:
        query = urlsplit(secret).query if "://" in secret else ""
    except ValueError:
        return []
    return [(name, value) for name, value in parse_qsl(query) if name in _IN_URLS and value not in _NO_FILE]
