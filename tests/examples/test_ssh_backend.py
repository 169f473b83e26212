"""A backend out of a package of its own: installed, found, and used from an alert to its audit, on a real sshd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.bench import remediation
from tests.support import service, ssh
from tests.support.alerts import alert, notification
from tests.support.processes import wait_until
from tests.support.service import ServiceOptions
from tests.support.ssh import SshServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "remediator-ssh"
TARGET = {"ssh": {"host": "{{ labels.host }}"}}
SECRET = "s3cr3t-of-the-host"


def installed(source: Path, home: Path) -> Mapping[str, str]:
    """Install a package beside ours, as pip does; the environment of a process that has both."""
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*words, "--target", str(home), str(source)], check=True, capture_output=True, text=True)
    return {"PYTHONPATH": str(home)}


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The example package, installed once."""
    return installed(EXAMPLE, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    """A host."""
    with ssh.serve() as running:
        yield running


def command(env: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with a plug-in."""
    environment = {**os.environ, **env}
    return subprocess.run(
        [sys.executable, "-m", "app", *words], env=environment, capture_output=True, text=True, check=False
    )


def step(line: str, *arguments: str, **other: Any) -> dict[str, Any]:
    """A step that runs a command."""
    return {"action": "ssh.run", "with": {"command": line, "arguments": list(arguments), **other}}


def configured(home: Path, server: SshServer, **connection: Any) -> Path:
    """A configuration with one host in scope, and one that is not."""
    given = server.connection(**connection)
    file = home / "config.yaml"
    secrets = {"told": {"value": SECRET}}
    connections = {"ssh": {"web-1": given, "db-1": given}, "secrets": secrets}
    file.write_text(yaml.safe_dump({"connections": connections, "scope": {"ssh": {"hosts": ["web-*"]}}}))
    return file


def cataloged(home: Path, *remediations: Mapping[str, Any]) -> Path:
    """A catalog of these."""
    file = home / "catalog.yaml"
    file.write_text(yaml.safe_dump({"remediations": list(remediations)}))
    return file


def post(running: service.Service, **labels: str) -> None:
    """Send an alert that fires now."""
    body = notification(alert(starts_at=datetime.now(UTC), **labels))
    answer = running.post("/webhooks/alertmanager", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text


def ended(running: service.Service, name: str) -> dict[str, Any]:
    """The run of a remediation, once it has ended."""

    def found() -> dict[str, Any] | None:
        items = running.get("/remediations", params={"remediation": name}).json()["items"]
        over = [one for one in items if one["state"] in {"succeeded", "failed", "denied", "interrupted"}]
        return running.get(f"/remediations/{over[0]['id']}").json() if over else None

    return wait_until(found, 60, f"the end of {name}")


def test_an_alert_runs_a_command_on_a_host(tmp_path: Path, plugged: Mapping[str, str], server: SshServer) -> None:
    """It is planned, guarded, run with its values quoted, verified and audited; other hosts are out of reach."""
    mark = server.home / "mark"
    (server.home / "secret").write_text(SECRET)
    awkward = "a b; touch /tmp/never $(id) '"
    catalog = cataloged(
        tmp_path,
        remediation(
            "stuck",
            step(f"cat {server.home}/secret; printf %s >{mark}", "{{ labels.unit }}"),
            target=TARGET,
            verify=[{"check": "ssh.exit_status", "with": {"command": f"test -s {mark}"}, "timeout": "10s"}],
        ),
        remediation("broken", step("echo out of order >&2; exit 3"), target=TARGET),
        remediation("option", step("ls", "{{ labels.unit }}"), target=TARGET),
        remediation("loud", step("head -c 10000000 /dev/zero | tr '\\0' x"), target=TARGET),
    )
    options = ServiceOptions(tmp_path / "data", None, [catalog], configured(tmp_path, server), env=plugged)
    with service.serve(tmp_path, options) as running:
        for name, labels in (
            ("stuck", {"host": "web-1", "unit": awkward}),
            ("broken", {"host": "web-1"}),
            ("option", {"host": "web-1", "unit": "--help"}),
            ("loud", {"host": "web-1"}),
        ):
            post(running, alertname=name, **labels)
            ended(running, name)
        run = ended(running, "stuck")
        assert ("succeeded", "ssh:web-1") == (run["state"], run["target"])
        assert awkward == mark.read_text()
        assert SECRET not in json.dumps(run)
        assert "admitted" in running.get(f"/remediations/{run['id']}/events").text
        assert "ended with 3: out of order" in json.dumps(ended(running, "broken"))
        assert "template_failed" == ended(running, "option")["reason"]
        assert len(json.dumps(ended(running, "loud"))) < 40_000
        post(running, alertname="broken", host="db-1")
        wait_until(lambda: "add it to scope.ssh.hosts" in running.get("/remediations").text, 30, "a denial")


def test_a_host_with_another_key_is_never_talked_to(
    tmp_path: Path, plugged: Mapping[str, str], server: SshServer
) -> None:
    """Preflight finds it, and the run fails before anything is run."""
    other = server.key.with_suffix(".pub").read_text().strip()
    config = configured(tmp_path, server, host_keys=[other])
    catalog = cataloged(tmp_path, remediation("stuck", step("true"), target={"ssh": {"host": "web-1"}}))
    done = command(plugged, "check", "--live", "--config", str(config), "--data", str(tmp_path), str(catalog))
    assert (1, True) == (done.returncode, "none of host_keys" in done.stdout), done.stdout + done.stderr
    well = command(
        plugged, "check", "--live", "--config", str(configured(tmp_path, server)), "--data", str(tmp_path), str(catalog)
    )
    assert 0 == well.returncode, well.stdout + well.stderr


def test_a_plug_in_is_known_everywhere(tmp_path: Path, plugged: Mapping[str, str], server: SshServer) -> None:
    """In the schema of catalogs and of the configuration, in the reference, and in what `check` says."""
    assert '"ssh.run"' in command(plugged, "schema").stdout
    assert "host_keys" in command(plugged, "schema", "configuration").stdout
    told = command(plugged, "backends", "ssh").stdout
    wanted = ("remediator-ssh 0.1.0", "ssh.run", "ssh.exit_status", "expect_status")
    assert [] == [one for one in wanted if one not in told]
    misspelt = remediation("stuck", step("true"), target={"ssh": {"hots": "web-1"}})
    templated = remediation("open", step("{{ labels.command }}"), target={"ssh": {"host": "web-1"}})
    done = command(plugged, "check", str(cataloged(tmp_path, misspelt, templated)))
    assert 'unknown field "hots" for "ssh"; did you mean "host"?' in done.stderr
    assert "no template can stand here: write the text out" in done.stderr
    nowhere = command(plugged, "check", "--config", str(configured(tmp_path, server, host_keys=[])))
    assert "connections.ssh.web-1.host_keys" in nowhere.stderr


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
        ("BACKEND = 1", "is no Backend"),
        ("from remediator_ssh_broken import missing", "ModuleNotFoundError"),
    ],
)
def test_a_broken_plug_in_is_named_and_nothing_starts(tmp_path: Path, module: str, told: str) -> None:
    """By its distribution, without a traceback."""
    source, site = tmp_path / "source", tmp_path / "site"
    (source / "remediator_broken").mkdir(parents=True)
    (source / "remediator_broken" / "__init__.py").touch()
    (source / "remediator_broken" / "backend.py").write_text(module)
    (source / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
        "[project]\nname = 'remediator-broken'\nversion = '1.2.3'\n"
        "[project.entry-points.'remediator.backends']\nbroken = 'remediator_broken.backend:BACKEND'\n"
    )
    done = command(installed(source, site), "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    assert 2 == done.returncode
    assert "the plug-in remediator-broken 1.2.3 (backend 'broken') cannot be used: " in done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
