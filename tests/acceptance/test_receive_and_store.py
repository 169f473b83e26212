"""Intake and store over storms, outages and restarts: what was answered with 202 is never lost."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.acceptance.audit import PATIENCE, Audit
from tests.acceptance.bench import notified, options, remediation, request, routes, serving
from tests.conftest import NewDirectory, StartAlertmanager, StartPostgres
from tests.support import web
from tests.support.alerts import alert, notification
from tests.support.processes import free_port, wait_until
from tests.support.service import Service

WEBHOOK = "/webhooks/alertmanager"
STORM = 10_000
FAILED = "alertmanager_notifications_failed_total"
FAILED_REQUESTS = "alertmanager_notification_requests_failed_total"


@dataclass
class Calm:
    """A replica that several tests use at once; its catalog is a directory that tests change, and matches nothing."""

    service: Service
    audit: Audit
    home: Path
    catalog: Path

    def names(self) -> list[str]:
        """The remediations of the running catalog."""
        return [item["name"] for item in self.audit.get("/catalog")["items"]]

    def problems(self) -> list[str]:
        """Why the newest files were refused; empty when they were not."""
        found: list[str] | None = self.audit.get("/catalog")["last_reload_error"]
        return found or []

    def reloaded(self) -> float:
        """When the running catalog was read."""
        return self.audit.metric("remediator_catalog_last_reload_success_timestamp_seconds")

    def accepted(self) -> bool:
        """Whether the newest files were accepted, by the metric."""
        return self.audit.metric("remediator_catalog_last_reload_successful") == 1


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calm]:
    """One replica on SQLite, whose catalog lies as a mounted ConfigMap does."""
    home = tmp_path_factory.mktemp("service")
    folder = home / "catalog"
    folder.mkdir()
    swap(folder, catalog_of("first"))
    (folder / "catalog.yaml").symlink_to("..data/catalog.yaml")
    with serving(home, [], catalog=[folder]) as service:
        yield Calm(service, Audit(service), home, folder)


def catalog_of(name: str) -> str:
    """A catalog of one remediation."""
    step = "{action: http.request, with: {url: 'http://127.0.0.1:1/'}}"
    return f"remediations:\n  - {{name: {name}, summary: S., matchers: [alertname=Never], steps: [{step}]}}\n"


def swap(folder: Path, text: str) -> None:
    """Put a file in place as Kubernetes does with a ConfigMap: a new directory, then the link to it, at once."""
    version = f"..{uuid.uuid4().hex}"
    (folder / version).mkdir()
    (folder / version / "catalog.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")


def write(folder: Path, text: str) -> None:
    """Put a file in place as an editor does."""
    (folder / "catalog.yaml").write_text(text)


def test_ten_thousand_alerts_in_one_notification(calm: Calm) -> None:
    """One POST with all of a storm is accepted, and each of its alerts becomes an episode."""
    body = notification(*(alert(alertname="Storm", number=str(number)) for number in range(STORM)))
    unmatched = calm.audit.metric("remediator_episodes_unmatched_total")

    answer = calm.service.post(WEBHOOK, content=body)

    assert (202, {"notification": "accepted", "alerts": STORM}) == (answer.status_code, answer.json())
    wait_until(lambda: calm.audit.metric("remediator_inbox_notifications") == 0, PATIENCE, "all to be taken in")
    assert unmatched + STORM == calm.audit.metric("remediator_episodes_unmatched_total")
    assert {str(number) for number in range(STORM)} == _numbers(calm.audit)


def _numbers(audit: Audit) -> set[str]:
    """The label `number` of every episode, page by page."""
    seen: set[str] = set()
    query: dict[str, object] = {"alertname": "Storm", "limit": 500}
    while query:
        page = audit.get("/episodes", **query)
        seen |= {item["labels"]["number"] for item in page["items"]}
        query = {**query, "cursor": page["next"]} if page["next"] else {}
    return seen


def test_outage_of_the_store_loses_nothing(
    start_postgres: StartPostgres, start_alertmanager: StartAlertmanager, new_directory: NewDirectory
) -> None:
    """While PostgreSQL is away Alertmanager gets 503s; it tries again, and then every alert has its run."""
    store = start_postgres()
    with web.serve() as target:
        catalog = [
            remediation("any", request(f"{target.url}/{{{{ labels.alertname }}}}"), matchers=['alertname=~"A.*"'])
        ]
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


def test_two_processes_do_not_share_an_sqlite_file(calm: Calm, new_directory: NewDirectory) -> None:
    """The second one says which file and what to use instead, and the first one goes on."""
    command = options(new_directory("service"), [], data=calm.home / "data").command(free_port())
    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    said = second.stdout + second.stderr
    assert 2 == second.returncode, said
    assert f"another process serves {calm.home / 'data' / 'remediator.db'}" in said
    assert "several replicas need PostgreSQL" in said
    assert "Traceback" not in said
    assert calm.service.get("/-/ready").is_success


def test_address_that_is_taken(calm: Calm, new_directory: NewDirectory) -> None:
    """A second process on the same address says so and ends, whatever its store is."""
    command = options(new_directory("service"), []).command(calm.service.port)
    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert 2 == second.returncode, second.stderr
    assert "address already in use" in second.stderr
    assert f"could not start serving on 127.0.0.1:{calm.service.port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_sigterm_lets_the_running_step_finish(new_directory: NewDirectory) -> None:
    """A step that must not be repeated is under way: it is waited for, and after the restart its run goes on."""
    with web.serve() as target:
        step, settle = request(f"{target.url}/once"), {"settle": "1h"}
        with serving(new_directory("service"), [remediation("slow", step, **settle)]) as service:
            audit = Audit(service)
            target.answering.clear()
            service.post(WEBHOOK, content=notification(alert(alertname="slow", starts_at=datetime.now(UTC))))
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


def test_post_to_a_wrong_path_is_told_the_right_one(calm: Calm) -> None:
    """A near miss in webhook_configs is answered in words that name the path, and counted."""
    for path in ("/", "/webhook/alertmanager", "/api/v2/alerts"):
        answer = calm.service.post(path, content=notification(alert(alertname="Lost")))
        assert (404, "wrong_path") == (answer.status_code, answer.json()["reason"])
        assert WEBHOOK in answer.json()["detail"]
    assert 3 == calm.audit.metric("remediator_notifications_total", result="wrong_path")
    assert [] == calm.audit.episodes(alertname="Lost")


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


@pytest.mark.parametrize("put", [write, swap])
def test_changed_catalog_is_read_again(put: Callable[[Path, str], None], calm: Calm) -> None:
    """A good change becomes the catalog; a broken one is told in /catalog and by a metric, and the old one stays."""
    good, mended = f"{put.__name__}-good", f"{put.__name__}-mended"
    put(calm.catalog, catalog_of(good))
    wait_until(lambda: calm.names() == [good], PATIENCE, "the new catalog")
    assert calm.accepted()

    put(calm.catalog, catalog_of("broken").replace("steps", "stepps"))
    missing, unknown = wait_until(calm.problems, PATIENCE, "the broken catalog to be refused")
    assert f'{calm.catalog / "catalog.yaml"}:2:5  broken  missing "steps"' == missing
    assert 'unknown field "stepps" for a remediation; did you mean "steps"?' in unknown
    assert [good] == calm.names()
    assert not calm.accepted()

    put(calm.catalog, catalog_of(mended))
    wait_until(lambda: calm.names() == [mended], PATIENCE, "the mended catalog")
    assert [] == calm.problems()
    assert calm.accepted()


def test_catalog_is_read_again_when_asked(calm: Calm) -> None:
    """SIGHUP reads it although nothing has changed; POST /-/reload answers what came of it."""
    swap(calm.catalog, catalog_of("before"))
    wait_until(lambda: calm.names() == ["before"], PATIENCE, "the catalog to begin with")
    before = calm.reloaded()
    calm.service.hangup()
    wait_until(lambda: calm.reloaded() > before, PATIENCE, "the catalog to be read")

    swap(calm.catalog, catalog_of("asked").replace("steps", "stepps"))
    refused = calm.service.post("/-/reload")
    assert (422, "catalog_invalid") == (refused.status_code, refused.json()["reason"])
    assert calm.problems() == refused.json()["errors"]

    swap(calm.catalog, catalog_of("asked"))
    accepted = calm.service.post("/-/reload")
    assert (200, 1) == (accepted.status_code, accepted.json()["remediations"])
    assert ["asked"] == calm.names()
    assert accepted.json()["digest"] == calm.audit.get("/catalog")["digest"]
