"""A rendering costs little whatever the template and the labels are: memory, time, and no crash."""

from __future__ import annotations

import multiprocessing
import resource
import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalog.templates import MAX_OUTPUT, InvalidTemplateError, TemplateContext, render, validate
from app.domain.errors import PermanentError
from app.domain.reasons import Reason
from tests.unit.catalog.vocabulary import NOW

_LONG = "x" * (64 * 1024)
_ALERT = TemplateContext(
    labels={"alertname": "Full", "a": _LONG, "b": _LONG, "n": "999999999", "many": "a" * 300},
    annotations={f"a{number}": _LONG for number in range(100)},
    fingerprint="64690668013f0197",
    starts_at=NOW,
)
_DOUBLED = "".join(f"{{% set x{n + 1} = x{n} ~ x{n} %}}" for n in range(60))
_LISTED = "".join(f"{{% set x{n + 1} = [x{n}, x{n}] %}}" for n in range(60))
_HOSTILE = [
    '{{ labels.a | replace("x", labels.b) }}',
    '{{ labels.a | replace("", labels.b) }}',
    '{{ labels.a.replace("x", labels.b) }}',
    "{{ labels.a.replace('x', labels.b, 1000000) | length }}",
    "{{ labels.b.join(labels.a) | length }}",
    "{{ labels.a | join(labels.b) | length }}",
    "{{ labels.a | list | join(labels.b) | length }}",
    "{{ [labels.a, labels.b] * 9999 }}",
    "{{ 'x' * 999999999 }}",
    "{{ 999999999 * 'x' }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{0:>999999999}'.format(labels.a) }}",
    "{{ '{x}'.format_map(labels) }}",
    "{{ 'a'.ljust(999999999) }}",
    "{{ 'a'.rjust(999999999) }}",
    "{{ 'a'.center(999999999) }}",
    "{{ 'a'.zfill(999999999) }}",
    "{{ '\t'.expandtabs(999999999) }}",
    "{{ 'a'['ljust'](999999999) }}",
    "{{ 'a' | attr('ljust') }}",
    "{{ labels.a | center(999999999) }}",
    "{{ labels.a | indent(999999999) }}",
    "{{ labels.a | batch(999999999, 'x') | list }}",
    "{{ labels.a | slice(999999999) | list }}",
    "{{ labels.a | wordwrap(1, wrapstring=labels.b) }}",
    "{{ labels.a | urlize }}",
    "{{ labels.a | pprint }}",
    "{{ labels.a | xmlattr }}",
    "{{ [1] | sum(start=labels.a) }}",
    "{{ (1).to_bytes(999999999, 'big') | length }}",
    "{{ 'a'.encode().ljust(999999999) }}",
    "{{ 'a'.translate({97: labels.a}) }}",
    "{{ 9 ** 999999999 }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ 2 ** 99999 }}",
    "{{ 9999999999 * 9999999999 * 9999999999 }}",
    "{{ labels.n | int * labels.n | int * labels.n | int }}",
    "{{ ('f' ~ labels.many) | int(0, 16) }}",
    "{{ 1e308 * 10 }}",
    "{{ '1e999' | float }}",
    "{{ range(999999999) | list }}",
    "{{ lipsum(999999999) }}",
    "{{ cycler(labels) }}",
    "{% for a in range(999999999) %}x{% endfor %}",
    "{% for a in labels.a %}{{ labels.b }}{% endfor %}",
    "{% for a in labels.a %}{{ labels.b | length }}{% endfor %}",
    "{% for a in labels.a %}{% if labels.a in labels.b %}{% endif %}{% endfor %}",
    "{% for a in labels.a %}{% for b in labels.b %}x{% endfor %}{% endfor %}",
    "{% for a in labels recursive %}{{ loop(labels) }}{% endfor %}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set x %}{{ labels.a }}{% endset %}{{ x }}",
    "{% filter replace('x', 'xxxxxxxx') %}{{ labels.a }}{% endfilter %}",
    "{% call labels.a() %}{% endcall %}",
    f"{{% set x0 = labels.a %}}{_DOUBLED}{{{{ x60 | length }}}}",
    f"{{% set x0 = labels.many %}}{_DOUBLED.replace('~', '+')}{{{{ x60 | length }}}}",
    f"{{% set x0 = [1] %}}{_LISTED}{{{{ x60 | tojson }}}}",
    f"{{% set x0 = [1] %}}{_LISTED}{{{{ x60 == x59 }}}}",
    f"{{% set x0 = [1] %}}{_LISTED}{{{{ [x60, x60] | sort | length }}}}",
    "{{ annotations | tojson }}",
    "{{ annotations | string }}",
    "{{ annotations ~ annotations }}",
    "{{ annotations | upper }}",
    "{{ annotations.values() | join }}",
    "{{ annotations.items() | list | tojson }}",
    "{{ annotations.values() | sort | list | sort | length }}",
    "{{ labels | dictsort | string }}",
    "{{ labels.a | truncate(5, true, labels.a ~ labels.b) }}",
    "{{ labels.a | truncate(5, true, labels.many) }}",
    "{{ namespace(x=1) }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ labels.a" + ".upper()" * 5000 + " }}",
    "{{ labels.a" + " ~ labels.a" * 5000 + " }}",
    "{{ 1" + " + 1" * 5000 + " }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "{{ " + "9" * 60_000 + " }}",
    "{{ 0x" + "f" * 60_000 + " }}",
    "{{ labels.a }}" * 50,
    "x" * (MAX_OUTPUT + 1) + "{{ labels.many }}",
]


