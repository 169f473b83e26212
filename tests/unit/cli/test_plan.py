"""What `remediator plan --alert` reads, and what it says when it cannot."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.cli.planning import describe, read_alerts
from app.domain.errors import ConfigError
from app.domain.plans import Plan, PlannedStep, Target
from app.engine.explain import Explanation, Prospect
from tests.support.alerts import alert, notification

GETTABLE = {
    "annotations": {"summary": "It is down."},
    "endsAt": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    "fingerprint": "f1",
    "receivers": [{"name": "remediator"}],
    "startsAt": "2026-03-01T12:00:00.000Z",
    "status": {"inhibitedBy": [], "mutedBy": [], "silencedBy": ["s"], "state": "suppressed"},
    "updatedAt": "2026-03-01T12:00:00.000Z",
    "generatorURL": "",
    "labels": {"alertname": "Down"},
}


def _read(document: Any) -> list[tuple[str, str, bool]]:
    return [
        (one.labels["alertname"], one.fingerprint, one.is_firing) for one in read_alerts(json.dumps(document).encode())
    ]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([GETTABLE], [("Down", "f1", True)]),
        (GETTABLE, [("Down", "f1", True)]),
        ([GETTABLE | {"endsAt": "2026-03-01T12:01:00.000Z"}], [("Down", "f1", False)]),
        ([GETTABLE | {"endsAt": None, "annotations": None}], [("Down", "f1", True)]),
        ([{"labels": {}, "receiver": {"name": "r"}, "alerts": [GETTABLE]}], [("Down", "f1", True)]),
        (json.loads(notification(alert(fingerprint="f2"))), [("Down", "f2", True)]),
        ({"body": json.loads(notification(alert(fingerprint="f2")))}, [("Down", "f2", True)]),
        ({"labels": {"alertname": "Down"}}, [("Down", "0fc3d9d4ed0bdb2f", True)]),
        ([], []),
        (None, []),
    ],
)
def test_alerts_are_read_as_alertmanager_writes_them(document: Any, expected: list[Any]) -> None:
    """One, several, of its API, in groups, or a notification."""
    found = _read(document)
    assert [(name, firing) for name, _, firing in expected] == [(name, firing) for name, _, firing in found]
    assert [one for _, one, _ in found if one in {"f1", "f2"}] == [one for _, one, _ in expected if one in {"f1", "f2"}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"labels: {}", "--alert: not JSON: Expecting value: line 1 column 1"),
        (b"Alertname  Starts At  Summary", "(char 0); amtool prints JSON with -o json"),
        (b"[1]", "--alert: not an alert or notification of Alertmanager: 1 is none"),
        (json.dumps([GETTABLE, {"label": {}}]).encode(), "alert 2 of 2: labels: Field required"),
        (b'{"labels": {"a": 1}}', "labels.a: Input should be a valid string"),
    ],
)
def test_what_is_no_alert_is_named(text: bytes, told: str) -> None:
    """With its number where there are several."""
    with pytest.raises(ConfigError) as caught:
        read_alerts(text)
    assert told in caught.value.message


def test_many_sessions_are_a_short_table() -> None:
    """No line is longer than a terminal is wide, and the rest is counted."""
    sessions = [
        {"pid": 4000 + one, "user": "app", "application": "web-frontend", "state": "idle", "idle_seconds": 7200}
        for one in range(28)
    ]
    step = PlannedStep(
        action="postgres.terminate_idle",
        summary="end 28 sessions of database orders idle for 10m or longer",
        before={"connections": 40, "idle": 30, "qualifying": 28, "selected": sessions},
        desired={"terminated": [[one["pid"], "2026-03-01T10:00:00.000000+00:00"] for one in sessions]},
    )
    plan = Plan(rung=0, target=Target(backend="postgres", key="postgres:main/orders"), steps=(step,))
    prospect = Prospect(remediation="idle", summary="s", verdict="would_run", plan=plan)
    lines = describe(Explanation(labels={"alertname": "Idle"}, status="firing", prospects=(prospect,))).splitlines()
    assert (True, True) == (len(lines) < 25, max(map(len, lines)) <= 100)
    assert "        and 18 more" in lines
