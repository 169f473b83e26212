"""Which names belong to credentials, as far as a name can tell: of query parameters in URLs."""

from __future__ import annotations

import re

_WORDS = frozenset(
    {
        *("auth", "authorization", "apikey", "credential", "credentials", "jwt", "key", "passphrase", "passwd"),
        *("password", "pwd", "secret", "sig", "signature", "token"),
    }
)
_ENDS = ("apikey", "password", "secret", "signature", "token")
_BETWEEN = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")


def is_credential_name(name: str) -> bool:
    """Whether a query parameter of this name holds a credential: `token`, `api_key`, `X-Amz-Signature`."""
    words = [word.lower() for word in _BETWEEN.split(name) if word]
    return not _WORDS.isdisjoint(words) or "".join(words).endswith(_ENDS)
