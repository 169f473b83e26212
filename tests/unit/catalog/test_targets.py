"""Targets: where they come from, and that what an alert says can never widen them."""

from __future__ import annotations

import pytest

from app.backends.kubernetes.backend import KubernetesTarget
from app.backends.postgres.backend import PostgresTarget
from app.catalog.targets import render_target, target_is_templated
from app.catalog.templates import TemplateContext
from app.domain.errors import PermanentError
from app.domain.reasons import Reason
from app.domain.remediation import TargetSpec
from tests.unit.catalog.vocabulary import NOW

POD = TargetSpec(kubernetes={"kind": "Pod", "namespace": "{{ labels.namespace }}", "name": "{{ labels.pod }}"})


def _context(**labels: str) -> TemplateContext:
    return TemplateContext(labels=labels, annotations={}, fingerprint="a", starts_at=NOW)


@pytest.mark.parametrize(
    ("spec", "templated"),
    [
        (POD, True),
        (TargetSpec(redis={"instance": "cache", "database": "{{ labels.db }}"}), True),
        (TargetSpec(redis={"instance": "cache", "database": 3}), False),
        (TargetSpec(kubernetes={"kind": "Pod", "namespace": "a", "name": "b"}), False),
    ],
)
def test_a_target_knows_whether_the_alert_has_a_say_in_it(spec: TargetSpec, templated: bool) -> None:
    """One templated field is enough: then the scope has to allow it."""
    assert templated is target_is_templated(spec)


def test_a_target_is_filled_in_from_labels() -> None:
    """Literal fields stay, defaults too."""
    rendered = render_target(POD, _context(namespace="shop", pod="api-7d9-x2x"))
    assert KubernetesTarget(kind="Pod", namespace="shop", name="api-7d9-x2x") == rendered
    postgres = TargetSpec(postgres={"instance": "{{ labels.db }}"})
    assert PostgresTarget(instance="main") == render_target(postgres, _context(db="main"))


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ("", "target.kubernetes.namespace must not be empty"),
        (" ", "target.kubernetes.namespace must not be empty"),
        ("shop/../kube-system", 'target.kubernetes.namespace "shop/../kube-system" cannot be a namespace'),
        ("Shop", 'target.kubernetes.namespace "Shop" cannot be a namespace'),
        ("shop\n", 'target.kubernetes.namespace "shop\n" cannot be a namespace'),
        ("a" * 64, f'target.kubernetes.namespace "{"a" * 64}" cannot be a namespace'),
        ("-shop", 'target.kubernetes.namespace "-shop" cannot be a namespace'),
    ],
)
def test_a_hostile_label_cannot_be_a_target(namespace: str, message: str) -> None:
    """Empty never means all, and a value that is no name is refused before anything is asked."""
    with pytest.raises(PermanentError) as caught:
        render_target(POD, _context(namespace=namespace, pod="a"))
    assert (Reason.TEMPLATE_FAILED, message) == (caught.value.reason, str(caught.value))


@pytest.mark.parametrize("database", ["-1", "1.5", "all", "*", "²", ""])
def test_a_redis_database_is_a_number(database: str) -> None:
    """Anything else is refused."""
    spec = TargetSpec(redis={"instance": "cache", "database": "{{ labels.db }}"})
    with pytest.raises(PermanentError, match=r"target\.redis\.database"):
        render_target(spec, _context(db=database))


@pytest.mark.parametrize("database", ["a/b", "a\tb", "x" * 64])
def test_a_postgres_database_cannot_make_the_scope_ambiguous(database: str) -> None:
    """The scope reads instance/database, so a database with a slash is refused."""
    spec = TargetSpec(postgres={"instance": "main", "database": "{{ labels.db }}"})
    with pytest.raises(PermanentError, match="cannot be the name of a database"):
        render_target(spec, _context(db=database))
