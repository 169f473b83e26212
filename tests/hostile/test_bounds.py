"""What is too much is refused before it costs anything, with a reason; nothing else stops for it."""

from __future__ import annotations

import pytest

from app.api.gate import Gate
from app.api.problems import ProblemError
from app.api.services import Limits
from app.domain.alerts import MAX_NAME, MAX_PAIRS, MAX_VALUE
from tests.support.alerts import alert, notification
from tests.support.edge import TOKENS, Edge, StartEdge, bearer


def test_too_many_alerts_are_refused_without_reading_them(start_edge: StartEdge) -> None:
    """413, and Alertmanager is told what to change; as many as are allowed pass."""
    edge = start_edge(limits=Limits(max_alerts=3))
    alerts = [alert(pod=str(number)) for number in range(4)]
    response = edge.notify(notification(*alerts))
    assert (413, "too_many_alerts") == (response.status_code, response.json()["reason"])
    assert "max_alerts" in response.json()["detail"]
    assert 1 == edge.metric("remediator_notifications_total", result="too_large")
    assert 202 == edge.notify(notification(*alerts[:3])).status_code


@pytest.mark.parametrize(
    "labels",
    [
        {f"label_{number}": "x" for number in range(MAX_PAIRS)},
        {"long": "x" * (MAX_VALUE + 1)},
        {"l" * (MAX_NAME + 1): "x"},
        {"big": "x" * (1 << 20)},
    ],
)
def test_labels_beyond_all_measure_are_set_aside(edge: Edge, labels: dict[str, str]) -> None:
    """202, since Alertmanager would drop the alerts beside it, too; the answer says how many are set aside."""
    response = edge.notify(notification(alert(**labels), alert()))
    answer = {"notification": "accepted", "alerts": 2, "set_aside": 1}
    assert (202, answer) == (response.status_code, response.json())
    assert 202 == edge.notify(notification(alert(**labels))).status_code


def test_labels_at_the_bound_pass(edge: Edge) -> None:
    """The bounds are far beyond what Prometheus lets pass by default."""
    assert 202 == edge.notify(notification(alert(**{"l" * MAX_NAME: "x" * MAX_VALUE}))).status_code


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"version": "4", "alerts": ' + b"[" * 50_000])
def test_deep_nesting_is_no_stack_overflow(edge: Edge, body: bytes) -> None:
    """400 or 422, as any other body that is none."""
    assert edge.notify(body).status_code in {400, 422}


def test_a_gate_lets_so_much_in_and_no_more() -> None:
    """By requests and by announced bytes; who leaves makes room."""
    gate = Gate(max_requests=2, max_body_bytes=100)
    with gate.entered("10"), gate.entered("10"):
        with pytest.raises(ProblemError) as refused, gate.entered("10"):
            pass
        assert (503, "busy") == (refused.value.status, refused.value.reason)
        assert "Retry-After" in refused.value.headers
    wide = Gate(max_requests=100, max_body_bytes=100)
    with wide.entered("100"), wide.entered("100"), wide.entered(""), wide.entered("99"):
        with pytest.raises(ProblemError), wide.entered("2"):
            pass
        with wide.entered("1"):
            pass
    with wide.entered("100"):
        pass


def test_a_full_gate_answers_503_so_that_alertmanager_sends_again(start_edge: StartEdge) -> None:
    """Not 429, which Alertmanager takes for a final answer; before the body is read."""
    edge = start_edge(limits=Limits(max_requests=1))
    with edge.services.gate.entered("1"):
        response = edge.notify(notification(alert()))
    assert (503, "busy") == (response.status_code, response.json()["reason"])
    assert 1 == edge.metric("remediator_notifications_total", result="unavailable")
    assert 202 == edge.notify(notification(alert())).status_code


@pytest.mark.parametrize("path", ["/remediations", "/metrics", "/-/healthy", "/openapi.json", "/webhooks/alertmanager"])
@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "127.0.0.1.nip.example"]
)
def test_without_tokens_only_this_machine_is_answered(edge: Edge, path: str, host: str) -> None:
    """A page whose name was made to point to loopback gets nothing (DNS rebinding)."""
    response = edge.get(path, headers={"host": host})
    assert (403, "unknown_host") == (response.status_code, response.json()["reason"])


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "127.8.8.8", "[::1]:8080"])
def test_the_names_of_this_machine_are_answered(edge: Edge, host: str) -> None:
    """With and without a port."""
    assert 200 == edge.get("/remediations", headers={"host": host}).status_code


def test_with_tokens_any_name_is_answered(start_edge: StartEdge) -> None:
    """Who has a token is no foreign page."""
    edge = start_edge(tokens=TOKENS)
    headers = bearer("secret-of-viewer") | {"host": "remediator.example"}
    assert 200 == edge.get("/remediations", headers=headers).status_code


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready", "/metrics"])
def test_probes_may_ask_with_head(edge: Edge, path: str) -> None:
    """As load balancers do."""
    assert 200 == edge.request("HEAD", path).status_code
