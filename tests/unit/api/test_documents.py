"""The OpenAPI document has no gaps, and the written documentation names every path, reason and metric."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.api.problems import ProblemReason
from app.telemetry.metrics import Metrics
from tests.support.edge import Edge

DOCS = Path(__file__).parents[3] / "docs"
OPEN = {"/metrics", "/-/healthy", "/-/ready"}
FOREIGN = ("python_", "process_")


@pytest.fixture
def document(edge: Edge) -> dict[str, Any]:
    """What /openapi.json answers."""
    answer: dict[str, Any] = edge.get("/openapi.json").json()
    return answer


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Every (method, path, operation)."""
    return [(method, path, one) for path, methods in document["paths"].items() for method, one in methods.items()]


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    """Summary, description, an id of its own, and words for each parameter."""
    found = operations(document)
    assert len(found) == len({one["operationId"] for _, _, one in found})
    for _, path, one in found:
        assert one["summary"], path
        assert one["description"], path
        assert all(parameter["description"] for parameter in one.get("parameters", [])), path


def test_every_operation_says_who_may_and_what_goes_wrong(document: dict[str, Any]) -> None:
    """Both ways to send a token, 401 and 403; every error is a problem."""
    for method, path, one in operations(document):
        if path not in OPEN:
            assert [{"bearer": []}, {"basic": []}] == one["security"], path
            assert {"401", "403"} <= set(one["responses"]), path
            assert "Role: " in one["description"], path
        errors = {status: answer for status, answer in one["responses"].items() if status >= "400"}
        for status, answer in errors.items():
            assert ["application/problem+json"] == list(answer["content"]), (method, path, status)
        if one.get("parameters"):
            assert "422" in errors, path


def test_every_success_has_a_schema(document: dict[str, Any]) -> None:
    """No free JSON."""
    for method, path, one in operations(document):
        answers = [answer for status, answer in one["responses"].items() if status < "300"]
        assert answers, (method, path)
        for answer in answers:
            assert all(content["schema"] for content in answer["content"].values()), (method, path)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """Within the document."""
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    used = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert set() == used - known
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_a_body_that_is_read_by_hand_is_described_too(document: dict[str, Any]) -> None:
    """With the fields of Alertmanager's payload."""
    body = document["paths"]["/webhooks/alertmanager"]["post"]["requestBody"]
    assert {"$ref": "#/components/schemas/Notification"} == body["content"]["application/json"]["schema"]
    assert "startsAt" in document["components"]["schemas"]["Alert"]["properties"]


def test_every_path_is_documented(document: dict[str, Any]) -> None:
    """With its method, as a heading."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^### `(\w+ [^`]+)`", text, re.MULTILINE))
    assert {f"{method.upper()} {path}" for method, path, _ in operations(document)} == headings


def test_every_query_parameter_is_documented(document: dict[str, Any]) -> None:
    """In the section of its path."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for method, path, one in operations(document):
        section = text.partition(f"### `{method.upper()} {path}`")[2].partition("\n### ")[0]
        for parameter in one.get("parameters", []):
            if parameter["in"] == "query":
                assert f"`{parameter['name']}`" in section, (path, parameter["name"])


def test_every_reason_of_a_problem_is_documented() -> None:
    """No more and no fewer."""
    text = (DOCS / "api.md").read_text(encoding="utf-8").partition("## Problems")[2].partition("\n## ")[0]
    assert {str(reason) for reason in ProblemReason} == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


def test_every_metric_is_documented() -> None:
    """With its type, its labels, what a rise means and what to do."""
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for family in Metrics("test").registry.collect():
        if family.name.startswith(FOREIGN):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        name = f"{family.name}_info" if family.type == "info" else name
        section = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        assert section, f"{name} has no heading in docs/metrics.md"
        assert "**Do this:**" in section, name
        kind = "gauge" if family.type == "info" else family.type
        assert section.strip().lower().startswith(kind), name


def test_no_metric_is_documented_that_does_not_exist() -> None:
    """A removed metric takes its heading with it."""
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    families = {family.name: family.type for family in Metrics("test").registry.collect()}
    suffixes = {"counter": "_total", "info": "_info"}
    known = {name + suffixes.get(kind, "") for name, kind in families.items()}
    assert set() == set(re.findall(r"^### `(\w+)`", text, re.MULTILINE)) - known


def test_every_label_of_a_metric_is_documented() -> None:
    """By its name, in the metric's section."""
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for metric in vars(Metrics("test")).values():
        name, labels = getattr(metric, "_name", ""), getattr(metric, "_labelnames", ())
        name += "_total" if getattr(metric, "_type", "") == "counter" else ""
        section = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        assert all(f"`{label}`" in section for label in labels), name
