"""Headers and query parameters that the configuration adds to calls: each a text, or a secret out of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from app.backends.secrets import SecretSource, is_header_value
from app.domain.credentials import is_credential_name
from app.domain.model import Value

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CREDENTIAL_NAME = re.compile(r"authori[sz]ation|cookie|token|secret|password|api-?key", re.IGNORECASE)
# Which the remediator, or the protocol, sets.
OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "idempotency-key"}
)


class _Plain(SecretSource):
    """A text in the place of a secret: it is none, and so is not hidden in other texts."""

    is_secret = False


def _in_place(headers: object) -> object:
    """A header may be plain text; with a credential's name it is kept as a secret."""
    if not isinstance(headers, Mapping):
        return headers
    return {
        name: _Plain(value=SecretStr(value))
        if isinstance(value, str) and not CREDENTIAL_NAME.search(str(name))
        else ({"value": value} if isinstance(value, str) else value)
        for name, value in headers.items()
    }


def _sendable(headers: Mapping[str, SecretSource]) -> Mapping[str, SecretSource]:
    for name, source in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"header {name!r} is set by the remediator")
        if source.value is not None and not is_header_value(source.value.get_secret_value().strip()):
            raise ValueError(f"the value of header {name!r} is empty or has characters that no HTTP header can carry")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("a header is given twice; upper and lower case do not differ")
    return headers


def _query_in_place(query: object) -> object:
    """The same of query parameters."""
    if not isinstance(query, Mapping):
        return query
    kinds = {name: SecretSource if is_credential_name(str(name)) else _Plain for name in query}
    return {
        name: kinds[name](value=SecretStr(value)) if isinstance(value, str) else value for name, value in query.items()
    }


Query = Annotated[dict[str, SecretSource], BeforeValidator(_query_in_place)]
Headers = Annotated[dict[str, SecretSource], BeforeValidator(_in_place), AfterValidator(_sendable)]


class BasicAuth(Value):
    """A user name and its password."""

    username: str
    password: SecretSource


def refuse_second_authorization(headers: Mapping[str, object], other: object) -> None:
    """Raise ValueError where `headers` authorize a call that `other` (a token or a password) authorizes already."""
    if other is not None and "authorization" in {name.lower() for name in headers}:
        raise ValueError("the header Authorization is given twice: by headers and by bearer_token or basic")
