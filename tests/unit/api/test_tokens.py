"""Who may do what: roles, both ways to send a token, rotation, and what is never told."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import structlog

from app.api.auth import Authenticator, Role
from app.domain.errors import ConfigError
from app.domain.states import RunState
from app.settings import Token
from tests.support.edge import TOKENS, Edge, StartEdge, bearer

ROLES = {
    ("POST", "/webhooks/alertmanager"): {"alertmanager", "admin"},
    ("GET", "/remediations"): {"viewer", "approver", "admin"},
    ("GET", "/remediations/{id}"): {"viewer", "approver", "admin"},
    ("GET", "/remediations/{id}/events"): {"viewer", "approver", "admin"},
    ("POST", "/remediations/{id}/approve"): {"approver", "admin"},
    ("POST", "/remediations/{id}/reject"): {"approver", "admin"},
    ("POST", "/remediations/{id}/cancel"): {"approver", "admin"},
    ("GET", "/episodes"): {"viewer", "approver", "admin"},
    ("GET", "/catalog"): {"viewer", "approver", "admin"},
    ("GET", "/catalog/restart-api"): {"viewer", "approver", "admin"},
    ("POST", "/-/reload"): {"admin"},
    ("GET", "/metrics"): {"", *Role},
    ("GET", "/-/healthy"): {"", *Role},
    ("GET", "/-/ready"): {"", *Role},
    ("GET", "/openapi.json"): {"", *Role},
}


def basic(user: str, secret: str) -> dict[str, str]:
    """The header that Alertmanager sends for `basic_auth`."""
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


@pytest.mark.parametrize(("method", "path"), ROLES)
def test_each_route_lets_exactly_its_roles_in(start_edge: StartEdge, method: str, path: str) -> None:
    """401 without a token, 403 with one of another role."""
    edge = start_edge(tokens=TOKENS)
    allowed = ROLES[method, path]
    for role in ("", *Role):
        run = edge.add_run(RunState.AWAITING_APPROVAL)
        headers = bearer(f"secret-of-{role}") if role else {}
        status = edge.request(method, path.format(id=run.id), headers=headers).status_code
        refused = 401 if not role else 403
        assert (status == refused) is (role not in allowed), (role, status)


def test_a_missing_token_is_told_how_to_send_one(start_edge: StartEdge) -> None:
    """The challenge names both ways."""
    response = start_edge(tokens=TOKENS).get("/remediations")
    assert (401, "unauthenticated") == (response.status_code, response.json()["reason"])
    assert response.headers["www-authenticate"].startswith('Bearer realm="remediator", Basic')


def test_a_token_of_another_role_is_told_which_is_needed(start_edge: StartEdge) -> None:
    """And which it has; the secret itself is not repeated."""
    response = start_edge(tokens=TOKENS).get("/remediations", headers=bearer("secret-of-alertmanager"))
    detail = response.json()["detail"]
    assert "this needs the role viewer; the token 'the-alertmanager' has the role alertmanager" == detail


def test_each_refused_request_is_logged_with_its_address(start_edge: StartEdge) -> None:
    """And with what was asked for; not with what was sent as a token."""
    edge = start_edge(tokens=TOKENS)
    run = edge.add_run(RunState.AWAITING_APPROVAL)
    with structlog.testing.capture_logs() as lines:
        edge.get("/catalog", headers=bearer("hunter2"))
        edge.post(f"/remediations/{run.id}/approve", headers=bearer("secret-of-viewer"))
        edge.get("/catalog", headers=bearer("secret-of-viewer"))
    same = {"event": "request refused", "log_level": "warning", "client": "127.0.0.1"}
    assert [
        same | {"status": 401, "reason": "unauthenticated", "method": "GET", "route": "/catalog"},
        same | {"status": 403, "reason": "forbidden", "method": "POST", "route": "/remediations/{run_id}/approve"},
    ] == lines


def test_refused_notifications_are_counted(start_edge: StartEdge) -> None:
    """Whether the token is wrong or its role."""
    edge = start_edge(tokens=TOKENS)
    edge.notify(b"{}")
    edge.notify(b"{}", **bearer("secret-of-viewer"))
    assert edge.metric("remediator_notifications_total", result="unauthorized") == 2


def test_the_sender_is_known_before_the_body_is_read(start_edge: StartEdge) -> None:
    """Nobody without a token learns what a body should be like."""
    assert 401 == start_edge(tokens=TOKENS).notify(b"nonsense").status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (bearer("secret-of-viewer"), 200),
        ({"authorization": "bearer secret-of-viewer"}, 200),
        (basic("the-viewer", "secret-of-viewer"), 200),
        (basic("anybody", "secret-of-viewer"), 200),
        (bearer("secret-of-viewe"), 401),
        (bearer("secret-of-viewer2"), 401),
        (bearer(""), 401),
        (basic("secret-of-viewer", ""), 401),
        ({"authorization": "Basic secret-of-viewer"}, 401),
        ({"authorization": "Digest secret-of-viewer"}, 401),
        ({"authorization": "secret-of-viewer"}, 401),
        ({"authorization": "Basic \u00e9"}, 401),
        ({"authorization": "Bearer \u00e9"}, 401),
    ],
)
def test_a_token_is_a_bearer_token_or_a_password(start_edge: StartEdge, headers: dict[str, str], status: int) -> None:
    """The user name does not matter, the whole secret does."""
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    assert status == start_edge(tokens=TOKENS).get("/remediations", headers=raw).status_code


def test_a_token_in_a_file_is_rotated_without_a_restart(start_edge: StartEdge, tmp_path: Path) -> None:
    """As Kubernetes does it: the file is another one from one moment to the next."""
    file = tmp_path / "token"
    file.write_text("old\n", encoding="utf-8")
    edge = start_edge(tokens=[Token(name="ops", role="viewer", file=file)])
    assert [200, 401] == _asked(edge)
    new = tmp_path / "next"
    new.write_text("new\n", encoding="utf-8")
    new.replace(file)
    assert [401, 200] == _asked(edge)
    file.unlink()
    assert [401, 401] == _asked(edge)


def _asked(edge: Edge) -> list[int]:
    return [edge.get("/catalog", headers=bearer(secret)).status_code for secret in ("old", "new")]


def test_an_empty_secret_lets_nobody_in(tmp_path: Path) -> None:
    """Neither an empty file nor one that is not text; the start refuses them loudly."""
    file = tmp_path / "token"
    for content in (b"", b" \n", b"\xff\xfe"):
        file.write_bytes(content)
        auth = Authenticator([Token(name="ops", role="admin", file=file)])
        assert auth.identify("Bearer ") is None
        assert auth.identify("Basic Og==") is None
        with pytest.raises(ConfigError, match="ops"):
            auth.check()


def test_without_tokens_everything_is_open(edge: Edge) -> None:
    """Then only loopback is listened on."""
    assert [200, 200, 200] == [
        edge.request(method, path).status_code
        for method, path in (("GET", "/remediations"), ("GET", "/catalog"), ("POST", "/-/reload"))
    ]
