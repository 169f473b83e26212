"""Stopping everything from the command line: `remediator pause`, `status` and `resume` against a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.service import Service

ROOT = Path(__file__).parents[2]
TOKEN = "secret-approver"


@pytest.fixture
def service(start_service: Callable[..., Service], tmp_path: Path) -> Service:
    """A service with a token and nothing in its catalog."""
    config, catalog = tmp_path / "config.yaml", tmp_path / "catalog.yaml"
    catalog.write_text(yaml.safe_dump({"remediations": []}))
    config.write_text(json.dumps({"auth": {"tokens": [{"name": "ann", "role": "approver", "value": TOKEN}]}}))
    return start_service(config=config, catalog=[catalog], token=TOKEN)


def test_everything_is_stopped_and_goes_on(service: Service, tmp_path: Path) -> None:
    """In one word, which says that it has no end; and another one lets it go on."""
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")

    def remediator(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "app", *words, "--url", service.url, "--token-file", str(token)]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("REMEDIATOR_")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=inherited)
        return done.returncode, done.stdout, done.stderr

    assert (0, "nothing is paused\n", "") == remediator("status")
    code, said, warned = remediator("pause")
    assert (0, True) == (code, said.startswith("paused: EVERYTHING, by ann since "))
    assert "WITHOUT AN END: stopped from the command line" in said
    assert "NO END" in warned
    assert (1, said) == remediator("status")[:2]
    assert (0, "nothing is paused\n", "") == remediator("resume")
    code, said, warned = remediator("pause", "--why", "upgrade", "--for", "2h", "--target", "postgres:main/orders")
    assert (0, True) == (code, "target postgres:main/orders" in said and "until" in said)
    assert "no run has had the target" in warned
    code, _, warned = remediator("pause", "--remediation", "nothing")
    assert (2, True) == (code, "there is no remediation 'nothing'" in warned)
    code, _, warned = remediator("resume")
    assert (2, True) == (code, "these pauses stand: target postgres:main/orders by ann" in warned)
    assert ["upgrade"] == [one["why"] for one in service.get("/pause").json()["items"]]
