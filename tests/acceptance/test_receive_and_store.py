"""Intake and store over storms, outages and restarts: what was answered with 202 is never lost."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.acceptance.audit import PATIENCE, Audit
from tests.acceptance.bench import notified, options, remediation, request, routes, serving
from tests.conftest import NewDirectory, StartAlertmanager, StartPostgres
from tests.support.alerts import alert, notification
from tests.support.processes import free_port, wait_until
from tests.support.service import Service
from tests.support import web

WEBHOOK = "/webhooks/alertmanager"
STORM = 10_000
FAILED = "alertmanager_notifications_failed_total"
FAILED_REQUESTS = "alertmanager_notification_requests_failed_total"


def test_ten_thousand_alerts_in_one_notification(new_directory: NewDirectory) -> None:
    """One POST with all of a storm is accepted, and each of its alerts becomes an episode."""
    with serving(new_directory("service"), []) as service:
        audit = Audit(service)
        body = notification(*(alert(number=str(number)) for number in range(STORM)))

        answer = service.post(WEBHOOK, content=body)

        assert (202, {"notification": "accepted", "alerts": STORM}) == (answer.status_code, answer.json())
        wait_until(
            lambda: audit.metric("remediator_alerts_total", receipt="opened") == STORM, PATIENCE, "all to be taken in"
        )
        assert STORM == audit.metric("remediator_episodes_unmatched_total")
        assert STORM == len(_numbers(audit))


def _numbers(audit: Audit) -> set[str]:
    """The label `number` of every episode, page by page."""
    seen: set[str] = set()
    query: dict[str, object] = {"limit": 500}
    while query:
        page = audit.get("/episodes", **query)
        seen |= {item["labels"]["number"] for item in page["items"]}
        query = {"limit": 500, "cursor": page["next"]} if page["next"] else {}
    return seen


def test_outage_of_the_store_loses_nothing(
    start_postgres: StartPostgres, start_alertmanager: StartAlertmanager, new_directory: NewDirectory
) -> None:
    """While PostgreSQL is away Alertmanager gets 503s; it tries again, and then every alert has its run."""
    store = start_postgres()
    with web.serve() as target:
        catalog = [remediation("any", request(f"{target.url}/{{{{ labels.alertname }}}}"), match=['alertname=~"A.*"'])]
        with serving(new_directory("service"), catalog, store=store.url) as service:
            audit, router = Audit(service), start_alertmanager(routes(service.url))
            router.push({"alertname": "A-before"})
            audit.reached("succeeded", alertname="A-before")

            store.stop()
            direct = service.post(WEBHOOK, content=notification(alert(alertname="A-direct")))
            router.push({"alertname": "A-meanwhile"})
            wait_until(lambda: notified(router, FAILED_REQUESTS), PATIENCE, "Alertmanager to meet the outage")
            not_ready, listed = service.get("/-/ready"), service.get("/remediations")
            store.start()

            assert (503, "store_unavailable") == (direct.status_code, direct.json()["reason"])
            assert int(direct.headers["Retry-After"]) > 0
            assert (503, 503) == (not_ready.status_code, listed.status_code)
            audit.reached("succeeded", alertname="A-meanwhile")
            assert ["A-before", "A-meanwhile"] == [run["alertname"] for run in audit.runs()]
            assert ["/A-before", "/A-meanwhile"] == [asked.path for asked in target.requests]
            assert audit.metric("remediator_notifications_total", result="unavailable") >= 2
            wait_until(lambda: service.get("/-/ready").is_success, PATIENCE, "the service to be ready again")


def test_two_processes_do_not_share_an_sqlite_file(new_directory: NewDirectory) -> None:
    """The second one says which file and what to use instead, and the first one goes on."""
    home = new_directory("service")
    with serving(home, []) as first:
        command = options(home, []).command(free_port())
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

        said = second.stdout + second.stderr
        assert 2 == second.returncode, said
        assert f"another process serves {home / 'data' / 'remediator.db'}" in said
        assert "several replicas need PostgreSQL" in said
        assert "Traceback" not in said
        assert first.get("/-/ready").is_success


def test_sigterm_lets_the_running_step_finish(new_directory: NewDirectory) -> None:
    """A step that must not be repeated is under way: it is waited for, and after the restart its run goes on."""
    with web.serve() as target:
        step, settle = request(f"{target.url}/once"), {"settle": "1h"}
        with serving(new_directory("service"), [remediation("slow", step, **settle)]) as service:
            audit = Audit(service)
            target.answering.clear()
            service.post(WEBHOOK, content=notification(alert(alertname="slow")))
            wait_until(lambda: target.requests, PATIENCE, "the step to have begun")
            assert service.process
            service.process.send(signal.SIGTERM)
            wait_until(lambda: _refuses(service), PATIENCE, "the service to stop listening")
            assert service.process.returncode is None
            target.answering.set()
            assert 0 == service.process.wait(PATIENCE)

            service.start()
            run = audit.reached("verifying", alertname="slow")
            assert [("succeeded", 1)] == [(one["state"], one["tries"]) for one in run["steps"]]
            assert 1 == len(target.requests)


def _refuses(service: Service) -> bool:
    try:
        service.get("/-/healthy")
    except httpx.TransportError:
        return True
    return False


def test_post_to_a_wrong_path_is_told_the_right_one(new_directory: NewDirectory) -> None:
    """A near miss in webhook_configs is answered in words that name the path, and counted."""
    with serving(new_directory("service"), []) as service:
        for path in ("/", "/webhook/alertmanager", "/api/v2/alerts"):
            answer = service.post(path, content=notification(alert()))
            assert (404, "wrong_path") == (answer.status_code, answer.json()["reason"])
            assert WEBHOOK in answer.json()["detail"]
        assert 3 == Audit(service).metric("remediator_notifications_total", result="wrong_path")
        assert [] == Audit(service).episodes()


def test_alertmanager_brings_its_token(new_directory: NewDirectory, start_alertmanager: StartAlertmanager) -> None:
    """A wrong token is refused and shows in both sides' metrics; the right one, put into its file, needs no restart."""
    home = new_directory("service")
    ours, theirs = home / "ours", home / "theirs"
    ours.write_text("right\n")
    theirs.write_text("wrong")
    tokens = [
        {"name": "alertmanager", "role": "alertmanager", "file": str(ours)},
        {"name": "me", "role": "viewer", "value": "look"},
    ]
    with serving(home, [], {"auth": {"tokens": tokens}}) as service:
        audit = Audit(service, "look")
        http_config = {"authorization": {"credentials_file": str(theirs)}}
        router = start_alertmanager(routes(service.url, http_config=http_config))

        router.push({"alertname": "Before"})
        wait_until(lambda: notified(router, FAILED), PATIENCE, "Alertmanager to be refused")
        assert 1 <= audit.metric("remediator_notifications_total", result="unauthorized")
        assert [] == audit.episodes()
        assert 401 == service.get("/remediations").status_code
        theirs.write_text("right")

        assert ["Before"] == [audit.episode()["alertname"]]
        ours.write_text("rotated\n")
        theirs.write_text("rotated")
        router.push({"alertname": "After"})
        wait_until(lambda: len(audit.episodes()) == 2, PATIENCE, "the alert after the rotation")
        assert "right" not in service.logs


