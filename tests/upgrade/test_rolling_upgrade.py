"""The previous release goes on working on the schema of this one, beside replicas of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from app.domain.states import FINAL_STATES
from tests.acceptance.test_cli import remediator
from tests.support import web
from tests.support.alerts import alert, notification
from tests.support.binaries import unavailable
from tests.support.engine import Clock
from tests.support.processes import Process, answers, free_port, wait_until

ROOT = Path(__file__).parents[2]
PREVIOUS = "021b2f0"  # the last commit whose store has the schema 0001
PATIENCE = 60.0
_JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the previous release, as the history has it."""
    home = tmp_path_factory.mktemp("previous")
    done = subprocess.run(["git", "archive", PREVIOUS, "app"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        unavailable(f"this clone has not the history of the previous release, commit {PREVIOUS}")
    subprocess.run(["tar", "x", "-C", str(home)], input=done.stdout, check=True)
    return home


class Replica:
    """One service of either release."""

    def __init__(self, code: Path, home: Path, config: dict[str, object], entries: list[dict[str, object]]) -> None:
        home.mkdir()
        self.url = f"http://127.0.0.1:{free_port()}"
        (home / "config.yaml").write_text(yaml.safe_dump(config))
        (home / "catalog.yaml").write_text(yaml.safe_dump({"remediations": entries}))
        command = [sys.executable, "-m", "app", "serve", "--listen", self.url.removeprefix("http://")]
        command += ["--config", str(home / "config.yaml"), "--catalog", str(home / "catalog.yaml")]
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("REMEDIATOR_")}
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=30)
        self.process = Process(command, home / "log", env=inherited | {"PYTHONPATH": str(code)}, cwd=code)
        self.process.wait_ready(lambda: answers(self._client, "/-/ready"))

    def post(self, *names: str) -> None:
        """An alert of each name begins to fire."""
        body = notification(*(alert(alertname=name, starts_at=Clock()()) for name in names))
        answer = self._client.post("/webhooks/alertmanager", content=body, headers=_JSON)
        assert 202 == answer.status_code, answer.text

    def runs(self) -> dict[str, tuple[str, str]]:
        """State and message of each remediation's newest run."""
        items = self._client.get("/remediations", params={"limit": 100}).raise_for_status().json()["items"]
        return {item["remediation"]: (item["state"], item["message"]) for item in reversed(items)}

    def close(self) -> None:
        """End it."""
        self.process.stop(timeout=30)
        self._client.close()


@pytest.fixture
def sink() -> Iterator[web.WebServer]:
    """What is acted on."""
    with web.serve() as server:
        yield server


def entry(sink: web.WebServer, name: str, matchers: str = "matchers") -> dict[str, object]:
    """A remediation of one request, which each release writes in its own words."""
    return {
        "name": name,
        "summary": f"Ask for {name}.",
        matchers: [f'alertname="{name}"'],
        "mode": "auto",
        "limits": {"cooldown": "0s", "rate": "1000/1h"},
        "steps": [{"action": "http.request", "with": {"url": f"{sink.url}/{name}"}}],
    }


def test_both_releases_share_the_work(
    previous: Path, sink: web.WebServer, postgres_database: str, tmp_path: Path
) -> None:
    """Every alert is acted on once, whoever receives it; what each release writes the other can use and verify."""
    names = [f"alert-{number}" for number in range(12)]
    old_config: dict[str, object] = {"store": postgres_database, "log": {"format": "json"}, "recheck": "1s"}
    new_config = old_config | {"scope": {"http": {"hosts": ["127.0.0.1"]}}}
    old = Replica(previous, tmp_path / "old", old_config, [entry(sink, name, "match") for name in names])
    try:
        old.post(*names[:4])
        wait_until(lambda: _ended(old, 4), PATIENCE, "the previous release to act alone")
        entries = [entry(sink, name) for name in names]
        new = Replica(ROOT, tmp_path / "new", new_config, entries)  # migrates under the other one's feet
        try:
            old.post(*names[4:8])
            new.post(*names[8:])
            wait_until(lambda: _ended(old, 12) and _ended(new, 12), PATIENCE, f"both to act; {new.runs()}")
            old.close()
            assert {"succeeded"} == {state for state, _ in new.runs().values()}, new.runs()
        finally:
            new.close()
    finally:
        old.close()
    assert sorted(names) == sorted(request.path.removeprefix("/") for request in sink.requests)
    verified = remediator("audit", "verify", "--store", postgres_database)
    assert 0 == verified.returncode, verified.stderr
    assert "from a release that made none" in verified.stdout


def _ended(replica: Replica, count: int) -> bool:
    runs = replica.runs()
    return len(runs) == count and all(state in FINAL_STATES for state, _ in runs.values())
