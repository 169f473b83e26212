"""A credential that is written into a URL of the catalog is refused at load: it would be stored and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.catalog.loader import load
from app.domain.credentials import is_credential_name
from app.domain.errors import ConfigError
from tests.support.alerts import NOW
from tests.support.engine import remediation

AT = "https://api.shop.example"
CREDENTIALS = (
    f"{AT}/purge?token=hunter22",
    f"{AT}/purge?cache=home&api_key=hunter22",
    f"{AT}/purge?accessToken=hunter22&x=1",
    f"{AT}/purge?%74oken=hunter22",
    f"{AT}/{{{{ labels.job }}}}?key=hunter22",
    "{{ annotations.base }}?sig=hunter22",
    f"{AT}/?secret=hunter22-{{{{ labels.job }}}}",
    f"{AT}/#access_token=hunter22",
    "https://admin:hunter22@api.shop.example/purge",
)
PLAIN = (
    f"{AT}/purge?cache=home",
    f"{AT}/purge?token=",
    f"{AT}/purge?token={{{{ labels.token | urlencode }}}}",
    f"{AT}/keys/token/secret",
    f"{AT}/purge?monkey=1&keys=2&tokens=3&author=me",
)


def problems(folder: Path, **fields: Any) -> list[str]:
    """What is said about a remediation."""
    file = folder / "catalog.yaml"
    file.write_text(yaml.safe_dump({"remediations": [remediation(**fields)]}))
    try:
        load([file], NOW)
    except ConfigError as error:
        return [f"{problem.path}: {problem.message}" for problem in error.diagnostics]
    return []


def places(url: str) -> dict[str, dict[str, Any]]:
    """Remediations that have a URL in several places, by the path of each."""
    step = {"action": "http.request", "with": {"url": AT}}
    page = {"action": "notify.send", "with": {"channel": "ops", "title": "page", "body": f"See {url} for more."}}
    return {
        "steps[0].with.url": {"steps": [{"action": "http.request", "with": {"url": url}}]},
        "verify[0].with.url": {"steps": [step], "verify": [{"check": "http.ok", "with": {"url": url}}]},
        "escalate[0].steps[0].with.body": {"steps": [step], "escalate": [{"steps": [page]}]},
        "steps[0].with.json.back": {"steps": [{"action": "http.request", "with": {"url": AT, "json": {"back": url}}}]},
    }


@pytest.mark.parametrize("url", CREDENTIALS)
@pytest.mark.parametrize("place", places(""))
def test_a_credential_in_a_url_is_refused(tmp_path: Path, url: str, place: str) -> None:
    """Where it stands is told, what it is not; and where to put it."""
    (problem,) = problems(tmp_path, **places(url)[place])
    assert f"{place}: " in problem
    assert "connections.http" in problem
    assert "hunter22" not in problem


@pytest.mark.parametrize("url", PLAIN)
@pytest.mark.parametrize("place", places(""))
def test_other_urls_are_taken(tmp_path: Path, url: str, place: str) -> None:
    """A value that an alert brings was no secret before."""
    assert [] == problems(tmp_path, **places(url)[place])


def test_a_runbook_with_a_credential_is_refused(tmp_path: Path) -> None:
    """It is told to people."""
    (problem,) = problems(tmp_path, runbook_url=CREDENTIALS[0], **places(AT)["steps[0].with.url"])
    assert "runbook_url: " in problem


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *[(name, True) for name in ("token", "KEY", "api-key", "apikey", "x_api_key", "sessionToken", "access_token")],
        *[(name, True) for name in ("password", "pwd", "sig", "X-Amz-Signature", "X-Amz-Credential", "client_secret")],
        *[(name, False) for name in ("keyboard", "tokens", "author", "design", "q", "", "page", "secretary")],
    ],
)
def test_names_of_credentials(name: str, *, is_one: bool) -> None:
    """By their words, however they are written."""
    assert is_one == is_credential_name(name)
