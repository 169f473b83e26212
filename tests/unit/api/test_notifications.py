"""The webhook: what is taken, what is refused with which words, and that nothing is answered before the commit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import select

from app.api import webhook
from app.api.services import Limits
from app.backends.connections import Connections
from app.backends.instances import Clients
from app.backends.scope import Scope
from app.catalog.catalog import Catalog
from app.engine.context import EngineContext, Policy
from app.engine.stages.intake import take_in
from app.store.db.database import Database
from app.store.db.schema import notification
from app.store.ledger.inbox import unpacked
from tests.support.edge import Edge
from tests.support.quiet import plain_logs

CAPTURES = sorted((Path(__file__).parents[2] / "testdata" / "notifications").glob("*.json"))
Change = Callable[[dict[str, Any]], object]


def capture(name: str = "alertmanager-0.33.1-service-down-firing") -> dict[str, Any]:
    """The body of a captured notification."""
    body: dict[str, Any] = json.loads((CAPTURES[0].parent / f"{name}.json").read_text(encoding="utf-8"))["body"]
    return body


def recorded(edge: Edge) -> list[Any]:
    """The inbox's rows."""

    async def read() -> list[Any]:
        async with edge.database.read() as tx:
            return list(await tx.execute(select(notification)))

    return edge.run(read())


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+00:00", "9999-12-31T12:00:00-00:00", "2026-01-31t12:00:00.5z"])
def test_utc_may_be_written_as_an_offset(edge: Edge, time: str) -> None:
    """As Python writes it, also at the ends of the calendar."""
    body = capture()
    body["alerts"][0]["endsAt"] = time
    assert edge.notify(json.dumps(body).encode()).status_code == 202


@pytest.mark.parametrize("file", CAPTURES, ids=lambda file: file.stem)
def test_what_alertmanager_really_sends_is_accepted(edge: Edge, file: Path) -> None:
    """Every captured notification is answered 202 and stands in the inbox as it came."""
    captured = json.loads(file.read_text(encoding="utf-8"))
    body = json.dumps(captured["body"]).encode()
    response = edge.post("/webhooks/alertmanager", content=body, headers=_sent(captured["headers"]))
    assert (202, {"notification": "accepted", "alerts": len(captured["body"]["alerts"])}) == (
        response.status_code,
        response.json(),
    )
    assert [body] == [unpacked(row.body) for row in recorded(edge)]
    assert edge.metric("remediator_notifications_total", result="accepted") == 1
    assert edge.metric("remediator_last_notification_timestamp_seconds") == edge.now.timestamp()


def _sent(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() != "content-length"}


def test_left_out_alerts_are_counted(edge: Edge) -> None:
    """`truncatedAlerts` is what Alertmanager did not send because of max_alerts."""
    edge.notify(json.dumps(capture("alertmanager-0.33.1-truncated-2-of-5-firing")).encode())
    assert edge.metric("remediator_alerts_truncated_total") == 3
    assert [3] == [row.truncated for row in recorded(edge)]


def _first(field: str, value: Any) -> Change:
    return lambda body: body["alerts"][0].__setitem__(field, value)


def _top(field: str, value: Any) -> Change:
    return lambda body: body.__setitem__(field, value)


def _without(field: str) -> Change:
    return lambda body: body.pop(field)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (_without("version"), "version", "version is missing; if "),
        (_top("version", "3"), "version", 'version must be "4"'),
        (_top("version", 4), "version", 'version must be "4"'),
        (_without("alerts"), "alerts", "alerts is missing"),
        (_top("alerts", None), "alerts", "alerts must be an array"),
        (_top("alerts", {}), "alerts", "alerts must be an array"),
        (_top("alerts", [1]), "alerts[0]", "alerts[0] must be an object"),
        (_top("receiver", 5), "receiver", "receiver must be a string"),
        (_top("status", "on"), "status", 'status must be "firing" or "resolved"'),
        (_top("truncatedAlerts", "3"), "truncatedAlerts", "must be a whole number"),
        (_top("truncatedAlerts", True), "truncatedAlerts", "must be a whole number"),
        (_top("truncatedAlerts", -1), "truncatedAlerts", "must not be negative"),
        (_top("truncatedAlerts", 10**30), "truncatedAlerts", "is too large"),
        (_first("startsAt", None), "alerts[0].startsAt", "RFC 3339"),
        (_first("startsAt", 1_700_000_000), "alerts[0].startsAt", "RFC 3339"),
        (_first("startsAt", "yesterday"), "alerts[0].startsAt", "RFC 3339"),
        (_first("startsAt", "2026-02-30T00:00:00Z"), "alerts[0].startsAt", "is not a time"),
        (_first("startsAt", "2026-01-31T12:00:00"), "alerts[0].startsAt", "RFC 3339"),
        (_first("startsAt", "0001-01-01T00:00:00+14:00"), "alerts[0].startsAt", "between the years 1 and 9999"),
        (_first("endsAt", "9999-12-31T23:59:59-14:00"), "alerts[0].endsAt", "between the years 1 and 9999"),
        (_first("labels", {}), "alerts[0].labels", "must not be empty"),
        (_first("labels", ["a"]), "alerts[0].labels", "must be an object"),
        (_first("labels", {"a b\n": 1}), 'alerts[0].labels["a b\\n"]', "must be a string"),
        (_first("annotations", {"x": None}), "alerts[0].annotations.x", "must be a string"),
        (_first("fingerprint", "../../etc"), "alerts[0].fingerprint", "hexadecimal"),
        (_first("status", "suppressed"), "alerts[0].status", 'must be "firing" or "resolved"'),
    ],
)
def test_a_wrong_field_is_named_by_its_path(edge: Edge, change: Change, field: str, words: str) -> None:
    """422 says which field is wrong and what it must be."""
    body = capture()
    change(body)
    response = edge.notify(json.dumps(body).encode())
    assert (422, field) == (response.status_code, response.json()["field"])
    assert words in response.json()["detail"]
    assert response.headers["content-type"] == "application/problem+json"
    assert edge.metric("remediator_notifications_total", result="invalid") == 1
    assert [] == recorded(edge)


def test_only_the_first_wrong_alert_is_named(edge: Edge) -> None:
    """Its index is the one in the notification."""
    body = capture("alertmanager-0.33.1-crashloop-3-pods-firing")
    for one in body["alerts"]:
        one["startsAt"] = ""
    assert "alerts[0].startsAt" == edge.notify(json.dumps(body).encode()).json()["field"]


