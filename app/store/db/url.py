"""Reads the URL of the store."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.domain.errors import ConfigError
from app.domain.redaction import SECRETS
from app.store.db import sqlite

_DRIVERS = {"sqlite": sqlite.DRIVER, "postgresql": "postgresql+psycopg_async", "postgres": "postgresql+psycopg_async"}
# A network that drops packets says nothing: without these a connection waits a quarter of an hour for an answer.
_NOTICE_SILENCE = {
    "connect_timeout": "5",
    "tcp_user_timeout": "10000",  # milliseconds
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}


def store_url(text_url: str) -> URL:
    """Read a store URL (`sqlite:///file.db` or `postgresql://…`); raises ConfigError without repeating a password."""
    try:
        url = make_url(text_url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(
            "the store is not a URL; write sqlite:///path/file.db or postgresql://host/database"
        ) from error
    SECRETS.learn(url.password or "", "store")
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ConfigError(f"the store cannot be {url.drivername!r}; it is sqlite:///path/file.db or postgresql://…")
    if driver.startswith("postgresql"):
        url = url.set(query={**_NOTICE_SILENCE, **url.query})
    return url.set(drivername=driver)