def _catalog(name: str) -> str:
    step = "{action: http.request, with: {url: 'http://127.0.0.1:1/'}}"
    return f"remediations:\n  - {{name: {name}, summary: S., match: [alertname=Never], steps: [{step}]}}\n"


def _swap(folder: Path, version: str, text: str) -> None:
    """Put files in place as Kubernetes does with a ConfigMap: a new directory, then the link to it, at once."""
    (folder / version).mkdir()
    (folder / version / "catalog.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")


@pytest.mark.parametrize("by", ["change", "sighup", "configmap", "request"])
def test_catalog_is_read_again(by: str, new_directory: NewDirectory) -> None:
    """A good change becomes the catalog; a broken one is told in /catalog and by a metric, and the old one stays."""
    home = new_directory("service")
    folder = home / "catalog"
    folder.mkdir()
    _swap(folder, "..1", _catalog("one"))
    (folder / "catalog.yaml").symlink_to("..data/catalog.yaml")
    with serving(home, [], catalog=[folder]) as service:
        audit = Audit(service)
        assert ["one"] == _names(audit)

        _put(service, by, folder, "..2", _catalog("two"))
        wait_until(lambda: _names(audit) == ["two"], PATIENCE, "the new catalog")
        assert 1 == audit.metric("remediator_catalog_last_reload_successful")

        _put(service, by, folder, "..3", _catalog("three").replace("steps", "stepps"))
        wait_until(lambda: audit.get("/catalog")["last_reload_error"], PATIENCE, "the broken catalog to be refused")
        problems = audit.get("/catalog")["last_reload_error"]
        assert ["two"] == _names(audit)
        assert 0 == audit.metric("remediator_catalog_last_reload_successful")
        assert any(f"{folder / 'catalog.yaml'}:2:" in one and 'did you mean "steps"?' in one for one in problems)

        _put(service, by, folder, "..4", _catalog("four"))
        wait_until(lambda: _names(audit) == ["four"], PATIENCE, "the mended catalog")
        assert audit.get("/catalog")["last_reload_error"] is None
        assert 1 == audit.metric("remediator_catalog_last_reload_successful")


def _names(audit: Audit) -> list[str]:
    return [item["name"] for item in audit.get("/catalog")["items"]]


def _put(service: Service, by: str, folder: Path, version: str, text: str) -> None:
    """Change the catalog, and ask for it to be read where that is what the test is about."""
    if by == "configmap":
        _swap(folder, version, text)
    else:
        (folder / "catalog.yaml").write_text(text)
    if by == "sighup":
        service.hangup()
    if by == "request":
        answer = service.post("/-/reload")
        assert ("stepps" in text) == (answer.status_code == 422)