@pytest.fixture
def _log_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log plainly, whatever another test of this process has configured: a logger keeps what it was first used with."""
    monkeypatch.setattr(webhook, "log", structlog.get_logger())
    with plain_logs():
        yield


@pytest.mark.usefixtures("_log_of_this_test")
def test_what_is_no_alert_costs_the_others_nothing(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    """They are recorded, and the log names the entry once for its group."""
    body = capture("alertmanager-0.33.1-crashloop-3-pods-firing")
    body["alerts"][1]["startsAt"] = ""
    for _ in range(2):
        answer = edge.notify(json.dumps(body).encode())
        assert (202, {"notification": "accepted", "alerts": 3, "set_aside": 1}) == (answer.status_code, answer.json())
    assert 1 == capsys.readouterr().out.count("alerts[1]")
    assert [3, 3] == [row.alerts for row in recorded(edge)]


@pytest.mark.parametrize("body", [{}, {"text": "Down", "channel": "#ops"}, {"status": "firing", "receiver": "x"}])
def test_a_body_of_a_users_own_template_is_refused_with_the_cause(edge: Edge, body: dict[str, str]) -> None:
    """The words tell the setting to remove."""
    response = edge.notify(json.dumps(body).encode())
    assert (422, "custom_payload") == (response.status_code, response.json()["reason"])
    assert "webhook_config has its own `payload` template" in response.json()["detail"]


VALID = json.dumps(capture())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"payload=%7B%7D",
        b"<alert/>",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + VALID.encode(),
        VALID.encode("utf-16"),
        VALID.encode()[:-1],
        VALID.encode() + b"}",
        VALID.replace('"labels"', '"labels" "x"').encode(),
        VALID.replace("ServiceDown", "Service\x00Down").encode(),
        VALID.replace("ServiceDown", "\\ud800").encode(),
        VALID.replace("ServiceDown", "\\u0000\\ud800").encode(),
        VALID.replace("ServiceDown", "\u00ff").encode("latin-1"),
        VALID.replace('"alerts": [', '"x": ' + "[" * 100_000).encode(),
        VALID.replace('"alerts": [', '"x": "\\u0000", "y": ' + "[" * 100_000).encode(),
        VALID.replace('"alerts": [', '"x": ' + "9" * 5_000 + ', "alerts": [').encode(),
        b'{"a":' * 100_000,
        b"[]",
        b"null",
        b'"text"',
        b"NaN",
        b"4",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_json_object_is_refused(edge: Edge, body: bytes) -> None:
    """400, in a few words."""
    response = edge.notify(body)
    assert (400, "not_json") == (response.status_code, response.json()["reason"])
    assert len(response.content) < 400


@pytest.mark.parametrize(
    "text",
    [
        VALID.replace('"alerts": [', '"x": NaN, "y": [1e999, -Infinity], "alerts": ['),
        VALID.replace('"status": "firing"', '"status": "other", "status": "firing"'),
        VALID.replace("ServiceDown", "Service\\u0000Down"),
        VALID.replace("ServiceDown", "\\ud83d\\ude00"),
        VALID.replace('"alertname"', '"name of the alert"'),
        json.dumps({**capture(), "alerts": []}),
        json.dumps({**capture(), "brand_new_field": {"a": [1]}}),
    ],
)
def test_what_is_unusual_and_legal_is_accepted(edge: Edge, text: str) -> None:
    """Unknown fields, a NUL in a label, no alerts at all, an alert without a name."""
    assert edge.notify(text.encode()).status_code == 202


def test_times_at_the_ends_of_the_calendar_are_taken_in(edge: Edge) -> None:
    """Year 1 means unset; a far future is somebody's clock. Neither stops the engine nor the audit."""
    body = capture("alertmanager-0.33.1-crashloop-3-pods-firing")
    times = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59.1+05:30")
    for alert, time in zip(body["alerts"], times, strict=True):
        alert["startsAt"] = alert["endsAt"] = time
    assert edge.notify(json.dumps(body).encode()).status_code == 202
    assert edge.run(take_in(_parts(edge, edge.services.catalog.current))) == 1
    shown = {item["starts_at"] for item in edge.get("/episodes").json()["items"]}
    assert {"0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1969-12-31T18:29:59.100000Z"} == shown


def _parts(edge: Edge, catalog: Catalog) -> EngineContext:
    clients = Clients(Connections(), Scope())
    return EngineContext(edge.database, lambda: catalog, clients, edge.metrics, Policy(), lambda: edge.now, "test")


def test_a_refusal_repeats_no_value_of_the_body(edge: Edge) -> None:
    """Alertmanager writes the answer to its log, so what may be a secret must not come back."""
    body = capture()
    body["alerts"][0] |= {"startsAt": "hunter2", "fingerprint": "hunter2", "status": "hunter2"}
    assert "hunter2" not in edge.notify(json.dumps(body).encode()).text


@pytest.mark.usefixtures("_log_of_this_test")
def test_a_refused_group_is_logged_once(edge: Edge, capsys: pytest.CaptureFixture[str]) -> None:
    """It comes again with every group_interval; it is counted each time."""
    body = json.dumps({**capture(), "status": "on"}).encode()
    other = json.dumps({**capture(), "status": "on", "groupKey": "another"}).encode()
    for sent in (body, body, other, body, other):
        edge.notify(sent)
    assert capsys.readouterr().out.count("notification refused") == 2
    assert edge.metric("remediator_notifications_total", result="invalid") == 5


