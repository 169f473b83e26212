"""Templates: what they may use, what they refuse, and that the values of an alert are never templates."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.templates import (
    ALERT_NAMES,
    MAX_OUTPUT,
    InvalidTemplateError,
    TemplateContext,
    contains_template,
    is_template,
    render,
    validate,
)
from app.domain.errors import PermanentError
from app.domain.plans import Target
from app.domain.reasons import Reason
from tests.unit.catalog.vocabulary import NOW

TARGET = Target(backend="kubernetes", key="kubernetes:Deployment/shop/api", kind="Deployment", name="api")


def _context(target: Target | None = TARGET, **labels: str) -> TemplateContext:
    return TemplateContext(
        labels={"alertname": "ServiceDown", "my label": "spaced", "items": "three", **labels},
        annotations={"summary": "It is down."},
        fingerprint="64690668013f0197",
        starts_at=NOW,
        generator_url="http://prometheus/graph",
        target=target,
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ labels.alertname }}", "ServiceDown"),
        ('{{ labels["my label"] }}', "spaced"),
        ("{{ labels.items }}", "three"),
        ("{{ annotations.summary | upper }}", "IT IS DOWN."),
        ("{{ alert.fingerprint }} {{ alert.status }}", "64690668013f0197 firing"),
        ("{{ alert.starts_at }}", "2026-11-20T20:42:05Z"),
        ("/cache/{{ 'a/../b?c#d' | urlencode }}", "/cache/a%2F..%2Fb%3Fc%23d"),
        ("{{ alert.generator_url | urlencode }}", "http%3A%2F%2Fprometheus%2Fgraph"),
        ("{{ target.kind }}/{{ target.name }} {{ target.key }}", "Deployment/api kubernetes:Deployment/shop/api"),
        ("{{ labels.none | default('x') }}", "x"),
        ("{{ labels.instance.split(':')[0] if 'instance' in labels else '-' }}", "-"),
        (
            "{% for name, value in labels | dictsort %}{{ loop.index }}{{ name }} {% endfor %}",
            "1alertname 2items 3my label ",
        ),
        ("{{ 2 * 3 + 1 }}", "7"),
        ("no template {", "no template {"),
    ],
)
def test_a_template_is_filled_in(template: str, expected: str) -> None:
    """Labels whatever they are called, annotations, the alert and the target."""
    validate(template)
    assert expected == render(template, _context())


def test_values_are_rendered_wherever_they_are() -> None:
    """In lists and mappings; keys, numbers and null stay."""
    value = {"a": ["{{ labels.alertname }}", 1, None], "{{ b }}": {"c": True}}
    assert {"a": ["ServiceDown", 1, None], "{{ b }}": {"c": True}} == render(value, _context())
    assert contains_template(value)
    assert not contains_template({"{{ b }}": [1]})


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=50))
def test_the_value_of_a_label_is_never_evaluated(value: str) -> None:
    """Whatever a label holds comes out as it is, braces and all."""
    assert value == render("{{ labels.hostile }}", _context(hostile=value))


def test_a_label_that_looks_like_a_template_stays_text() -> None:
    """Rendering is done once; its result is not a template."""
    hostile = "{{ 7 * 7 }}{% for x in labels %}{% endfor %}"
    assert is_template(hostile)
    assert hostile == render("{{ labels.hostile }}", _context(hostile=hostile))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ labels.pod }}", 'the alert has no label "pod" (it has: alertname, items, my label)'),
        ('{{ labels["po d"] }}', 'the alert has no label "po d" (it has: alertname, items, my label)'),
        ("{{ annotations.x }}", 'the alert has no annotation "x" (it has: summary)'),
        (
            "{{ labels.pod | default(labels.node) }}",
            'the alert has no label "node" (it has: alertname, items, my label)',
        ),
        (
            "{% if labels.pod == 'x' %}y{% endif %}",
            'the alert has no label "pod" (it has: alertname, items, my label)',
        ),
        ("{{ labels.alertname.pod }}", 'there is no "pod"'),
        ("{{ labels.get('pod') }}", "an expression gives nothing where a text is needed"),
        ("{{ labels }}", "an expression gives a collection where a text is needed"),
        ("{{ labels.alertname.upper }}", "an expression gives a method without its () where a text is needed"),
        ("{{ labels.alertname * 9 }}", '"*" cannot be used on these values'),
        ("{{ '%9d' % 1 }}", '"%" cannot be used on these values'),
        ("{{ 9 ** 9 }}", '"**" cannot be used on these values'),
        ("{{ 'a'.ljust(9) }}", '"ljust" is not available in templates'),
        ("{{ 'a'['center'](9) }}", '"center" is not available in templates'),
        ("{{ '{}'.format(1) }}", '"format" is not available in templates'),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ labels.alertname.__class__ }}", '"__class__" is not available in templates'),
        ("{{ labels.__class__ }}", '"__class__" is not available in templates'),
        ("{{ labels.update({}) }}", '"update" is not available in templates'),
    ],
)
def test_what_cannot_be_rendered_says_why(template: str, message: str) -> None:
    """The reason is closed, the message names what is missing and what there is instead."""
    with pytest.raises(PermanentError) as caught:
        render(template, _context())
    assert Reason.TEMPLATE_FAILED is caught.value.reason
    assert f"template {template!r}: {message}" == str(caught.value)


@pytest.mark.parametrize(("value", "message"), [("a\0b", "NUL"), ("x" * (MAX_OUTPUT + 1), "longer than")])
def test_output_that_no_system_takes_is_refused(value: str, message: str) -> None:
    """Its length is bounded and it holds no NUL."""
    with pytest.raises(PermanentError, match=message):
        render("{{ labels.hostile }}", _context(hostile=value))


@pytest.mark.parametrize(
    ("template", "line", "message"),
    [
        ("{{ labels.x", 1, "unexpected end of template, expected 'end of print statement'."),
        ("a\n{{ labels.x y }}", 2, "expected token 'end of print statement', got 'y'"),
        ("{{ label.x }}", 1, 'unknown name "label"; did you mean "labels"?'),
        ("{{ env.x }}", 1, 'unknown name "env"; there are labels, annotations, alert'),
        ("{{ target.name }}", 1, 'there is no "target" here'),
        ("{{ alert.labels }}", 1, 'alert has no "labels"; it has fingerprint, starts_at, status, generator_url'),
        ("{{ labels.x | center(9) }}", 1, 'unknown filter "center"'),
        ("{% if labels.x is evn %}{% endif %}", 1, 'unknown test "evn"; did you mean "even"?'),
        ("{% macro a() %}{% endmacro %}", 1, '"{% macro %}" is not available'),
        ("{% import 'a' as b %}", 1, '"{% import %}" is not available'),
        (
            "{% for a in labels %}{% for b in labels %}{% endfor %}{% endfor %}",
            1,
            "a loop within a loop is not available",
        ),
        ("{{ range(9) }}", 1, 'unknown name "range"; there are labels, annotations, alert'),
        ("{{ self }}", 1, 'unknown name "self"; there are labels, annotations, alert'),
        ("{{ lipsum() }}", 1, 'unknown name "lipsum"; there are labels, annotations, alert'),
    ],
)
def test_what_can_never_work_is_found_before_it_is_needed(template: str, line: int, message: str) -> None:
    """At load, with the line within the template."""
    with pytest.raises(InvalidTemplateError) as caught:
        validate(template, ALERT_NAMES)
    assert (line, f"bad template: {message}") == (caught.value.line, str(caught.value))


@given(st.text(alphabet="{}%# \n'\"|.()[]ablset", max_size=30))
def test_any_text_is_a_template_or_an_error(text: str) -> None:
    """Neither validation nor rendering ever raises anything else."""
    context: Any = _context()
    try:
        validate(text)
        render(text, context)
    except (InvalidTemplateError, PermanentError):
        return
