"""Labels that somebody else chose, in every place that a template may fill: never run, never outside of the scope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.backends.connections import Connections
from app.backends.http.backend import HttpScope
from app.backends.postgres.backend import PostgresConnection
from app.backends.redis.backend import RedisConnection
from app.backends.scope import Scope
from app.backends.secrets import SecretSource
from app.domain.reasons import Reason
from app.domain.states import RunState
from tests.support.aio import run
from tests.support.engine import engine, remediation, sqlite
from tests.support.web import WebServer, serve

HOSTILE = [
    "{{ 7 * 7 }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{{ target.__class__.__mro__ }}",
    "${jndi:ldap://x}",
    "$(touch /tmp/owned)",
    "`id`",
    "; rm -rf /",
    "'; DROP TABLE run; --",
    '" OR 1=1 --',
    "../../etc/passwd",
    "..%2f..%2fadmin",
    "shop/../kube-system",
    "kube-system",
    "KUBE-SYSTEM",
    "kube\N{HYPHEN}system",
    "\N{CYRILLIC SMALL LETTER KA}ube-system",
    "shop\N{ZERO WIDTH SPACE}",
    "\N{RIGHT-TO-LEFT OVERRIDE}pohs",
    "shop\x00",
    "shop\nkube-system",
    "",
    " ",
    "*",
    "?",
    "[a-z]",
    "-1",
    "0x10",
    "9" * 400,
    "x" * 60_000,
    "evil.example",
    "evil.example#.shop.example",
    "shop.example@evil.example",
    "shop.example:80@evil.example/",
    "[::1]",
    "169.254.169.254",
]
ENDS = {RunState.FAILED, RunState.DENIED}
SCOPE = Scope(
    kubernetes={"namespaces": ("shop",)},
    postgres={"databases": ("main/shop",)},
    redis={"databases": ("cache/0",)},
    http={"hosts": ("shop.example",)},
)


def secret(url: str) -> SecretSource:
    """A connection that nothing listens on."""
    return SecretSource(value=SecretStr(url))


NOWHERE = Connections(
    postgres={"main": PostgresConnection(url=secret("postgresql://nobody@127.0.0.1:1/shop"))},
    redis={"cache": RedisConnection(url=secret("redis://127.0.0.1:1"))},
)


def get(url: str) -> list[dict[str, Any]]:
    """A step that asks a URL."""
    return [{"action": "http.request", "with": {"method": "GET", "url": url}}]


ENTRIES = {
    "namespace": {"target": {"kubernetes": {"kind": "Deployment", "namespace": "{{ labels.x }}", "name": "api"}}},
    "workload": {"target": {"kubernetes": {"kind": "{{ labels.x }}", "namespace": "shop", "name": "{{ labels.x }}"}}},
    "database": {"target": {"postgres": {"instance": "main", "database": "{{ labels.x }}"}}},
    "instance": {"target": {"postgres": {"instance": "{{ labels.x }}"}}},
    "number": {"target": {"redis": {"instance": "cache", "database": "{{ labels.x }}"}}},
    "host": {"steps": get("http://{{ labels.x }}/")},
    "whole-url": {"steps": get("{{ labels.x }}")},
    "userinfo": {"steps": get("http://shop.example{{ labels.x }}/")},
}
STEPS = {
    "kubernetes": [{"action": "kubernetes.rollout_restart"}],
    "postgres": [{"action": "postgres.terminate_idle", "with": {"idle_longer_than": "0s"}}],
    "redis": [{"action": "redis.flush"}],
}


def entry(name: str) -> dict[str, Any]:
    """A remediation that fills the label in at one place."""
    fields = dict(ENTRIES[name])
    for backend in fields.get("target", {}):
        fields["steps"] = STEPS[backend]
    return remediation(**({"name": name, "allow_destructive": True} | fields))


@pytest.mark.parametrize("name", ENTRIES)
def test_a_hostile_label_ends_its_run_and_nothing_else(name: str, tmp_path: Path) -> None:
    """Denied or failed with a reason before anything is contacted; an ordinary alert beside it is acted on."""

    async def scenario(sink: WebServer) -> None:
        beside = remediation(name="fine", matchers=['alertname="Fine"'], steps=[_ask(sink)])
        scope = SCOPE.model_copy(update={"http": HttpScope(hosts=("shop.example", "127.0.0.1"))})
        rules: dict[str, Any] = {"connections": NOWHERE, "scope": scope, "concurrency": 1000}
        hostile = entry(name) | {"without_guards": {"storm": "many at once", "concurrency": "many at once"}}
        async with engine(sqlite(tmp_path), tmp_path, hostile, beside, **rules) as one:
            for number, text in enumerate(HOSTILE):
                await one.record(one.firing(x=text, number=str(number)))
            await one.deliver(one.firing(alertname="Fine"))
            rows = await one.ended(count=len(HOSTILE) + 1, seconds=60)
            fine = [row for row in rows if row.remediation == "fine"]
            others = [row for row in rows if row.remediation == name]
            assert [RunState.SUCCEEDED] == [row.state for row in fine]
            assert {row.state for row in others} <= ENDS, [(row.labels["x"][:40], row.state) for row in others]
            known = {Reason.OUT_OF_SCOPE, Reason.TEMPLATE_FAILED, Reason.CONFIG_INVALID, Reason.TARGET_NOT_FOUND}
            odd = [(row.labels["x"][:40], row.reason, row.message[:80]) for row in others if row.reason not in known]
            assert [] == odd
            assert all(row.admitted_at is None and "49" not in row.message for row in others)

    with serve() as sink:
        run(scenario(sink))


def _ask(sink: WebServer) -> dict[str, Any]:
    return {"action": "http.request", "with": {"method": "PUT", "url": f"{sink.url}/fine"}}