def test_a_body_over_the_limit_is_refused(start_edge: Callable[..., Edge]) -> None:
    """Whether its length is announced or not; one byte less is fine."""
    body = VALID.encode()
    edge = start_edge(limits=Limits(max_body_bytes=len(body)))

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield body

    assert 202 == edge.notify(body).status_code
    announced = edge.notify(body + b" ")
    assert (413, "too_large") == (announced.status_code, announced.json()["reason"])
    assert 413 == edge.post("/webhooks/alertmanager", content=chunks()).status_code
    assert 413 == edge.notify(b"", **{"content-length": "9" * 18}).status_code
    assert edge.metric("remediator_notifications_total", result="too_large") == 3


def test_a_notification_of_ten_thousand_alerts_is_accepted(edge: Edge) -> None:
    """It is below the default limit."""
    body = capture()
    body["alerts"] = [{**body["alerts"][0], "fingerprint": f"{number:016x}"} for number in range(10_000)]
    assert {"notification": "accepted", "alerts": 10_000} == edge.notify(json.dumps(body).encode()).json()


def test_a_compressed_body_is_refused(edge: Edge) -> None:
    """Alertmanager does not compress."""
    response = edge.notify(b"x", **{"content-encoding": "gzip"})
    assert (415, "unsupported_encoding") == (response.status_code, response.json()["reason"])


def test_a_store_that_is_away_is_answered_503(start_edge: Callable[..., Edge], tmp_path: Path) -> None:
    """Alertmanager then sends it again, and the answer names no host and no file."""
    edge = start_edge(database=Database(f"sqlite:///{tmp_path}/empty.db"))
    response = edge.notify(VALID.encode())
    assert (503, "5") == (response.status_code, response.headers["retry-after"])
    assert "table" not in response.text
    assert edge.metric("remediator_notifications_total", result="unavailable") == 1


def test_a_store_that_does_not_commit_in_time_is_answered_503(start_edge: Callable[..., Edge]) -> None:
    """The request does not wait for ever; Alertmanager sends again, and a repeat is harmless."""
    edge = start_edge(limits=Limits(record_timeout_seconds=1))

    async def blocked() -> int:
        async with edge.database.write():
            request = edge._client.post("/webhooks/alertmanager", content=VALID.encode())
            return (await request).status_code

    assert edge.run(blocked()) == 503
    assert edge.notify(VALID.encode()).status_code == 202


def test_the_answer_comes_after_the_commit(edge: Edge) -> None:
    """While the store is busy the request waits."""

    async def story() -> tuple[bool, int]:
        async with edge.database.write():
            request = asyncio.create_task(edge._client.post("/webhooks/alertmanager", content=VALID.encode()))
            await asyncio.sleep(0.1)
            early = request.done()
        return early, (await request).status_code

    assert (False, 202) == edge.run(story())


@pytest.mark.parametrize(
    "path",
    ["/", "/webhook", "/alerts", "/webhooks/alertmanager/", "/api/v1/alerts", "/webhooks/anything", "//", "/%00"],
)
def test_a_post_to_a_near_miss_is_told_the_right_path(edge: Edge, path: str) -> None:
    """404 names the path that the receiver's url must have; it is counted."""
    response = edge.post(path, content=VALID.encode())
    assert (404, "wrong_path") == (response.status_code, response.json()["reason"])
    assert "/webhooks/alertmanager" in response.json()["detail"]
    assert edge.metric("remediator_notifications_total", result="wrong_path") == 1


def test_a_get_on_the_webhook_says_what_it_is_for(edge: Edge) -> None:
    """People open the url in a browser first."""
    response = edge.get("/webhooks/alertmanager")
    assert (405, "POST") == (response.status_code, response.headers["allow"])
    assert "Alertmanager posts its notifications" in response.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": "http://localhost"}, 202),
        ({"sec-fetch-site": "same-origin"}, 202),
        ({}, 202),
    ],
)
def test_a_page_of_another_site_cannot_notify(edge: Edge, headers: dict[str, str], status: int) -> None:
    """A browser on the same machine reaches loopback, where no token may be needed."""
    assert status == edge.notify(VALID.encode(), **headers).status_code
