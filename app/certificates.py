"""Serves with certificates, and takes changed ones up without a restart."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import structlog

from app.domain.errors import ConfigError
from app.settings import TlsSettings

_LOOK_SECONDS = 2.0
log = structlog.get_logger()


def server_options(tls: TlsSettings) -> dict[str, Any]:
    """Return uvicorn's TLS settings; raises ConfigError where a file cannot be used."""
    if tls.cert_file is None or tls.key_file is None:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, tls)
    options: dict[str, Any] = {"ssl_certfile": tls.cert_file, "ssl_keyfile": tls.key_file}
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls.client_ca_file {tls.client_ca_file} cannot be used: {_why(error)}") from error
        options |= {"ssl_ca_certs": str(tls.client_ca_file), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


async def follow(context: ssl.SSLContext, tls: TlsSettings) -> None:
    """Load the certificate again whenever its files change, until cancelled; connections that stand keep theirs."""
    seen = _stamps(tls)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        now = _stamps(tls)
        if now == seen:
            continue
        try:
            _load(context, tls)
        except ConfigError as error:  # half written, say; the one that is loaded stays
            log.warning("the certificate was not taken up", error=error.message)
            continue
        seen = now
        log.info("certificate loaded", file=str(tls.cert_file))


def _load(context: ssl.SSLContext, tls: TlsSettings) -> None:
    try:
        context.load_cert_chain(str(tls.cert_file), str(tls.key_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls.cert_file {tls.cert_file} and tls.key_file cannot be used: {_why(error)}") from error


def _why(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__


def _stamps(tls: TlsSettings) -> list[tuple[int, int]]:
    """Changes with the files, also where Kubernetes swaps the link that they are behind."""
    return [_stamp(file) for file in (tls.cert_file, tls.key_file) if file is not None]


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)
