"""Fails when something public has no place in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from app.backends.actions import actions
from app.backends.base import ScopeBlock
from app.backends.checks import checks
from app.backends.registry import backends
from app.cli import cli
from app.domain.reasons import Reason
from app.domain.remediation import Remediation
from app.guards.chain import CHAIN
from app.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
README = Path(__file__).parents[2] / "README.md"
SECTIONS = {"tls", "episodes", "audit", "scope", "auth", "log", "connections"}


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings."""
    for name, field in model.model_fields.items():
        section = field.annotation
        is_block = isinstance(section, type) and issubclass(section, ScopeBlock)
        if (name in SECTIONS or is_block) and isinstance(section, type) and issubclass(section, BaseModel):
            yield from settings(section, f"{prefix}{name}.")
        else:
            yield prefix + name


def headings(file: Path) -> set[str]:
    """The texts of a page's headings."""
    return {match[1].strip() for match in re.finditer(r"^#+ (.+)$", file.read_text(), re.MULTILINE)}


def test_every_setting_has_its_row() -> None:
    """docs/configuration.md names each setting once, and no other."""
    rows = re.findall(r"^\| `([a-z_.]+)` \|", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    roles = {"alertmanager", "viewer", "approver", "admin"}
    assert [name for name in rows if name not in roles] == list(settings(Settings))


def test_the_example_configuration_is_valid() -> None:
    """The example of docs/configuration.md is accepted as a config file."""
    example = re.search(r"```yaml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    assert example
    assert Settings(**yaml.safe_load(example[1])).listen == "0.0.0.0:8080"


def test_every_reason_has_its_paragraph() -> None:
    """docs/troubleshooting.md explains each reason, and no other."""
    found = headings(DOCS / "troubleshooting.md") - {
        "Why did nothing happen? Why did that happen?",
        "Reasons",
        "States",
    }
    assert found == {reason.value for reason in Reason}


@pytest.mark.parametrize("name", backends())
def test_every_backend_has_its_page(name: str) -> None:
    """With a heading for each of its actions and checks."""
    known = {heading.strip("`") for heading in headings(DOCS / "backends" / f"{name}.md")}
    prefix = backends()[name].prefix or name
    missing = [one for one in (*actions(), *checks()) if one.partition(".")[0] == prefix and one not in known]
    assert missing == []


def test_every_guard_is_described() -> None:
    """docs/remediations.md names each guard in its order."""
    text = (DOCS / "remediations.md").read_text()
    places = [text.find(f"`{guard.__name__}`") for guard in CHAIN]
    assert -1 not in places


def test_every_field_of_a_remediation_has_its_row() -> None:
    """docs/remediations.md names each in its table of fields."""
    text = (DOCS / "remediations.md").read_text().partition("\n## Fields\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)
    assert set(Remediation.model_fields) <= set(rows)


def test_no_shell_takes_a_query_for_a_pattern() -> None:
    """URLs with a question mark are quoted wherever curl is called."""
    lines = [line for page in [README, *DOCS.rglob("*.md")] for line in page.read_text().splitlines()]
    calls = [line.partition("#")[0] for line in lines if "curl -s " in line]
    assert calls
    assert [] == [line for line in calls if re.search(r"(?<!\S)[^'\"\s]+\?", line)]


def test_every_command_is_mentioned() -> None:
    """README or a page of the documentation names each command."""
    text = "\n".join(page.read_text() for page in [README, *DOCS.rglob("*.md")])
    assert [name for name in cli.commands if f"remediator {name}" not in text] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    """Relative links in README and docs name files that exist."""
    broken = [
        f"{page.name}: {link}"
        for page in [README, README.parent / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []
