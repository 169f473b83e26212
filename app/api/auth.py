"""The rights of clients: bearer tokens, or the same tokens as basic auth passwords, each with a role.

Routes ask for a role with `Depends(require(...))`. Without any token everything is open; `app.settings` then allows no
address but loopback. Tokens in files are read again when their file changes. No token gets into a log or an answer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

import structlog
from fastapi import Depends, Request
from fastapi.security.http import HTTPAuthorizationCredentials, HTTPBase

from app.api.problems import ProblemError, ProblemReason
from app.domain.errors import ConfigError

ANONYMOUS = "anonymous"
_CHALLENGE = 'Bearer realm="remediator", Basic realm="remediator", charset="UTF-8"'
log = structlog.get_logger()


class Role(StrEnum):
    """The rights of a token's bearer."""

    ALERTMANAGER = "alertmanager"  # post notifications, nothing else
    VIEWER = "viewer"
    APPROVER = "approver"
    ADMIN = "admin"

    def may(self, needed: Role) -> bool:
        """Whether this role includes the other one."""
        return needed in _INCLUDES[self]


_INCLUDES: dict[Role, frozenset[Role]] = {
    Role.ALERTMANAGER: frozenset({Role.ALERTMANAGER}),
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.APPROVER: frozenset({Role.VIEWER, Role.APPROVER}),
    Role.ADMIN: frozenset(Role),
}


class Token(Protocol):
    """A configured token: a secret with a name and a role."""

    @property
    def name(self) -> str:
        """The actor in the audit."""

    @property
    def role(self) -> str:
        """One of Role."""

    @property
    def file(self) -> Path | None:
        """Where the secret is, unless it was given in place."""

    def read(self, setting: str = "") -> str:
        """The secret; raises ConfigError that names the setting."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The sender of a request."""

    name: str
    role: Role


class _Known:
    """A token with the digest of its secret, kept until its file changes."""

    def __init__(self, token: Token) -> None:
        self.identity = Identity(token.name, Role(token.role))
        self._token = token
        self._stamp: tuple[int, ...] | None = None
        self._digest: bytes | None = None

    def digest(self) -> bytes | None:
        """Return the secret's digest now; None while the secret cannot be read, and then it lets no client in."""
        stamp = self._file_stamp()
        if self._digest is None or stamp != self._stamp:
            self._stamp, self._digest = stamp, self._read()
        return self._digest

    def _file_stamp(self) -> tuple[int, ...]:
        if self._token.file is None:
            return ()
        try:
            status = self._token.file.stat()
        except OSError:
            return (0,)
        return (status.st_mtime_ns, status.st_ino, status.st_size)

    def _read(self) -> bytes | None:
        try:
            secret = self.checked()
        except ConfigError as error:
            log.warning("a token cannot be used", name=self.identity.name, error=error.message)
            return None
        return hashlib.sha256(secret.encode()).digest()

    def checked(self) -> str:
        """The secret; raises ConfigError when there is none."""
        secret = self._token.read(f"auth.tokens {self.identity.name!r}").strip()
        if not secret:
            raise ConfigError(f"the secret of token {self.identity.name!r} is empty")
        return secret


class Authenticator:
    """Finds whose token a request carries, in a time that does not depend on how much of it is right."""

    def __init__(self, tokens: Sequence[Token] = ()) -> None:
        self._known = tuple(_Known(token) for token in tokens)

    @property
    def is_open(self) -> bool:
        """Say whether clients need no token."""
        return not self._known

    def check(self) -> None:
        """Raise ConfigError unless every secret can be read; for the start, where a mistake should be loud."""
        holders: dict[str, str] = {}
        for known in self._known:
            other = holders.setdefault(known.checked(), known.identity.name)
            if other != known.identity.name:
                raise ConfigError(f"the tokens {other!r} and {known.identity.name!r} have the same secret")

    def identify(self, authorization: str | None) -> Identity | None:
        """The bearer of the token in an Authorization header, or None."""
        if self.is_open:
            return Identity(ANONYMOUS, Role.ADMIN)
        presented = _secret(authorization or "")
        if not presented:
            return None
        digest = hashlib.sha256(presented).digest()
        found: Identity | None = None
        for known in self._known:  # all of them, always
            expected = known.digest()
            if expected is not None and hmac.compare_digest(digest, expected):
                found = known.identity
        return found


def _secret(authorization: str) -> bytes:
    """The token that a header carries: after `Bearer`, or as the password of `Basic`."""
    scheme, _, rest = authorization.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest.encode("latin-1", "replace")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(rest, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


_bearer = HTTPBase(scheme="bearer", scheme_name="bearer", auto_error=False, description="A configured token.")
_basic = HTTPBase(scheme="basic", scheme_name="basic", auto_error=False, description="The token is the password.")
_Credentials = HTTPAuthorizationCredentials | None


async def documented(
    _bearer: Annotated[_Credentials, Depends(_bearer)], _basic: Annotated[_Credentials, Depends(_basic)]
) -> None:
    """Put both ways of sending a token into the OpenAPI document; `authorize` reads the header itself."""


def authorize(request: Request, needed: Role) -> Identity:
    """Return the sender of this request; raises a problem when it has no right."""
    auth: Authenticator = request.app.state.services.auth
    identity = auth.identify(request.headers.get("authorization"))
    if identity is None:
        detail = "no valid token; send it as `Authorization: Bearer <token>` or as a basic auth password"
        headers = {"WWW-Authenticate": _CHALLENGE}
        raise ProblemError(401, ProblemReason.UNAUTHENTICATED, detail, headers=headers)
    if not identity.role.may(needed):
        detail = f"this needs the role {needed}; the token {identity.name!r} has the role {identity.role}"
        raise ProblemError(403, ProblemReason.FORBIDDEN, detail)
    request.state.known = True  # app.door keeps such a connection before others
    return identity


def require(needed: Role) -> Callable[..., Awaitable[Identity]]:
    """A dependency that lets only this role (or one that includes it) pass."""

    async def dependency(request: Request, _documented: Annotated[None, Depends(documented)]) -> Identity:
        try:
            return authorize(request, needed)
        except ProblemError as problem:
            _log_refusal(request, problem)
            raise

    return dependency


def _log_refusal(request: Request, problem: ProblemError) -> None:
    """Name the route by its template, since a path may hold any text."""
    log.warning(
        "request refused",
        status=problem.status,
        reason=problem.reason,
        method=request.method,
        route=request.scope["route"].path,
        client=request.client.host if request.client else "",
    )


Viewer = Annotated[Identity, Depends(require(Role.VIEWER))]
Approver = Annotated[Identity, Depends(require(Role.APPROVER))]
Admin = Annotated[Identity, Depends(require(Role.ADMIN))]
