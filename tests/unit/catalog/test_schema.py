"""The JSON Schema that editors use says what the loader says, as far as a schema can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from app.catalog.document import read_document
from app.catalog.schema import json_schema
from tests.unit.catalog.vocabulary import ACTIONS, CHECKS

ROOT = Path(__file__).parents[3]
TESTDATA = ROOT / "tests" / "testdata" / "remediations"


def _errors(schema: dict[str, Any], document: object) -> list[str]:
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(document)]


def _read(file: Path) -> object:
    node, _ = read_document(file.read_bytes())
    return None if node is None else node.value


def test_the_schema_is_a_schema() -> None:
    """Of the draft that it names, for the real actions and checks."""
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]


@pytest.mark.parametrize("file", sorted((ROOT / "remediations").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_shipped_catalog_fits_the_schema(file: Path) -> None:
    """With the real actions and checks."""
    assert [] == _errors(json_schema(), _read(file))


@pytest.mark.parametrize("file", sorted((TESTDATA / "valid").iterdir()), ids=lambda file: file.stem)
def test_what_the_loader_takes_fits_the_schema(file: Path) -> None:
    """Templates stand for values of any type."""
    assert [] == _errors(json_schema(ACTIONS, CHECKS), _read(file))


@pytest.mark.parametrize("topic", ["unknown-fields", "missing-fields", "wrong-types", "wrong-key", "not-a-list"])
def test_what_the_schema_can_know_it_refuses(topic: str) -> None:
    """Names of fields, what is required, and types."""
    assert _errors(json_schema(ACTIONS, CHECKS), _read(TESTDATA / "invalid" / f"{topic}.yaml"))


@pytest.mark.parametrize(
    ("step", "fits"),
    [
        ({"action": "kubernetes.scale", "with": {"to": 5}}, True),
        ({"action": "kubernetes.scale", "with": {"to": "{{ labels.replicas }}"}}, True),
        ({"action": "kubernetes.scale", "with": {"to": "five"}}, False),
        ({"action": "kubernetes.scale", "with": {"too": 5}}, False),
        ({"action": "http.request"}, False),
        ({"action": "http.request", "with": {"url": "http://a"}, "timeout": "5m"}, True),
        ({"action": "http.request", "with": {"url": "http://a"}, "timeout": "5 minutes"}, False),
        ({"action": "http.post", "with": {"url": "http://a"}}, False),
    ],
)
def test_the_action_chooses_the_schema_of_its_arguments(step: dict[str, Any], fits: bool) -> None:
    """So that an editor completes the fields of the action that was typed."""
    entry = {"name": "a", "summary": "b", "matchers": ['alertname="A"'], "steps": [step]}
    assert fits is not bool(_errors(json_schema(ACTIONS, CHECKS), {"remediations": [entry]}))


def test_defaults_are_written_as_yaml_writes_them() -> None:
    """Durations and rates in the form in which they are read."""
    definitions = json_schema()["$defs"]
    limits = definitions["Limits"]["properties"]
    assert ("10m", "3/1h") == (limits["cooldown"]["default"], limits["rate"]["default"])
    assert "2m" == definitions["StepSpec"]["properties"]["timeout"]["default"]


def test_every_action_and_check_is_offered_with_its_summary() -> None:
    """Nothing has to be added to the schema by hand."""
    definitions = json_schema(ACTIONS, CHECKS)["$defs"]
    assert sorted(ACTIONS) == sorted(one["const"] for one in definitions["StepSpec"]["properties"]["action"]["oneOf"])
    assert sorted(CHECKS) == sorted(one["const"] for one in definitions["CheckSpec"]["properties"]["check"]["oneOf"])
    assert yaml.safe_load(yaml.safe_dump(definitions)) == definitions
