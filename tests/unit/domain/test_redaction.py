"""Secrets are found in every form that others write them in."""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.redaction import HIDDEN, Secrets

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=40).map(str.strip)
_SECRET = _TEXT.filter(lambda text: len(text) >= 8)
_AROUND = st.text(alphabet="abc .:;\"'/", max_size=6)


def _of(*values: str) -> Secrets:
    secrets = Secrets()
    for value in values:
        secrets.learn(value, "file")
    return secrets


@given(secret=_SECRET, before=_AROUND, after=_AROUND, long=st.booleans())
@example(secret='Sup3r/S3cret "x" + & 1!', before="user:", after="", long=False)
def test_a_secret_is_hidden_in_every_form(secret: str, before: str, after: str, long: bool) -> None:
    """As it is, in JSON, HTML, a URL, a Python text, and within Base64 of something longer."""
    secrets = _of(secret)
    forms = {
        "plain": secret,
        "json": json.dumps(secret)[1:-1],
        "json, unescaped": json.dumps(secret, ensure_ascii=False)[1:-1],
        "json in json": json.dumps(json.dumps(secret))[3:-3],
        "url": quote(secret, safe=""),
        "path": quote(secret),
        "form": quote_plus(secret),
        "lower": re.sub("%..", lambda found: found[0].lower(), quote(secret, safe="")),
        "html": html.escape(secret),
        "python": repr(secret)[1:-1],
    }
    padding = "lorem ipsum " * 60 if long else ""
    for kind, form in forms.items():
        text = secrets.redact(f"{padding}{before}{form}{after}{padding}")
        assert form not in text, kind
        assert HIDDEN == secrets.redact(form), kind
        assert HIDDEN in text
    whole = base64.b64encode(f"{before}{secret}{after}".encode()).decode()
    assert HIDDEN in secrets.redact(f"{padding}{whole}")


def test_little_of_a_secret_is_left_in_base64() -> None:
    """Only characters that tell of the bytes beside it as well stay, whatever stands before it."""
    secret = "correct-horse-staple-x24"
    for before in ("", "u", "u:"):
        text = _of(secret).redact(base64.b64encode(f"{before}{secret}".encode()).decode())
        assert HIDDEN in text
        assert len(text) - len(HIDDEN) <= 5


@given(secret=_SECRET, cut=st.integers(4, 40), before=_AROUND)
@example(secret="correct-horse", cut=4, before="")
def test_half_a_secret_at_the_end_of_a_text_is_hidden(secret: str, cut: int, before: str) -> None:
    """Where an answer is cut off."""
    text = _of(secret).redact_cut(f"{before}{secret[:cut]}")
    assert secret[:cut] not in text.removesuffix(HIDDEN) or secret[:cut] in before


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("all is well", "all is well"),
        ("it is correct-horse", f"it is {HIDDEN}"),
        ("it is correct-hors", f"it is {HIDDEN}"),
        ("it is corr", f"it is {HIDDEN}"),
        ("it is cor", "it is cor"),
        ("correct-horse, or corr", f"{HIDDEN}, or {HIDDEN}"),
        ("corr is right", "corr is right"),
    ],
)
def test_only_the_end_of_a_text_that_was_cut_is_hidden(text: str, shown: str) -> None:
    """As far back as a secret begins, and nothing where none does."""
    assert shown == _of("correct-horse").redact_cut(text)


def test_a_rotated_secret_stays_hidden() -> None:
    """Old and new, of the same file."""
    secrets = _of("correct-horse", "battery-staple")
    for _ in range(20):  # its file is read over and over
        secrets.learn("battery-staple", "file")
        secrets.learn("abc", "file")
    assert f"{HIDDEN} {HIDDEN}" == secrets.redact("correct-horse battery-staple")


@pytest.mark.parametrize(
    ("url", "hidden", "shown"),
    [
        ("postgresql://user:p%40ss-word@db.svc/shop", ["p@ss-word", "p%40ss-word"], ["db.svc", "user", "shop"]),
        ("host=db.svc user=shop password='p@ss word'", ["p@ss word"], ["db.svc", "shop"]),
        ("redis://:correct-horse@cache.svc:6379", ["correct-horse"], ["cache.svc", "6379"]),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", ["TIiajkdnlazkcOXrIdevi7FQ"], ["slack"]),
        ("redis://:main@cache.svc:6379", ["main"], ["cache.svc"]),  # as short as a secret may be
        ("https://0123456789abcdef0123@api.svc/", ["0123456789abcdef0123"], ["api.svc"]),
        ("https://shopkeeper@api.svc/", [], ["shopkeeper", "api.svc"]),
        ("json://localhost:8080/hook?token=0123456789abcdef", ["0123456789abcdef"], ["localhost", "8080", "hook"]),
    ],
)
def test_what_is_secret_of_a_url_is_hidden_by_itself(url: str, hidden: list[str], shown: list[str]) -> None:
    """The password and tokens, also without what stands around them; never host and database."""
    secrets = _of(url)
    for one in (url, *hidden):
        assert HIDDEN == secrets.redact(one)
    for one in shown:
        assert one == secrets.redact(one)


def test_a_short_secret_hides_no_words() -> None:
    """`main` is hidden where it stands alone, and three letters are hidden nowhere."""
    secrets = _of("main", "abc")
    assert f"the domain, {HIDDEN}: abc" == secrets.redact("the domain, main: abc")


def test_nested_values_are_redacted() -> None:
    """Keys, lists and mappings; numbers and null stay."""
    value = {"correct-horse": ["a correct-horse", 1, None, {"x": ("correct-horse",)}]}
    assert {HIDDEN: [f"a {HIDDEN}", 1, None, {"x": [HIDDEN]}]} == _of("correct-horse").redact_all(value)
