"""Follows "A first remediation" of docs/remediations.md to the letter, and compares what the commands really print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.redis import RedisServer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "remediations.md").read_text()


def blocks(heading: str) -> list[str]:
    """The code blocks of one section of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w+\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with the files that the section has its reader write."""
    alert, catalog, config, *_ = blocks("A first remediation")
    (tmp_path / "alert.json").write_text(alert)
    (tmp_path / "remediations").mkdir()
    (tmp_path / "remediations" / "shop.yaml").write_text(catalog)
    (tmp_path / "config.yaml").write_text(config)
    return tmp_path


def follow(console: str, home: Path) -> tuple[str, str]:
    """What the page says that a command prints, and what it does print."""
    prompt, _, promised = console.partition("\n")
    words = prompt.removeprefix("$ remediator ").split()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REMEDIATOR_")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "app", *words]
    done = subprocess.run(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return promised, done.stdout


def test_check_prints_what_the_page_shows(home: Path) -> None:
    """The example is in scope and configured; only the channel is missing."""
    *_, check, _plan = blocks("A first remediation")
    promised, printed = follow(check, home)
    assert promised == printed


def test_plan_prints_what_the_page_shows(home: Path, redis_server: RedisServer) -> None:
    """With 120 pages in the cache; the page leaves out some guards."""
    *_, plan = blocks("A first remediation")
    config = home / "config.yaml"
    config.write_text(config.read_text().replace("redis.shop.svc:6379", f"{redis_server.host}:{redis_server.port}"))
    with redis_server.client() as client:
        client.mset({f"page:{number}": "x" for number in range(120)})
        client.set("session:1", "kept")

    promised, printed = follow(plan, home)

    begin, _, end = promised.partition("    ...\n")
    assert begin == printed[: len(begin)]
    assert end == printed[-len(end) :]


def test_check_tells_mistakes_as_the_page_shows(home: Path) -> None:
    """The two of "When a file is wrong", made in the file of the example."""
    catalog = home / "remediations" / "shop.yaml"
    wrong = catalog.read_text().replace("redis.delete_matching", "redis.delete_matchin").replace("settle:", "setle:")
    catalog.write_text(wrong)
    promised, printed = follow(blocks("When a file is wrong")[0], home)
    assert promised == printed
