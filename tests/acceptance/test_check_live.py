"""`check --live`: what it prints and its exit status, on real servers; what `check` and `plan` say of modes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.bench import remediation, write_yaml
from tests.support.processes import free_port
from tests.support.redis import RedisServer

ROOT = Path(__file__).parents[2]
PATIENCE = 60


def check(*words: str | Path, command: str = "check") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    line = [sys.executable, "-m", "app", command, *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT)


def flush(name: str, instance: str, **fields: Any) -> dict[str, Any]:
    """A remediation that empties a cache."""
    return remediation(
        name,
        {"action": "redis.flush"},
        target={"redis": {"instance": instance, "database": 0}},
        mode="approve",
        **fields,
    )


def config(tmp_path: Path, server: RedisServer) -> Path:
    """One cache that answers and one that does not, both in scope."""
    urls = {"well": f"redis://{server.host}:{server.port}", "dead": f"redis://127.0.0.1:{free_port()}"}
    redis = {name: {"url": {"value": url}} for name, url in urls.items()}
    content = {
        "data": str(tmp_path / "data"),
        "scope": {"redis": {"databases": ["*/0"]}},
        "connections": {"redis": redis},
    }
    return write_yaml(tmp_path / "config.yaml", content)


def test_what_can_and_what_cannot_run(tmp_path: Path, redis_server: RedisServer) -> None:
    """A line for each, what is wrong with it, and 1 when any cannot; nothing is left behind."""
    settings = config(tmp_path, redis_server)
    catalog = write_yaml(tmp_path / "c.yaml", {"remediations": [flush("first", "well"), flush("second", "dead")]})
    done = check("--live", "--config", settings, catalog)
    assert 1 == done.returncode, done.stderr
    header, first, second, last = done.stdout.splitlines()
    assert ["REMEDIATION", "RESULT", "WHAT"] == header.split()
    assert 1 == len({line.index(word) for line, word in ((header, "RESULT"), (first, "ok"), (second, "cannot"))})
    assert ["first", "ok"] == first.split()[:2]
    assert ["second", "cannot", "Redis", "dead/0:"] == second.split()[:4]
    assert last.startswith("NOT ALL CAN RUN: 2 remediations")

    parsed = json.loads(check("--live", "--json", "--config", settings, catalog).stdout)
    assert (False, ["ok", "cannot"]) == (parsed["ok"], [report["result"] for report in parsed["preflight"]])
    assert not (tmp_path / "data").exists()


def test_what_only_an_alert_will_tell_is_not_called_well(tmp_path: Path) -> None:
    """Nothing was asked, so nothing is known; it is no reason to fail either."""
    entry = remediation("free", {"action": "http.request", "with": {"url": "http://{{ labels.host }}/"}})
    done = check("--live", write_yaml(tmp_path / "c.yaml", {"remediations": [entry]}))
    assert 0 == done.returncode, done.stderr
    assert ["free", "unknown", "its"] == done.stdout.splitlines()[1].split()[:3]


def test_without_live_nothing_is_contacted(tmp_path: Path, redis_server: RedisServer) -> None:
    """A dead server is no problem of the catalog; what earns its mode is told."""
    catalog = write_yaml(tmp_path / "c.yaml", {"remediations": [flush("second", "dead", earn={"start": "observe"})]})
    done = check("--config", config(tmp_path, redis_server), catalog)
    assert 0 == done.returncode, done.stderr
    assert "second: mode: approve, earned: starts at observe\n" in done.stdout
    parsed = json.loads(check("--json", "--config", config(tmp_path, redis_server), catalog).stdout)
    assert {"second": {"mode": "approve", "start": "observe"}} == parsed["earning"]
    assert "preflight" not in parsed


def test_plan_says_which_mode_holds(tmp_path: Path, redis_server: RedisServer) -> None:
    """What it has earned so far, not what it may come to."""
    with redis_server.client() as client:
        client.set("key", "value")
    catalog = write_yaml(tmp_path / "c.yaml", {"remediations": [flush("first", "well", earn={})]})
    alert = tmp_path / "alert.json"
    alert.write_text(json.dumps({"labels": {"alertname": "first"}}))
    words = ("--config", config(tmp_path, redis_server), "--catalog", catalog, "--alert", alert)
    done = check(*words, command="plan")
    assert 1 == done.returncode, done.stderr
    assert "    mode     observe\n" in done.stdout
    assert "the earned mode is observe" in done.stdout
    assert "observe" == json.loads(check(*words, "--json", command="plan").stdout)[0]["prospects"][0]["mode"]
