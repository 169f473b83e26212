"""What a webhook body may hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.domain.alerts import fingerprint_of, parse_notification
from tests.support.alerts import alert, notification

CAPTURED = Path(__file__).parents[2] / "testdata" / "notifications"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\u0000b", "a\ufffdb"),
        (r"\u0000\u0000", "\ufffd\ufffd"),
        (r"\\u0000", r"\u0000"),
        (r"\\\u0000", "\\\ufffd"),
        (r"\\\\u0000", r"\\u0000"),
    ],
)
def test_a_nul_becomes_the_replacement_character(written: str, read: str) -> None:
    """Only a NUL is replaced, not a text that looks like its escape."""
    body = notification(alert(text="HERE")).replace(b"HERE", written.encode())
    assert read == parse_notification(body).alerts[0].labels["text"]


def test_a_nul_in_a_name_is_replaced_too() -> None:
    """Label names are stored as well."""
    body = notification(alert(HERE="x")).replace(b"HERE", rb"a\u0000")
    assert "x" == parse_notification(body).alerts[0].labels["a\ufffd"]


def test_fields_of_later_releases_are_accepted() -> None:
    """Alertmanager adds fields without a new version."""
    body = json.loads(notification(alert())) | {"notification_reason": "repeat", "routeLabels": {}}
    assert 1 == len(parse_notification(json.dumps(body).encode()).alerts)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"version": "3"}',
        b'\xff\xfe{"version": "4"}',
        notification(alert()).replace(b"firing", b"pending"),
        notification(alert(fingerprint="NOT-HEX")),
        notification(alert(text="HERE")).replace(b"HERE", rb"\ud800"),
        b"[" * 100_000,
    ],
)
def test_what_is_no_notification_is_refused(body: bytes) -> None:
    """Nothing but a ValidationError leaves the parser."""
    with pytest.raises(ValidationError):
        parse_notification(body)


def test_fingerprints_are_those_of_alertmanager() -> None:
    """Of every alert that one ever sent to us."""
    captured = [json.loads(file.read_text(encoding="utf-8"))["body"] for file in sorted(CAPTURED.glob("*.json"))]
    alerts = [one for body in captured for one in body["alerts"]]
    assert len(alerts) > 10
    assert [one["fingerprint"] for one in alerts] == [fingerprint_of(one["labels"]) for one in alerts]
