"""The command line as scripts and people use it: what it prints, and its exit status: 0 yes, 1 no, 2 cannot tell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from app import __version__
from app.domain.alerts import fingerprint_of
from tests.acceptance.audit import PATIENCE
from tests.acceptance.bench import EVERYWHERE, remediation, write_yaml
from tests.support import shop
from tests.support.alerts import alert
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, answers, free_port, wait_until
from tests.support.shop import Shop

ROOT = Path(__file__).parents[2]


def remediator(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "app", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT)


def restart(name: str, namespace: str) -> dict[str, Any]:
    """A remediation that restarts the workload of a pod."""
    target = {"kubernetes": {"kind": "Pod", "namespace": namespace, "name": "{{ labels.pod }}"}}
    checks = [{"check": "kubernetes.rollout_complete"}]
    return remediation(name, {"action": "kubernetes.rollout_restart"}, target=target, verify=checks, settle="5m")


def test_version() -> None:
    """It names itself and its release."""
    done = remediator("--version")

    assert (0, f"remediator, version {__version__}\n") == (done.returncode, done.stdout)


def test_serve_works_in_an_empty_directory(tmp_path: Path) -> None:
    """Nothing has to exist: data and catalog directories are made, and the service is ready and says what it did."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "app", "serve", "--listen", url.removeprefix("http://")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = Process(command, tmp_path / "log", env=environment, cwd=tmp_path)
    try:
        with httpx.Client(base_url=url, trust_env=False) as client:
            process.wait_ready(lambda: answers(client, "/-/ready"))
        told = remediator("runs", "--url", url), remediator("runs", "--data", tmp_path / "data")
    finally:
        process.stop()

    assert [0, 0] == [done.returncode for done in told], told[0].stderr + told[1].stderr
    assert [True, True] == [done.stdout.startswith("no runs since ") for done in told]
    assert {"data", "remediations", "log"} == {path.name for path in tmp_path.iterdir()}


def test_check_of_the_shipped_catalog() -> None:
    """It is well, its digest says which one it is, and guards that are turned off are told."""
    done = remediator("check", "remediations")

    assert 0 == done.returncode, done.stderr
    *notes, last = done.stdout.splitlines()
    assert ["svg-ai-4tier-disaster: the guard storm is turned off: a page touches nothing"] == notes
    assert re.fullmatch(r"ok: \d+ remediations in \d+ files, digest [0-9a-f]{12}", last)


def test_check_tells_every_problem_with_its_place(tmp_path: Path) -> None:
    """Two mistakes in one file are both told, as file:line:column, and the exit status is 1."""
    file = tmp_path / "shop.yaml"
    file.write_text(
        "remediations:\n"
        "  - name: shop\n"
        "    summary: Restart the shop.\n"
        "    matchers: [alertname=ShopDown]\n"
        "    mode: observe\n"
        "    cooldwn: 5m\n"
        "    steps:\n"
        "      - action: kubernetes.rollout_restrat\n"
    )

    spoken, parsed = remediator("check", file), remediator("check", "--json", file)

    assert (1, 1) == (spoken.returncode, parsed.returncode)
    first, second, summary = spoken.stderr.splitlines()
    assert first.startswith(f"{file}:6:5  shop.cooldwn  unknown field")
    assert second.startswith(f"{file}:8:17  shop.steps[0].action  unknown action")
    assert 'did you mean "kubernetes.rollout_restart"?' in second
    assert summary.startswith("2 problems in 1 file")
    problems = json.loads(parsed.stdout)["problems"]
    assert [(6, 5), (8, 17)] == [(problem["line"], problem["column"]) for problem in problems]


