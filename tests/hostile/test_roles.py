"""Every role on every operation of the running application: nobody sees or does what they may not."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.api.auth import Role
from app.domain.states import RunState
from tests.support.edge import TOKENS, Edge, StartEdge, bearer

SOAK = os.environ.get("REMEDIATOR_HYPOTHESIS") == "soak"
EXAMPLES = 3_000 if SOAK else 12
UNKNOWN = "01a1fc4e-fc81-792b-86e4-a04799700b49"
WHO = ["nobody", *(role.value for role in Role)]


def headers_of(who: str) -> dict[str, str]:
    """What somebody sends; nobody sends nothing."""
    return {} if who == "nobody" else bearer(f"secret-of-{who}")


def operations(edge: Edge) -> list[tuple[str, str, Role | None]]:
    """Every operation with the role that its description names; None where it is open to everyone."""
    found = []
    for path, methods in edge.app.openapi()["paths"].items():
        for method, one in methods.items():
            role = re.search(r"Role: `?([a-z]+)", one["description"])
            found.append((method.upper(), path, Role(role[1]) if role else None))
    return found


def test_each_role_may_what_the_description_says_and_nothing_else(start_edge: StartEdge) -> None:
    """Asked for real: 401 without a token, 403 with the wrong one, and something else with the right one."""
    edge = start_edge(tokens=TOKENS)
    asked = 0
    for method, path, needed in operations(edge):
        url = path.replace("{run_id}", UNKNOWN).replace("{name}", "restart-api").replace("{episode_id}", UNKNOWN)
        for who in WHO:
            status = edge.request(method, url, headers=headers_of(who)).status_code
            asked += 1
            if needed is None:
                assert status not in {401, 403}, (method, path, who)
            elif who == "nobody":
                assert 401 == status, (method, path, who)
            else:
                assert (status == 403) == (not Role(who).may(needed)), (method, path, who, status)
    assert asked >= 20 * len(WHO)


def test_a_refused_word_changes_nothing(start_edge: StartEdge) -> None:
    """Neither the run nor what is paused."""
    edge = start_edge(tokens=TOKENS)
    made = edge.add_run(RunState.AWAITING_APPROVAL)
    for who in ("nobody", "alertmanager", "viewer"):
        for verb in ("approve", "reject", "cancel", "retry", "undo"):
            edge.post(f"/remediations/{made.id}/{verb}", headers=headers_of(who))
        edge.request("PUT", "/pause", json={"why": "x"}, headers=headers_of(who))
        edge.post("/catalog/restart-api/breaker/close", json={"waiting": "drop"}, headers=headers_of(who))
    stored = edge.stored(made.id)
    assert stored is not None
    assert RunState.AWAITING_APPROVAL is stored.state
    assert {"items": []} == edge.get("/pause", headers=headers_of("viewer")).json()


@pytest.mark.timeout(7200 if SOAK else 240)
@pytest.mark.parametrize("who", WHO)
def test_no_request_breaks_the_service(start_edge: StartEdge, who: str) -> None:
    """Generated from the OpenAPI document, valid and not: never a 5xx, and every answer is as the document says."""
    edge = start_edge(tokens=TOKENS)
    for _ in range(3):
        edge.add_run(RunState.AWAITING_APPROVAL)
    schema = schemathesis.openapi.from_dict(edge.app.openapi())
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    tried = 0

    def ask(case: Any) -> None:
        nonlocal tried
        arguments = case.as_transport_kwargs(base_url="http://localhost")
        arguments["headers"] = {**arguments.get("headers", {}), **headers_of(who)}
        if "text/event-stream" in str(arguments["headers"].get("Accept", "")):
            return  # goes on for ever
        arguments.pop("cookies", None)
        response = edge.request(arguments.pop("method"), arguments.pop("url"), **_of_httpx(arguments))
        case.validate_response(schemathesis.Response.from_httpx(response, verify=False), checks=checks)
        tried += 1

    generated = settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    for result in schema.get_all_operations():
        generated(given(case=result.ok().as_strategy())(ask))()
    assert tried > 100


def _of_httpx(arguments: dict[str, Any]) -> dict[str, Any]:
    known = {"headers", "params", "json", "data", "content"}
    body = arguments.pop("data", None)
    given = {name: value for name, value in arguments.items() if name in known and value is not None}
    return given | ({"content": body} if isinstance(body, bytes | str) else {})
