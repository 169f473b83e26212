"""One host over SSH: a connection for each command, a pinned host key, and nothing of the user's own ~/.ssh.

Leaves this module with errors of app.domain.errors only. Output is bounded while it arrives, and redacted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import asyncssh

from app.domain.errors import OutcomeUnknownError, PermanentError, TransientError
from app.domain.reasons import Reason
from app.domain.redaction import SECRETS
from remediator_ssh.backend import SshConnection

_KEPT_BYTES = 4096  # of each stream
_CHUNK = 16_384


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and the first of what it said."""

    status: int
    output: str
    errors: str


class SshClient:
    """Runs commands on one host."""

    def __init__(self, connection: SshConnection, timeout: timedelta) -> None:
        self._connection = connection
        self._timeout = timeout.total_seconds()

    async def log_in(self) -> None:
        """Connect and log in; raises TransientError or PermanentError where that is not possible."""
        async with self._connected():
            pass

    async def run(self, command: str) -> Ended:
        """Run a command, and wait for its end for as long as the caller does.

        Raises TransientError when it was not begun, OutcomeUnknownError when the host did not say how it ended.
        """
        async with self._connected() as connection:
            try:
                async with connection.create_process(command, encoding=None, stdin=asyncssh.DEVNULL) as process:
                    output, errors = await asyncio.gather(_first(process.stdout), _first(process.stderr))
                    await process.wait_closed()
            except (asyncssh.Error, OSError) as error:
                raise OutcomeUnknownError(f"the connection to {self._where} broke: {_why(error)}") from error
        if process.exit_status is None:
            raise OutcomeUnknownError(f"{self._where} did not say how the command ended")
        return Ended(process.exit_status, _shown(output), _shown(errors))

    @property
    def _where(self) -> str:
        return f"{self._connection.address}:{self._connection.port}"

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncssh.SSHClientConnection]:
        connection = await self._open()
        try:
            yield connection
        finally:
            connection.abort()

    async def _open(self) -> asyncssh.SSHClientConnection:
        given, pinned, key = self._connection, self._pinned(), self._key()
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncssh.connect(
                    given.address,
                    given.port,
                    username=given.user,
                    client_keys=[key],
                    known_hosts=(pinned, [], []),
                    server_host_key_algs=sorted({one.get_algorithm() for one in pinned} - {"ssh-rsa"}) or "default",
                    preferred_auth="publickey",
                    config=[],
                    agent_path=None,
                )
        except TimeoutError as error:
            raise TransientError(f"{self._where} did not answer within {self._timeout:g} s") from error
        except asyncssh.HostKeyNotVerifiable as error:
            message = f"{self._where} shows a host key that is none of host_keys; compare it before you change anything"
            raise PermanentError(message, reason=Reason.FORBIDDEN) from error
        except asyncssh.PermissionDenied as error:
            message = f"{self._where} did not accept the key of user {given.user}"
            raise PermanentError(message, reason=Reason.FORBIDDEN) from error
        except asyncssh.KeyExchangeFailed as error:
            message = f"{self._where} has no host key of the kinds in host_keys"
            raise PermanentError(message, reason=Reason.FORBIDDEN) from error
        except (asyncssh.Error, OSError) as error:
            raise TransientError(f"cannot connect to {self._where}: {_why(error)}") from error

    def _key(self) -> asyncssh.SSHKey:
        try:
            return asyncssh.import_private_key(self._connection.key.read() + "\n")
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            message = f"the key of {self._where} is no private key without a passphrase"
            raise PermanentError(message, reason=Reason.CONFIG_INVALID) from error

    def _pinned(self) -> Sequence[asyncssh.SSHKey]:
        try:
            return [asyncssh.import_public_key(one) for one in self._connection.host_keys]
        except asyncssh.KeyImportError as error:
            message = f"host_keys of {self._where} has an entry that is no public key; write: ssh-ed25519 AAAA..."
            raise PermanentError(message, reason=Reason.CONFIG_INVALID) from error


async def _first(stream: asyncssh.SSHReader[bytes]) -> bytes:
    """The first bytes of a stream; the rest is read and thrown away, so that the command does not block."""
    kept = bytearray()
    while chunk := await stream.read(_CHUNK):
        kept += chunk[: _KEPT_BYTES - len(kept)]
    return bytes(kept)


def _shown(output: bytes) -> str:
    """Output for people and for any store, without known secrets."""
    text = output.decode("utf-8", errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    return SECRETS.redact_cut(text)


def _why(error: Exception) -> str:
    """The kind of an error; the text of one that came over the network may hold anything."""
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return type(error).__name__
