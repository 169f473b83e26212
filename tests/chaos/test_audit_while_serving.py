"""The audit is verified again and again beside replicas that fold runs, seal, and delete what is old."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from app.store.audit.verify import Report, verify
from app.store.db.database import Database
from tests.chaos.conftest import SOAK, MakeReplicas, Replicas
from tests.chaos.test_replicas import verified
from tests.support import web
from tests.support.aio import run
from tests.support.alerts import alert, notification
from tests.support.entries import poke, request
from tests.support.hurried import hurried
from tests.support.redis import RedisServer

SECONDS = 600.0 if SOAK else 10.0
A_SECOND = 10  # alerts
TARGETS = 3
KEPT_SECONDS = 2
# What comes every ten minutes, of what is seven days old.
SOON = {"app.settings._SHORTEST_RETENTION": 1.0, "app.engine.background.housekeeping._PRUNE_SECONDS": 0.3}
_JSON = {"Content-Type": "application/json"}
LIMITS = {"cooldown": "0s", "rate": "100000/1h", "storm": "100000/10m", "target_rate": "100000/1h"}


def test_every_look_at_the_audit_says_that_it_is_intact(
    replicas: MakeReplicas, sink: web.WebServer, redis_server: RedisServer
) -> None:
    """Ten alerts a second, most of which share a run; they end while their runs are being deleted."""
    target = {"redis": {"instance": "cache", "database": "{{ labels.shard }}"}}
    group = replicas(
        poke(sink, target=target, steps=[request(sink, "/{{ labels.shard }}")], limits=LIMITS),
        connections={"redis": {"cache": {"url": {"value": redis_server.url}}}},
        scope={"redis": {"databases": ["cache/*"]}, "http": {"hosts": ["*"]}},
        lease="2s",
        stability="1s",
        retention=f"{KEPT_SECONDS}s",
        rate=f"100000/{KEPT_SECONDS}s",
    )
    members = [group.start(module=hurried(SOON)) for _ in range(2)]
    with _alerts(group, sink) as statuses:
        looks = run(_look(group.store, time.monotonic() + SECONDS))
    found = [str(finding) for look in looks for finding in look.findings]
    assert [] == found, f"in {len(looks)} looks"
    assert len(looks) >= SECONDS
    assert looks[-1].seals > 1
    assert looks[-1].pruned_before
    assert any("old records deleted" in member.logs for member in members)
    assert {202} == set(statuses)
    assert 0 < len(sink.requests) < len(statuses) / 2, "alerts share runs"
    verified(group)


@contextmanager
def _alerts(group: Replicas, sink: web.WebServer) -> Iterator[list[int]]:
    """Alerts on either replica that end as soon as what was done about them is old; what was answered."""
    over, statuses = threading.Event(), list[int]()
    thread = threading.Thread(target=_send, args=(group, sink, over, statuses))
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()
        sink.answering.set()


def _send(group: Replicas, sink: web.WebServer, over: threading.Event, statuses: list[int]) -> None:
    begun: list[datetime] = []
    start, lasts = time.monotonic(), KEPT_SECONDS * A_SECOND
    while not over.wait(max(0.0, start + len(begun) / A_SECOND - time.monotonic())):
        number = len(begun)
        # Once a second there are answers: until then the alerts of a target share its run.
        (sink.answering.clear if number % A_SECOND else sink.answering.set)()
        begun.append(datetime.now(UTC))
        alerts = [_alert("firing", number, begun[-1])]
        if number >= 2 * lasts:
            # After 2 to 6 seconds: some before their runs are old, some when these are gone.
            ended = (number // lasts - 2) * lasts + number * 7 % lasts
            alerts.append(_alert("resolved", ended, begun[ended]))
        service = group.members[number % len(group.members)]
        answer = service.post("/webhooks/alertmanager", content=notification(*alerts), headers=_JSON)
        statuses.append(answer.status_code)


def _alert(status: str, number: int, starts_at: datetime) -> dict[str, Any]:
    shard = str(number % TARGETS)
    return alert(status, starts_at=starts_at, ends_at=datetime.now(UTC), pod=f"pod-{number}", shard=shard)


async def _look(store: str, until: float) -> list[Report]:
    """Verify over and over."""
    database, looks = Database(store), list[Report]()
    try:
        while time.monotonic() < until:
            looks.append(await verify(database))
    finally:
        await database.close()
    return looks