def _limited(templates: list[str]) -> None:
    """In a process of its own: a megabyte or two for each template is all that it may take."""
    used = int(open("/proc/self/statm", encoding="ascii").read().split()[0]) * resource.getpagesize()  # noqa: SIM115, PTH123
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 1024 * 1024,) * 2)
    for template in templates:
        started = time.process_time()
        with suppress(InvalidTemplateError):
            validate(template)
        with pytest.raises(PermanentError) as caught:
            render(template, _ALERT)
        assert Reason.TEMPLATE_FAILED is caught.value.reason, template[:200]
        assert time.process_time() - started < 1.0, template[:200]


def test_no_template_makes_much_out_of_little() -> None:
    """Every one is refused with its reason, at once and within 64 MiB."""
    # From a fresh interpreter: what pytest holds would count as the limit's.
    process = multiprocessing.get_context("spawn").Process(target=_limited, args=(_HOSTILE,))
    process.start()
    process.join(60)
    assert 0 == process.exitcode


_NAMES = st.sampled_from(["labels.a", "labels.many", "labels", "annotations", "x", "1", "'x'", "[x]", "-3", "99999999"])
_AFTER = st.sampled_from(
    [
        *("| upper", "| list", "| join(x)", "| replace('x', labels.a)", "| tojson", "| string", "| sort", "| int"),
        *("~ x", "+ x", "* x", "- 1", "// 2", "% 7", ".split('x')", ".join(x)", "[0]", "[1:]", ".items()", "| length"),
        *("| unique | list", "| urlencode", "| truncate(9, true, x)", "in x", "== x", "| select | list", ".values()"),
    ]
)
_EXPRESSIONS = st.builds(lambda name, after: " ".join((name, *after)), _NAMES, st.lists(_AFTER, max_size=6))


@settings(deadline=None)  # of the wall's clock, while processor time is what counts
@given(first=_EXPRESSIONS, sets=st.lists(_EXPRESSIONS, max_size=12), looped=st.booleans())
def test_any_expression_is_text_or_refused(first: str, sets: list[str], looped: bool) -> None:
    """Whatever is put together: bounded text, or the closed reason, in well under a second."""
    template = f"{{% set x = {first} %}}" + "".join(f"{{% set x = {one} %}}" for one in sets) + "{{ x }}"
    if looped:
        template += "{% for y in x %}" + "".join(f"{{{{ {one} }}}}" for one in sets) + "{% endfor %}"
    started = time.process_time()
    with suppress(PermanentError):
        assert MAX_OUTPUT >= len(render(template, _ALERT))
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ labels.many | length }}", "300"),
        ("{% for name in labels | list | sort %}{{ name }},{% endfor %}", "a,alertname,b,many,n,"),
        ("{% for name, value in labels.items() if name == 'n' %}{{ loop.index }}{{ value }}{% endfor %}", "1999999999"),
        ("{{ labels.a | truncate(12) }}", "xxxxxxxxx..."),
        ("{{ labels.a | length + labels.many | length }}", str(64 * 1024 + 300)),
        ("{{ labels.a }}", _LONG),
        ("{{ {'a': labels.n, 'b': [1, none]} | tojson }}", '{"a": "999999999", "b": [1, null]}'),
        ("{% set x = labels.n ~ '-' ~ 1 %}{% if x %}{{ x | replace('9', '8') }}{% endif %}", "888888888-1"),
    ],
)
def test_what_a_catalog_needs_is_within_the_bounds(template: str, expected: str) -> None:
    """The longest label and ordinary work on labels."""
    validate(template)
    assert expected == render(template, _ALERT)
