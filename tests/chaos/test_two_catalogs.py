"""Two replicas with catalogs of their own: the older one decides nothing of what the newer one has recorded."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.chaos.conftest import PATIENCE, MakeReplicas, Replicas, fire
from tests.support import web
from tests.support.entries import asked, poke
from tests.support.processes import wait_until
from tests.support.service import Service

PODS = [f"pod-{number}" for number in range(6)]


def _recorded(group: Replicas, older: Any, newer: Any) -> tuple[Service, Service]:
    """Both replicas, with runs that the newer one has recorded and that wait for the end of a pause."""
    group.entries = older
    one = group.start()
    one.stop()
    group.entries = newer
    two = group.start()
    assert two.ask("PUT", "/pause", json={"why": "wait"}).is_success
    fire(two, *PODS)
    group.wait("deferred", count=len(PODS))
    one.start()
    wait_until(lambda: not _is_newest(one), PATIENCE, "the older replica to know that it is")
    assert _is_newest(two)
    return one, two


def _is_newest(service: Service) -> bool:
    return bool(service.get("/catalog").json()["is_newest"])


def _disturb(one: Service, two: Service) -> None:
    """Reload and restart both: nothing of that makes a catalog newer."""
    assert two.post("/-/reload").is_success
    assert one.post("/-/reload").is_success
    two.restart()
    one.restart()
    one.hangup()


@pytest.mark.parametrize("older", ["nothing", "acts"])
def test_reloads_and_restarts_do_not_make_a_catalog_newer(
    replicas: MakeReplicas, sink: web.WebServer, older: str
) -> None:
    """What the newer one recorded for approval is asked about: neither denied by the older one nor done."""
    before = [poke(sink)] if older == "acts" else []
    group = replicas(recheck="1s")
    one, two = _recorded(group, before, [poke(sink, mode="approve")])
    _disturb(one, two)
    assert two.ask("DELETE", "/pause").is_success
    group.wait("awaiting_approval", count=len(PODS))
    assert 0 == asked(sink)


def test_while_the_newer_one_is_away_nothing_is_decided(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """The older one goes on with what it has recorded itself; the rest waits, and comes to its right."""
    group = replicas(recheck="1s")
    own = poke(sink, name="own", matchers=['alertname="Down"', 'pod="own"'])
    one, two = _recorded(group, [own], [poke(sink)])
    two.kill9()
    one.restart()
    assert one.ask("DELETE", "/pause").is_success
    fire(one, "own")
    wait_until(lambda: 1 == asked(sink), PATIENCE, "what the older one has recorded")
    assert 1 == asked(sink)
    assert len(PODS) == sum(state in {"deferred", "pending"} for (state,) in group.rows("state"))
    two.start()
    group.wait("succeeded", count=len(PODS) + 1)
    assert len(PODS) + 1 == asked(sink)


def test_files_that_are_changed_back_are_the_newest(replicas: MakeReplicas, sink: web.WebServer) -> None:
    """A rollback holds on both: on the replica that went back, and on the one that had never gone on."""
    group = replicas(recheck="1s")
    one, two = _recorded(group, [], [poke(sink)])
    (two.options.catalog[0]).write_text(yaml.safe_dump({"remediations": []}))
    wait_until(lambda: _is_newest(one) and _is_newest(two), PATIENCE, "both to have the newest")
    assert two.ask("DELETE", "/pause").is_success
    group.wait("denied", count=len(PODS))
    assert 0 == asked(sink)
