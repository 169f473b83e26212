"""The border that neither a label nor a catalog can move."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.backends.kubernetes.backend import PROTECTED_NAMESPACES
from app.backends.scope import Scope
from app.domain.plans import Plan, PlannedCheck, PlannedStep, Target


def kubernetes(namespace: str) -> Target:
    """A Deployment in this namespace."""
    return Target(backend="kubernetes", key=f"kubernetes:Deployment/{namespace}/api", namespace=namespace)


def redis(place: str) -> Target:
    """A Redis database by instance/number."""
    return Target(backend="redis", key=f"redis:{place}")


def test_nothing_is_in_scope_by_default() -> None:
    """The message says what would bring it in."""
    scope = Scope()
    assert "add it to scope.kubernetes.namespaces and restart" in str(scope.objection(kubernetes("shop")))
    assert "add it to scope.redis.databases" in str(scope.objection(redis("cache/0")))
    postgres = Target(backend="postgres", key="postgres:main/shop")
    assert "add it to scope.postgres.databases" in str(scope.objection(postgres))


def test_kinds_begin_with_the_workloads() -> None:
    """A pod stands for its workload, which is judged when it is known."""
    scope = Scope(kubernetes={"namespaces": ("shop",)})
    kinds = ("Deployment", "StatefulSet", "DaemonSet", "Pod", "Node", "CronJob")
    refused = [kind for kind in kinds if scope.objection(kubernetes("shop").model_copy(update={"kind": kind}))]
    assert ["Node", "CronJob"] == refused
    node = Target(backend="kubernetes", key="kubernetes:Node/a", kind="Node")
    assert (
        Scope(kubernetes={"namespaces": ("*",), "kinds": ("Node",)}).objection(node) is None
    )  # it is in no namespace, protected or not
    assert "scope.kubernetes.kinds" in str(scope.objection(kubernetes("shop").model_copy(update={"kind": "Node"})))


def test_the_remediators_own_store_is_never_a_target() -> None:
    """Whatever the patterns say."""
    scope = Scope(postgres={"databases": ("*", "main/remediator"), "own_databases": ("main/remediator",)})
    assert "own store" in str(scope.objection(Target(backend="postgres", key="postgres:main/remediator")))
    assert scope.objection(Target(backend="postgres", key="postgres:main/shop")) is None
    namesake = Scope(redis={"databases": ("main/0",)}, postgres={"own_databases": ("main/0",)})
    assert namesake.objection(redis("main/0")) is None


@pytest.mark.parametrize(
    ("pattern", "place", "inside"),
    [
        ("cache/*", "cache/3", True),
        ("cache/?", "cache/12", False),
        ("cache/0", "cache/0", True),
        ("CACHE/*", "cache/0", False),
    ],
)
def test_patterns_hold_the_whole_value(pattern: str, place: str, *, inside: bool) -> None:
    """A pattern is case-sensitive and matches from end to end."""
    assert inside == (Scope(redis={"databases": (pattern,)}).objection(redis(place)) is None)


@pytest.mark.parametrize("namespace", sorted(PROTECTED_NAMESPACES))
def test_protected_namespaces_are_in_scope_by_their_exact_name_only(namespace: str) -> None:
    """A pattern that happens to match is not enough."""
    wide = Scope(kubernetes={"namespaces": ("*",)})
    assert "protected" in str(wide.objection(kubernetes(namespace)))
    exact = Scope(kubernetes={"namespaces": (namespace,)})
    assert exact.objection(kubernetes(namespace)) is None


def test_the_remediator_does_not_touch_itself() -> None:
    """Its own namespace is protected like the system's."""
    scope = Scope(kubernetes={"namespaces": ("*",), "own_namespace": "remediator"})
    assert "protected" in str(scope.objection(kubernetes("remediator")))
    assert scope.objection(kubernetes("shop")) is None


def test_no_target_needs_no_scope() -> None:
    """A remediation without a target touches nothing that a scope could name."""
    assert Scope().objection(Target(backend="none", key="none:poke/abc")) is None


def test_hosts_need_a_pattern() -> None:
    """Only the configuration decides which hosts may be called."""
    scope = Scope(http={"hosts": ("*.shop.example",)})
    assert scope.http.host_objection("api.shop.example") is None
    assert "add it to scope.http.hosts" in str(scope.http.host_objection("evil.example"))


@pytest.mark.parametrize("part", ["target", "step", "check"])
def test_a_plan_is_in_scope_with_everything_that_it_names(part: str) -> None:
    """Its target, and the hosts that its steps and checks call."""
    inside, outside = {"url": "https://api.shop.example/purge"}, {"url": "https://evil.example/"}
    plan = Plan(
        rung=0,
        target=kubernetes("bank" if part == "target" else "shop"),
        steps=(PlannedStep(action="http.request", summary="", params=outside if part == "step" else inside),),
        verify=(PlannedCheck(check="http.ok", params=outside if part == "check" else inside),),
    )
    assert "not in scope" in str(
        Scope(kubernetes={"namespaces": ("shop",)}, http={"hosts": ("*.shop.example",)}).plan_objection(plan)
    )
    wide = Scope(kubernetes={"namespaces": ("shop", "bank")}, http={"hosts": ("*.shop.example", "evil.example")})
    assert wide.plan_objection(plan) is None


@pytest.mark.parametrize("host", ["127.0.0.1:51555", "*:80", "[::1]:80", "[::1]", "http://shop", "shop/health"])
def test_what_can_be_no_host_is_refused(host: str) -> None:
    """It would never match, and nobody would see why."""
    with pytest.raises(ValidationError, match="write a host without port"):
        Scope(http={"hosts": (host,)})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::1", "http://[::1]:80/"),
        ("fd00:*", "http://[fd00::2]/"),
        ("*", "http://[::1]/"),
        ("shop?", "http://shop1:8/"),
    ],
)
def test_hosts_and_patterns_of_them_are_accepted(host: str, url: str) -> None:
    """Also IPv6, without brackets."""
    assert Scope(http={"hosts": (host,)}).params_objection({"url": url}) is None
