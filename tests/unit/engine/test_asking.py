"""When a fresh plan still means what a person has approved; and that somebody can be asked at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.backends.connections import Connections
from app.backends.scope import Scope
from app.catalog.loader import load
from app.catalog.references import unconfigured
from app.domain.errors import ConfigError
from app.domain.plans import Plan, PlannedStep, Target
from app.domain.states import RunState
from app.engine.stages.approval import describe, differences
from app.main import policy_of
from app.settings import Settings
from tests.support.aio import run
from tests.support.engine import Clock, engine, sqlite
from tests.support.entries import poke
from tests.support.web import WebServer

TARGET = Target(backend="kubernetes", key="kubernetes:Deployment/shop/api")
WORKLOAD = {"uid": "u", "generation": 4, "replicas": 3, "ready": 1, "updated": 3, "template": "t", "restarted_at": None}
SESSIONS = {"connections": 90, "idle": 40, "qualifying": 3, "selected": [{"pid": 1}]}


def plan(action: str, target: Target = TARGET, **fields: Any) -> Plan:
    """A plan of one step."""
    return Plan(rung=0, target=target, steps=(PlannedStep(**({"action": action, "summary": "do it"} | fields)),))


@pytest.mark.parametrize(
    ("action", "approved", "fresh"),
    [
        (
            "kubernetes.rollout_restart",
            {"before": WORKLOAD, "desired": {"restarted_at": "12:00"}},
            {"before": WORKLOAD | {"ready": 0, "generation": 5}, "desired": {"restarted_at": "12:30"}},
        ),
        (
            "redis.flush",
            {"summary": "remove all 10 keys", "before": {"keys": 10, "used_memory_bytes": 1}},
            {"summary": "remove all 12 keys", "before": {"keys": 12, "used_memory_bytes": 2}},
        ),
        (
            "redis.delete_matching",
            {"summary": "remove 10 keys", "before": {"matching": 10}, "params": {"pattern": "page:*"}},
            {"summary": "remove 12 keys", "before": {"matching": 12}, "params": {"pattern": "page:*"}},
        ),
        (
            "postgres.terminate_idle",
            {"summary": "end 1 sessions", "before": SESSIONS, "desired": {"terminated": [[1, "a"]]}},
            {
                "summary": "end 2 sessions",
                "before": SESSIONS | {"idle": 41},
                "desired": {"terminated": [[1, "a"], [2, "b"]]},
            },
        ),
    ],
)
def test_what_time_alone_changes_leaves_an_approval_valid(
    action: str, approved: dict[str, Any], fresh: dict[str, Any]
) -> None:
    """Nobody could ever approve anything otherwise."""
    assert [] == differences(plan(action, **approved), plan(action, **fresh))


@pytest.mark.parametrize(
    ("action", "approved", "fresh", "told"),
    [
        (
            "kubernetes.rollout_restart",
            {"before": WORKLOAD},
            {"before": WORKLOAD | {"template": "v2"}},
            "before.template",
        ),
        ("kubernetes.rollout_restart", {"before": WORKLOAD}, {"before": WORKLOAD | {"uid": "v"}}, "before.uid"),
        (
            "kubernetes.scale",
            {"before": WORKLOAD},
            {"before": WORKLOAD | {"replicas": 4}},
            "before.replicas is 4, no longer 3",
        ),
        ("kubernetes.scale", {"desired": {"replicas": 5}}, {"desired": {"replicas": 6}}, "desired.replicas"),
        ("redis.flush", {"changes": True}, {"changes": False}, "changes is false"),
        ("redis.delete_matching", {"params": {"pattern": "a*"}}, {"params": {"pattern": "b*"}}, "params.pattern is b*"),
        ("http.request", {"params": {"url": "http://a"}}, {"params": {"url": "http://b"}}, "params.url"),
    ],
)
def test_what_somebody_changed_makes_it_void(
    action: str, approved: dict[str, Any], fresh: dict[str, Any], told: str
) -> None:
    """And it is said."""
    (found,) = differences(plan(action, **approved), plan(action, **fresh))
    assert told in found


def test_another_target_is_another_plan() -> None:
    """As are other steps."""
    other = TARGET.model_copy(update={"key": "kubernetes:Deployment/shop/web"})
    found = differences(plan("redis.flush"), plan("redis.flush", other))
    assert ["the target is kubernetes:Deployment/shop/web, no longer kubernetes:Deployment/shop/api"] == found
    assert ["the steps are other ones"] == differences(plan("redis.flush"), plan("notify.send"))


def test_a_plan_is_shown_from_what_to_what() -> None:
    """With its arguments; a step that would change nothing says so."""
    steps = (
        PlannedStep(action="a", summary="scale", before={"replicas": 3}, desired={"replicas": 5}, params={"by": 2}),
        PlannedStep(action="b", summary="flush", changes=False),
    )
    shown = list(describe(Plan(rung=0, target=TARGET, steps=steps)))
    assert [
        "Target: kubernetes:Deployment/shop/api",
        "These steps will be done, and nothing else:",
        "1. scale",
        "   replicas: 3 → 5",
        "   with by: 2",
        "   risk: disruptive; it cannot be undone",
        "2. flush",
        "   (is so already)",
    ] == shown


@pytest.mark.parametrize(
    ("action", "told"), [("kubernetes.scale", "it can be undone"), ("redis.flush", "it cannot be undone")]
)
def test_each_step_says_whether_it_can_be_undone(action: str, told: str) -> None:
    """As its action declares."""
    step = PlannedStep(action=action, summary="do", before={"replicas": 3}, desired={"replicas": 5})
    shown = list(describe(Plan(rung=0, target=TARGET, steps=(step,))))
    assert f"   risk: disruptive; {told}" == shown[-1]


def test_a_channel_that_nobody_configured_is_refused_at_the_start() -> None:
    """Not found out at night by a question that nobody got."""
    with pytest.raises(ConfigError, match=r"connections.notify has no 'ops' \(configured: none\)"):
        policy_of(Settings(channel="ops"))


def test_a_remediations_channel_that_nobody_configured_is_a_warning(tmp_path: Path) -> None:
    """As everything else that a catalog names and the configuration does not have."""
    file = tmp_path / "catalog.yaml"
    step = '{action: http.request, with: {url: "http://a"}}'
    entry = f'{{name: a, summary: s, matchers: [alertname="A"], mode: approve, channel: ops, steps: [{step}]}}'
    file.write_text(f"remediations: [{entry}]")
    found = unconfigured(load([file], Clock()()), Connections(), Scope(http={"hosts": ("*",)}))
    assert ['connections.notify has no "ops" (configured: none)'] == [warning.message for warning in found]


@pytest.mark.parametrize(
    ("fields", "channel", "count"),
    [
        ("mode: approve", None, 1),
        ("mode: approve", "ops", 0),
        ("mode: auto", None, 0),
        ("mode: auto, earn: {start: observe}", None, 1),
    ],
)
def test_a_question_that_would_reach_nobody_is_a_warning(
    tmp_path: Path, fields: str, channel: str | None, count: int
) -> None:
    """Also one that would be asked only on the way to auto."""
    file = tmp_path / "catalog.yaml"
    step = '{action: http.request, with: {url: "http://a"}}'
    file.write_text(f'remediations: [{{name: a, summary: s, matchers: [alertname="A"], {fields}, steps: [{step}]}}]')
    found = unconfigured(load([file], Clock()()), Connections(), Scope(http={"hosts": ("*",)}), channel)
    assert ["it asks for approval but no channel is configured to tell people; set channel"] * count == [
        warning.message for warning in found
    ]


def test_a_question_that_reached_nobody_is_an_event_of_its_run(tmp_path: Path, sink: WebServer) -> None:
    """As one that could not be delivered is."""

    async def scenario() -> None:
        async with engine(sqlite(tmp_path), tmp_path, poke(sink, mode="approve")) as one:
            await one.fire()
            (row,) = await one.reached(RunState.AWAITING_APPROVAL, count=1)
            assert ["not_told", "awaiting_approval"] == (await one.kinds(row.id))[-2:]

    run(scenario())


def test_what_is_long_is_counted_and_never_cut_in_the_middle() -> None:
    """A table of the first sessions and how many more; of a body each field; an autoscaler's minimum."""
    sessions = [
        {"pid": 4000 + number, "user": "app", "application": "web", "state": "idle", "idle_seconds": 7200}
        for number in range(28)
    ]
    before = {"connections": 40, "idle": 30, "qualifying": 28, "selected": sessions}
    body = {"flag": "search", "on": False, "ids": list(range(8)), "nested": {"a": "b"}}
    steps = (
        PlannedStep(
            action="postgres.terminate_idle", summary="end 28", before=before, desired={"terminated": [[1, ""]]}
        ),
        PlannedStep(action="http.request", summary="POST", params={"json": body}, desired={"status": "2xx"}),
        PlannedStep(
            action="kubernetes.scale",
            summary="set the minimum",
            before={"hpa": {"name": "api", "min_replicas": 2}},
            desired={"hpa": "api", "min_replicas": 4},
        ),
    )
    shown = list(describe(Plan(rung=0, target=TARGET, steps=steps)))
    for line in (
        "   40 connections, 30 of them idle; these are ended:",
        "     pid   user  application  state  idle for",
        "     4009  app   web          idle   2h",
        "     and 18 more",
        "   with json.on: false",
        "   with json.ids: 0, 1, 2, 3, 4 and 3 more",
        "   with json.nested.a: b",
        "   min replicas: 2 → 4",
        "   risk: disruptive; it can be undone",
    ):
        assert line in shown
    assert not any("{" in line or "…" in line for line in shown)
