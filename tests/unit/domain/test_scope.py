"""The border that no label value can move."""

from __future__ import annotations

import pytest

from app.domain.plans import Target
from app.domain.scope import PROTECTED_NAMESPACES, Scope


def kubernetes(namespace: str) -> Target:
    """A Deployment in this namespace."""
    return Target(backend="kubernetes", key=f"kubernetes:Deployment/{namespace}/api", namespace=namespace)


def redis(place: str) -> Target:
    """A Redis database by instance/number."""
    return Target(backend="redis", key=f"redis:{place}")


def test_what_the_operator_spelled_out_is_in_scope() -> None:
    """A literal target needs no pattern."""
    scope = Scope()
    assert scope.objection(kubernetes("shop"), templated=False) is None
    assert scope.objection(redis("cache/0"), templated=False) is None


def test_what_came_from_the_alert_needs_a_pattern() -> None:
    """An empty scope lets no templated target in."""
    scope = Scope()
    assert "scope.namespaces" in str(scope.objection(kubernetes("shop"), templated=True))
    assert "scope.redis" in str(scope.objection(redis("cache/0"), templated=True))
    postgres = Target(backend="postgres", key="postgres:main/shop")
    assert "scope.postgres" in str(scope.objection(postgres, templated=True))


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
    assert inside == (Scope(redis=(pattern,)).objection(redis(place), templated=True) is None)


@pytest.mark.parametrize("namespace", sorted(PROTECTED_NAMESPACES))
@pytest.mark.parametrize("templated", [True, False])
def test_protected_namespaces_are_in_scope_by_their_exact_name_only(namespace: str, *, templated: bool) -> None:
    """A pattern that happens to match is not enough, even for a literal target."""
    wide = Scope(namespaces=("*",))
    assert "protected" in str(wide.objection(kubernetes(namespace), templated=templated))
    exact = Scope(namespaces=(namespace,))
    assert exact.objection(kubernetes(namespace), templated=templated) is None


def test_the_remediator_does_not_touch_itself() -> None:
    """Its own namespace is protected like the system's."""
    scope = Scope(namespaces=("*",), own_namespace="remediator")
    assert "protected" in str(scope.objection(kubernetes("remediator"), templated=False))
    assert scope.objection(kubernetes("shop"), templated=True) is None


def test_no_target_needs_no_scope() -> None:
    """A remediation without a target touches nothing that a scope could name."""
    assert Scope().objection(Target(backend="none", key="none:poke/abc"), templated=True) is None


def test_hosts_from_the_alert_need_a_pattern() -> None:
    """Only the configuration decides which hosts may be called."""
    scope = Scope(hosts=("*.shop.example",))
    assert scope.host_objection("api.shop.example", templated=True) is None
    assert scope.host_objection("evil.example", templated=True) is not None
    assert scope.host_objection("evil.example", templated=False) is None
