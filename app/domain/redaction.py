"""Takes the values of secrets out of every text: by value, in each form in which a target or a library repeats them.

Code that reads a secret makes it known here. Errors, audit entries, results, observations, messages, log lines and
problems are redacted where they are made. A rotated secret stays known, since a target may still repeat it.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "[hidden]"
_SHORTEST = 4  # a shorter one would be found everywhere
_WORD_LIKE = 8  # a shorter one is only found where it stands alone
_TOKEN_LIKE = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_~+=-]{16,}")
_KEYWORD = re.compile(r"\b(?:password|passwd|pwd|token|secret)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|([^\s&;]+))", re.IGNORECASE)
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_SHORT_TEXT = 256  # looked through character by character, which is faster than once for each form
_REMEMBERED = 8  # values of one source: the present one, and those before it


class Secrets:
    """The values of secrets that this process has read, by where they come from."""

    def __init__(self) -> None:
        self._values: dict[str, deque[str]] = {}
        self._pattern: re.Pattern[str] | None = None
        self._forms: tuple[str, ...] = ()
        self._beginnings: frozenset[str] = frozenset()

    def learn(self, value: str, source: str) -> None:
        """Make a secret known; `source` is its file or setting, which may hold another one later."""
        value = value.strip()
        known = self._values.setdefault(source, deque(maxlen=_REMEMBERED))
        if value in known or len(value) < _SHORTEST:
            return
        known.append(value)
        parts = {part for values in list(self._values.values()) for one in list(values) for part in _parts(one)}
        forms = sorted({form for part in parts for form in _forms(part)}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_found, forms)))
        self._forms, self._beginnings = tuple(forms), frozenset(form[:_SHORTEST] for form in forms)

    def redact(self, text: str) -> str:
        """The text without any of them."""
        return self._pattern.sub(HIDDEN, text) if self._pattern is not None and self._may_hold(text) else text

    def _may_hold(self, text: str) -> bool:
        if len(text) < _SHORT_TEXT:
            return any(text[at : at + _SHORTEST] in self._beginnings for at in range(len(text) - _SHORTEST + 1))
        return any(form in text for form in self._forms)

    def redact_cut(self, text: str) -> str:
        """The same of a text whose end may be cut off: the beginning of one that it ends with goes, too."""
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), _SHORTEST - 1, -1):
                if text.endswith(form[:length]):
                    return self.redact(text[:-length]) + HIDDEN
        return self.redact(text)

    def redact_all(self, value: Any) -> Any:
        """A JSON value without any of them, in keys neither."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {self.redact_all(key): self.redact_all(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_all(item) for item in value]
        return value


SECRETS = Secrets()
redact = SECRETS.redact
redact_all = SECRETS.redact_all


def _found(form: str) -> str:
    escaped = re.escape(form)
    return rf"(?<![A-Za-z0-9]){escaped}(?![A-Za-z0-9])" if len(form) < _WORD_LIKE else escaped


def _parts(secret: str) -> Iterator[str]:
    """Return the secret parts of a secret: of a connection URL the password, of an Apprise URL its tokens."""
    yield secret
    found = [one for pair in _KEYWORD.findall(secret) for one in pair]
    if "://" in secret:
        found += _of_url(secret)
    for part in found:
        for text in (part, unquote(part)):
            if len(text) >= _SHORTEST:
                yield text


def _of_url(url: str) -> Iterator[str]:
    try:
        parsed = urlsplit(url)
        password = parsed.password
    except ValueError:
        return
    if password:
        yield password
    elif parsed.username and _TOKEN_LIKE.fullmatch(unquote(parsed.username)):
        yield parsed.username
    values = (value for _, value in parse_qsl(parsed.query))
    for part in (*parsed.netloc.rpartition("@")[2].split(":"), *parsed.path.split("/"), *values):
        if _TOKEN_LIKE.fullmatch(unquote(part)):
            yield part


@lru_cache(maxsize=4096)
def _forms(secret: str) -> frozenset[str]:
    """A secret as it is, and as JSON, HTML, Python, URLs and Base64 write it."""
    spelled = json.dumps(secret)[1:-1]
    plain = [secret, repr(secret)[1:-1], html.escape(secret), html.escape(secret, quote=False)]
    plain += [
        spelled,
        spelled.replace("/", r"\/"),
        json.dumps(spelled)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    ]
    urls = [quote(secret, safe=""), quote(secret), quote(secret, safe="!*'()"), quote_plus(secret)]
    urls += [_ESCAPE.sub(lambda found: found[0].lower(), url) for url in urls]
    return frozenset(form for form in (*plain, *urls, *_base64(secret)) if len(form) >= _SHORTEST)


def _base64(secret: str) -> Iterable[str]:
    """Return the part of its Base64 that does not depend on the text before and after it, as in `user:password`."""
    data = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + data).decode()
        core = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield core
        yield core.translate(str.maketrans("+/", "-_"))
