"""`remediator plan --alert` takes alerts as Alertmanager and amtool print them."""

from __future__ import annotations

import subprocess
from typing import Any

import httpx
import pytest

from app.cli.planning import read_alerts
from tests.backends.alertmanager.conftest import Bed
from tests.support.binaries import find


def _amtool(bed: Bed) -> bytes:
    command = [
        str(find("amtool")),
        f"--alertmanager.url={bed.members[0].url}",
        "alert",
        "query",
        "-o",
        "json",
        "-a",
        "-s",
    ]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _api(path: str) -> Any:
    return lambda bed: httpx.get(f"{bed.members[0].url}/api/v2/{path}", trust_env=False).content


@pytest.mark.parametrize("ask", [_amtool, _api("alerts"), _api("alerts/groups")], ids=["amtool", "alerts", "groups"])
def test_what_alertmanager_prints_can_be_planned(bed: Bed, ask: Any) -> None:
    """Each alert once, firing, with its labels, its beginning and its fingerprint, silenced or not."""
    bed.push(pod="api-1")
    bed.push("Private", pod="api-2")
    bed.silence(bed.members[0])
    bed.wait_grouped()
    bed.wait_grouped("Private")
    known = {one["fingerprint"]: one for one in bed.members[0].alerts()}
    found = {alert.fingerprint: alert for alert in read_alerts(ask(bed))}
    assert known.keys() == found.keys()
    for fingerprint, alert in found.items():
        assert (True, known[fingerprint]["labels"]) == (alert.is_firing, alert.labels)
        assert known[fingerprint]["startsAt"][:19] == alert.starts_at.isoformat()[:19]