def test_wrong_configuration_is_told_with_its_place(tmp_path: Path) -> None:
    """A command that needs the configuration ends with 2 and says what is wrong, where."""
    file = tmp_path / "config.yaml"
    file.write_text("rate: 60/1h\nscope:\n  kubernetes:\n    namspaces: [shop]\nworkers: none\n")

    for command in ("check", "serve"):
        done = remediator(command, "--config", file, "--data", tmp_path / "data")
        assert 2 == done.returncode
        told = 'unknown field "namspaces" for "kubernetes"; did you mean "namespaces"?'
        assert f"{file}:4:5  scope.kubernetes.namspaces  {told}" in done.stderr
        assert f"{file}:5:1  workers  " in done.stderr
        assert done.stderr.endswith("remediator: the configuration cannot be used\n")
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"audit": {"key": {"file": "{}/none"}}}, "audit.key.file: cannot read the secret file {}/none: No such file"),
        ({"audit": {"key": {"file": "{}/binary"}}}, "audit.key.file: cannot read the secret file {}/binary: it is not"),
        ({"store_file": "{}/none"}, "store_file: cannot read the secret file {}/none: No such file"),
        ({"store": "nonsense"}, "the store is not a URL"),
        (
            {"auth": {"tokens": [{"name": "ops", "role": "admin", "file": "{}/none"}]}},
            "auth.tokens 'ops': cannot read the secret file {}/none: No such file",
        ),
        ({"tls": {"cert_file": "{}/none", "key_file": "{}/none"}}, "tls.cert_file {}/none and tls.key_file cannot be"),
    ],
)
def test_check_reads_each_file_that_the_start_reads(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    """What it calls well starts; the setting is named."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": []})
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config).replace("{}", str(tmp_path)))

    for command in ("check", "serve"):
        done = remediator(command, "--config", file, "--catalog", catalog, "--data", tmp_path)
        assert (2, True) == (done.returncode, problem.replace("{}", str(tmp_path)) in done.stderr), done.stderr
        assert "Traceback" not in done.stderr


def test_schema_accepts_what_is_shipped() -> None:
    """Editors with the printed schema accept the shipped catalog and point at a typing error."""
    schema = json.loads(remediator("schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)

    shipped = sorted((ROOT / "remediations").glob("*.yaml"))
    assert shipped
    for file in shipped:
        document = yaml.safe_load(file.read_text())
        assert [] == [error.message for error in validator.iter_errors(document)]
        document["remediations"][0]["setle"] = "5m"
        assert not validator.is_valid(document)


def test_migrate_brings_a_store_up_to_date(postgres_database: str) -> None:
    """The first time it migrates, the second time there is nothing to do."""
    first, second = (remediator("migrate", "--store", postgres_database) for _ in range(2))

    assert [0, 0] == [first.returncode, second.returncode], first.stderr + second.stderr
    assert first.stdout.startswith("migrated from nothing to ")
    assert first.stdout.removeprefix("migrated from nothing to ") == second.stdout.removeprefix("already at ")


@pytest.fixture
def database(postgres_server: PostgresServer, postgres_database: str) -> Iterator[Shop]:
    """The application's database, with the remediator's role."""
    with ExitStack() as stack:
        yield stack.enter_context(shop.build(postgres_server, postgres_database))


def test_plan_on_postgresql_changes_nothing(database: Shop, tmp_path: Path) -> None:
    """It shows the target, what is before and after, what each guard says; the sessions live on, no file is made."""
    sessions = [database.session() for _ in range(3)]
    role = database.server.database_url(database.database, database.remediator_role)
    config = write_yaml(
        tmp_path / "config.yaml",
        {
            "connections": {"postgres": {"main": {"url": {"value": role}}}},
            "scope": EVERYWHERE,
            "data": str(tmp_path / "data"),
        },
    )
    step = {"action": "postgres.terminate_idle", "with": {"idle_longer_than": "0s"}}
    entry = remediation("idle", step, target={"postgres": {"instance": "main"}}, mode="approve")
    catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": [entry]})

    done = remediator(
        "plan", "--config", config, "--catalog", catalog, "--alert", "-", stdin='{"labels": {"alertname": "idle"}}'
    )

    assert 0 == done.returncode, done.stderr
    assert "verdict  would ask (approval_required): the mode is approve" in done.stdout
    assert f"target   postgres:main/{database.database}" in done.stdout
    assert "      3 connections, 3 of them idle; these are ended:\n" in done.stdout
    assert 3 == len(re.findall(r"^ +\d+ +\S+ .* idle +\S+$", done.stdout, re.MULTILINE)), done.stdout
    assert re.search(r"guard +scope +allow\n", done.stdout)
    assert re.search(r"guard +approval +needs_approval: the mode is approve\n", done.stdout)
    assert [(1,)] * 3 == [session.execute("SELECT 1").fetchone() for session in sessions]
    assert not (tmp_path / "data").exists()


def test_plan_on_the_cluster_changes_nothing(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """For a pod's alert it shows the Deployment that would be restarted, in words and as JSON, and restarts nothing."""
    before = cluster.deployment(namespace, "api", replicas=2)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    pod = wait_until(lambda: cluster.get(pods)["items"], PATIENCE, "a pod")[0]["metadata"]["name"]
    config = write_yaml(
        tmp_path / "config.yaml",
        {
            "connections": {"kubernetes": {"default": {"kubeconfig": str(cluster.kubeconfig)}}},
            "scope": {"kubernetes": {"namespaces": [namespace]}},
            "data": str(tmp_path / "data"),
        },
    )
    catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": [restart("crash-loops", namespace)]})
    file = tmp_path / "alert.json"
    alerts = [alert(alertname=name, pod=pod, starts_at=datetime.now(UTC)) for name in ("crash-loops", "crash-lops")]
    file.write_text(json.dumps(alerts))
    words = ("plan", "--config", config, "--catalog", catalog, "--alert", file)

    done, parsed = remediator(*words), remediator(*words, "--json")

    assert (0, 0) == (done.returncode, parsed.returncode), done.stderr
    assert f"target   kubernetes:Deployment/{namespace}/api (from Pod {namespace}/{pod})" in done.stdout
    assert f"step 1   kubernetes.rollout_restart: restart Deployment {namespace}/api (2 replicas)" in done.stdout
    assert "verify   kubernetes.rollout_complete within 1m" in done.stdout
    assert "settle   the alert must resolve within 5m" in done.stdout
    known, unknown = json.loads(parsed.stdout)
    [prospect] = known["prospects"]
    assert "would_run" == prospect["verdict"]
    assert 2 == prospect["plan"]["steps"][0]["before"]["replicas"]
    assert prospect["plan"]["steps"][0]["desired"]["restarted_at"]
    assert {"allow"} == {decision["verdict"] for decision in prospect["decisions"]}
    assert [] == unknown["prospects"]
    after = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/api")
    assert before["spec"] == after["spec"]
    assert not (tmp_path / "data").exists()


def test_plan_for_an_alert_that_nothing_answers(tmp_path: Path) -> None:
    """It names the nearest remediation and the matcher that says no, and ends with 1; what is no alert ends with 2."""
    entry = remediation("idle", {"action": "notify.send", "with": {"channel": "a", "title": "b", "body": "c"}})
    entry["matchers"] = ['alertname="Idle"', 'team="web"']
    catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": [entry]})
    words = ("plan", "--catalog", catalog, "--data", tmp_path / "data", "--alert", "-")

    no = remediator(*words, stdin='{"labels": {"alertname": "Idle"}}')
    odd = remediator(*words, stdin='{"label": {}}')

    assert 1 == no.returncode, no.stderr
    assert 'nearest: idle, but not team="web"' in no.stdout
    assert 2 == odd.returncode
    assert "not an alert or notification of Alertmanager: labels: Field required" in odd.stderr


def test_plan_of_labels_alone_knows_the_alerts_fingerprint(tmp_path: Path) -> None:
    """It is what the lock and the cooldown of a remediation without target are about."""
    entry = remediation("idle", {"action": "notify.send", "with": {"channel": "a", "title": "b", "body": "c"}})
    catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": [entry]})
    config = write_yaml(
        tmp_path / "config.yaml", {"connections": {"notify": {"a": {"urls": [{"value": "json://127.0.0.1"}]}}}}
    )
    words = ("plan", "--config", config, "--catalog", catalog, "--data", tmp_path / "data", "--alert", "-")

    done = remediator(*words, stdin='{"labels": {"alertname": "idle"}}')

    fingerprint = fingerprint_of({"alertname": "idle"})
    assert f"    target   none:idle/{fingerprint}\n" in done.stdout, done.stderr


def test_check_shows_which_guards_are_turned_off(tmp_path: Path) -> None:
    """With the reason that the author gave, for people and for machines."""
    entry = remediation("idle", {"action": "notify.send", "with": {"channel": "x", "title": "t", "body": "b"}})
    why = "it only tells people"
    catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": [entry | {"without_guards": {"storm": why}}]})

    done, parsed = remediator("check", catalog), remediator("check", catalog, "--json")

    assert f"idle: the guard storm is turned off: {why}\n" in done.stdout
    assert {"idle": {"storm": why}} == json.loads(parsed.stdout)["without_guards"]


def test_check_counts_in_words_that_fit(tmp_path: Path) -> None:
    """One is no plural; freezes are counted where there are any."""
    step = {"action": "notify.send", "with": {"channel": "x", "title": "t", "body": "b"}}
    freezes = [{"name": name, "summary": "s", "weekdays": ["sunday"]} for name in ("one", "two")]
    catalog = write_yaml(tmp_path / "catalog.yaml", {"remediations": [remediation("idle", step)], "freezes": freezes})

    done, parsed = remediator("check", catalog), remediator("check", catalog, "--json")

    assert done.stdout.startswith("ok: 1 remediation in 1 file, 2 freezes, digest ")
    assert 2 == json.loads(parsed.stdout)["freezes"]
