"""The audit of a running service: streamed, exported, verified, and found out when it is changed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.audit import PATIENCE
from tests.acceptance.test_cli import remediator
from tests.support.processes import wait_until
from tests.support.service import Service, ServiceOptions, serve

SSE = {"accept": "text/event-stream"}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that nobody sends alerts to, with a key of its audit."""
    catalog, config = tmp_path / "catalog.yaml", tmp_path / "config.yaml"
    catalog.write_text("remediations: []\n")
    config.write_text("audit: {key: {value: secret}}\n")
    with serve(tmp_path, ServiceOptions(data=tmp_path / "data", catalog=[catalog], config=config)) as running:
        yield running


def pause(service: Service, why: str) -> None:
    """Something that is audited."""
    answer = httpx.put(f"{service.url}/pause", json={"why": why}, timeout=PATIENCE)
    assert 200 == answer.status_code


def told(stream: Iterator[str]) -> dict[str, Any]:
    """The next event of a stream."""
    for line in stream:
        if line.startswith("data: "):
            event: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return event
    raise AssertionError("the stream ended")


def test_events_are_told_as_they_happen_until_the_service_stops(service: Service) -> None:
    """First what there was, then what follows; a client that comes back goes on where it was."""
    pause(service, "first")
    with httpx.stream("GET", f"{service.url}/events", headers=SSE, timeout=PATIENCE) as stream:
        lines = stream.iter_lines()
        first = told(lines)
        pause(service, "second")
        second = told(lines)
        assert ["first", "second"] == [event["message"].rpartition(": ")[2] for event in (first, second)]
        again = SSE | {"last-event-id": first["cursor"]}
        with httpx.stream("GET", f"{service.url}/events", headers=again, timeout=PATIENCE) as other:
            assert second == told(other.iter_lines())
        service.stop()
        assert [] == [line for line in lines if line]


def test_a_stream_ends_when_its_token_no_longer_holds(tmp_path: Path) -> None:
    """A secret that was changed since lets nobody go on listening."""
    catalog, secret, config = (tmp_path / name for name in ("catalog.yaml", "secret", "config.yaml"))
    catalog.write_text("remediations: []\n")
    secret.write_text("before")
    tokens = [
        {"name": "listener", "role": "viewer", "file": str(secret)},
        {"name": "admin", "role": "admin", "value": "x"},
    ]
    config.write_text(json.dumps({"auth": {"tokens": tokens}}))
    with serve(tmp_path, ServiceOptions(data=tmp_path / "data", catalog=[catalog], config=config)) as service:
        headers = SSE | {"authorization": "Bearer before"}
        with httpx.stream("GET", f"{service.url}/events", headers=headers, timeout=PATIENCE) as stream:
            assert 200 == stream.status_code
            secret.write_text("after")
            assert [] == [line for line in stream.iter_lines() if line]
        assert 401 == service.get("/events", headers=headers).status_code


def test_what_somebody_changed_in_the_store_is_found(service: Service, tmp_path: Path) -> None:
    """Beside the running service, with what was changed; exit status 1."""
    pause(service, "first")
    pause(service, "second")
    (file,) = tmp_path.rglob("remediator.db")
    store = f"sqlite:///{file}"
    keyed = ("--config", tmp_path / "config.yaml", "--store", store)

    def sealed() -> bool:
        done = remediator("audit", "verify", *keyed, "--json")
        report = json.loads(done.stdout)
        return bool(report["intact"] and report["seals"] and not report["unsealed"])

    wait_until(sealed, PATIENCE, "the events to be sealed")
    assert "2 events in 1 chain, 1 seal\n" in remediator("audit", "verify", *keyed).stdout
    exported = remediator("audit", "export", "--store", store).stdout.splitlines()
    assert ["paused", "paused"] == [json.loads(line)["kind"] for line in exported]
    after = json.loads(exported[0])["cursor"]
    assert exported[1:] == remediator("audit", "export", "--store", store, "--after", after).stdout.splitlines()
    newest = remediator("audit", "export", "--store", store, "--since", "1h", "--until", "0s").stdout.splitlines()
    assert exported == newest
    other = remediator("audit", "verify", "--store", store)
    assert (2, "") == (other.returncode, other.stdout)
    assert "none of the 2 events has a hash that the given key makes: pass the --config" in other.stderr
    with sqlite3.connect(file) as connection:
        ((logged,),) = connection.execute("SELECT hash FROM seal")
    assert 0 == remediator("audit", "verify", *keyed, "--seal", logged).returncode
    gone = remediator("audit", "verify", *keyed, "--seal", logged, "--seal", "36ae")
    assert (1, "seal: none has the hash 36ae: it is gone, or everything up to it was made anew\n") == (
        gone.returncode,
        gone.stderr,
    )
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE event SET message = 'nothing happened' WHERE seq = 2")
    found = remediator("audit", "verify", *keyed)
    assert (1, True) == (found.returncode, "service#2: was changed" in found.stderr)
    assert "NOT INTACT: 1 finding\n" in found.stdout


def test_a_store_that_is_not_there_cannot_be_verified(tmp_path: Path) -> None:
    """Exit status 2, as for everything that cannot be told."""
    done = remediator("audit", "verify", "--store", f"sqlite:///{tmp_path}/none.db")
    assert (2, True) == (done.returncode, "there is no store" in done.stderr)
