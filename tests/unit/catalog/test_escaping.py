"""Values of an alert stay values in PromQL, in patterns and in URLs, whatever they hold."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.catalog.templates import ALERT_NAMES, InvalidTemplateError, TemplateContext, render, render_params, validate
from app.domain.errors import PermanentError
from app.domain.reasons import Reason
from app.domain.texts import Text
from tests.unit.catalog.vocabulary import NOW
from tests.unit.globs import redis_matches

_HOSTILE = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30),
    st.text(alphabet="\"'`\\{}[]()*?^-|.+$#\n\r\t =~!,:/@%&;<>0a_\ufffd\u2028", min_size=1, max_size=12),
)


def _rendered(template: str, kind: Text, **labels: str) -> str:
    alert = TemplateContext(labels=labels, annotations={}, fingerprint="64690668013f0197", starts_at=NOW)
    return str(render(template, alert, kind))


def _refused(template: str, kind: Text, **labels: str) -> str:
    with pytest.raises(PermanentError) as caught:
        _rendered(template, kind, **labels)
    assert Reason.TEMPLATE_FAILED is caught.value.reason
    return caught.value.message


_TOKEN = re.compile(
    r"""\s+ | \#[^\n\r]* | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | `[^`]*`)
        | (?P<word>[A-Za-z0-9_:.]+) | (?P<mark>=~|!~|==|!=|<=|>=|[-+*/%^=<>(){}\[\],@])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL)


def _tokens(promql: str) -> list[tuple[str, str]]:
    """The kinds of all tokens with their texts; strings as Prometheus unquotes them."""
    found, at = [], 0
    while at < len(promql):
        token = _TOKEN.match(promql, at)
        assert token, f"no token at {promql[at:]!r}"
        at = token.end()
        if token.lastgroup:
            found.append((token.lastgroup, _unquoted(token[0]) if token.lastgroup == "string" else token[0]))
    return found


def _unquoted(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    return _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)) if not found[3] else found[3], text[1:-1])


@pytest.mark.parametrize(
    "template",
    [
        'up{job="{{ labels.x }}"} == 0',
        "up{job='{{ labels.x }}'} == 0",
        'up{job="a-{{ labels.x }}-b", other!="{{ labels.x | upper | lower }}"} == 0',
        "sum(rate(up{job=\"{{ '' ~ labels.x ~ '' }}\"}[5m])) by (job) > 1",
        "up{job=\"{{ labels.x.replace('nothing', '') }}\"} == 0",
        "up{job=\"{{ [labels.x, ''] | join }}\"} == 0",
        'up{job="{% if true %}{{ labels.x }}{% endif %}"} == 0',
        'up{job="{% for y in [labels.x] %}{{ y }}{% endfor %}"} == 0',
        'up{job="{% set y = labels.x %}{{ y }}"} == 0',
        '# a "comment\nup{job="{{ labels.x }}"} == 0',
        'up{other="\\"", job="{{ labels.x }}"} == 0',
        'up{other=`\\`, job="{{ labels.x }}"} == 0',
    ],
)
@given(value=_HOSTILE)
@example(value='x"} or vector(0) #')
@example(value="\\")
@example(value="\n")
def test_a_value_stays_within_its_string(template: str, value: str) -> None:
    """The tokens are those of a harmless value, and the string holds what the label holds."""
    harmless = _tokens(_rendered(template, Text.PROMQL, x="harmless"))
    tokens = _tokens(_rendered(template, Text.PROMQL, x=value))
    assert [kind for kind, _ in harmless] == [kind for kind, _ in tokens]
    changed = value.upper().lower() if "lower" in template else value
    for (_, before), (_, after) in zip(harmless, tokens, strict=True):
        assert after in {before, before.replace("harmless", value), before.replace("harmless", changed)}


@given(
    operator=st.sampled_from(["=~", "!~", "=~ ", "!~  "]),
    quote=st.sampled_from(['"', "'", "`"]),
    around=st.sampled_from(["{}", "prefix-{}.*", "(a|{}|b)", "{}[0-9]+", "[a-z]{}", "a{{2}}{}", "(?i){}"]),
    value=_HOSTILE,
)
def test_a_value_in_a_regular_expression_matches_only_itself(
    operator: str, quote: str, around: str, value: str
) -> None:
    """Also where the matcher is written with a space, or the string is raw."""
    author = around.format("\0")
    template = f"up{{job{operator}{quote}{author}{quote}}}".replace("\0", "{{ labels.x }}")
    if quote == "`" and "`" in value:
        assert "between `" in _refused(template, Text.PROMQL, x=value)
        return
    pattern = next(text for kind, text in _tokens(_rendered(template, Text.PROMQL, x=value)) if kind == "string")
    assert author.replace("\0", re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", value)) == pattern


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ('up{job=~"[{{ labels.x }}]"}', "a-z"),
        ('up{job=~"a{1,{{ labels.x }}}"}', "1000"),
        ('up{job=~"(?{{ labels.x }})a"}', "i"),
        (r'up{job=~"\\Q{{ labels.x }}\\E"}', r"\E.*"),
        (r'up{job=~"\\{{ labels.x }}"}', "d"),
        (r'up{job=~"\\x{{ labels.x }}"}', "41"),
        (r'up{job="\{{ labels.x }}"}', "n"),
        ("up > 1 # {{ labels.x }}", "\n or vector(1)"),
        ("up == {{ labels.x }}", "up"),
        ("up == {{ labels.x }}", "1 or vector(1)"),
        ("up {{ labels.x }} down", "or"),
        ("up > {{ labels.x }}", ""),
        ("up{{ labels.x }} > 1", "{job='x'}"),
        ("{{ labels.x }}(up)", "absent(up) or absent"),
        ("up[{{ labels.x }}]", "5m] offset 1d"),
        ('up{job=~"{{ labels.x }}.*"}', ""),
        ('label_replace(up, "a", "{{ labels.x }}", "b", "(.*)")', "$1"),
        ('label_replace(up, "a", "$1", "b", "{{ labels.x }}")', ".*"),
    ],
)
def test_where_no_escape_exists_a_value_is_refused(template: str, value: str) -> None:
    """The run fails with its reason instead of asking something else."""
    assert "PromQL" in (said := _refused(template, Text.PROMQL, x=value)) or "regular expression" in said


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("up > {{ labels.x }}", "0.5"),
        ("up > {{ labels.x }}", "-3"),
        ("{{ labels.x }} > 1", "node_load1"),
        ("rate(node_{{ labels.x }}_total[5m]) > 1", "cpu"),
        ("rate(up[{{ labels.x }}]) > 1", "1h30m"),
        ("sum by ({{ labels.x }}) (up)", "job"),
        ('count_values("{{ labels.x }}", up)', "version_1"),
    ],
)
def test_a_number_or_a_name_may_stand_outside_of_quotes(template: str, value: str) -> None:
    """As it is."""
    validate(template, ALERT_NAMES, Text.PROMQL)
    assert template.replace("{{ labels.x }}", value) == _rendered(template, Text.PROMQL, x=value)


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ('up{job=~"[{{ labels.x }}]"}', Text.PROMQL),
        ("up # {{ labels.x }}", Text.PROMQL),
        ("user:[{{ labels.x }}]", Text.GLOB),
        ("user:\\{{ labels.x }}", Text.GLOB),
        ("user:[]{{ labels.x }}]", Text.PATTERN),
    ],
)
def test_a_place_that_takes_no_value_is_found_at_load(template: str, kind: Text) -> None:
    """The author learns it from `check`, not from a run that fails."""
    with pytest.raises(InvalidTemplateError, match="bad template"):
        validate(template, ALERT_NAMES, kind)


@pytest.mark.parametrize(
    "template", ["tenant:{{ labels.x }}:*", "{{ labels.x }}", "[a-z]*:{{ labels.x }}", "[a-]b]{{ labels.x }}"]
)
@given(value=_HOSTILE, other=_HOSTILE)
@example(value="*", other="a")
@example(value="a\\", other="a")
@example(value="[a-z]", other="a")
def test_a_glob_matches_only_the_value_itself(template: str, value: str, other: str) -> None:
    """A key of another tenant never matches, one of this tenant does; as Redis compares them."""
    glob = _rendered(template, Text.GLOB, x=value)

    def key(tenant: str) -> str:
        literal = template.replace("[a-z]*", "k").replace("[a-]b]", "b").replace("*", "k")
        return literal.replace("{{ labels.x }}", tenant)

    assert redis_matches(glob, key(value))
    assert (value == other) == redis_matches(glob, key(other)) or key(other).startswith(f"tenant:{value}:")


@pytest.mark.parametrize("template", ["app-{{ labels.x }}-?", "{{ labels.x }}", "[!]a]{{ labels.x }}"])
@given(value=_HOSTILE, other=_HOSTILE)
@example(value="*", other="a")
@example(value="[a", other="a")
def test_a_pattern_matches_only_the_value_itself(template: str, value: str, other: str) -> None:
    """As `fnmatch` compares them."""
    pattern = _rendered(template, Text.PATTERN, x=value)

    def name(label: str) -> str:
        return template.replace("[!]a]", "b").replace("?", "k").replace("{{ labels.x }}", label)

    assert fnmatchcase(name(value), pattern)
    assert (value == other) == fnmatchcase(name(other), pattern)


@given(value=_HOSTILE)
@example(value="../../admin")
@example(value="a?b=c#d")
def test_a_value_is_one_part_of_a_url(value: str) -> None:
    """One segment of the path, one value of the query; host and everything else stay."""
    url = _rendered("http://shop.svc:8080/cache/{{ labels.x }}/keys?tenant={{ labels.x }}&all=1", Text.URL, x=value)
    parts = urlsplit(url)
    assert ("http", "shop.svc:8080", "") == (parts.scheme, parts.netloc, parts.fragment)
    assert ["", "cache", value, "keys"] == [unquote(part) for part in parts.path.split("/")]
    assert [("tenant", value), ("all", "1")] == parse_qsl(parts.query)


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        ("http://{{ labels.x }}/-/reload", "10.0.0.1:9090", "http://10.0.0.1:9090/-/reload"),
        ("http://{{ labels.x }}/-/reload", "[fd12::1]:9090", "http://[fd12::1]:9090/-/reload"),
        ("http://{{ labels.x }}.shop.svc:80/", "api", "http://api.shop.svc:80/"),
        ("http://api:{{ labels.x }}", "8080", "http://api:8080"),
        ("http://api/{{ labels.x | urlencode }}", "a/b", "http://api/a%2Fb"),
        ("http://api/{{ (labels.x | urlencode) ~ '/' }}", "a/b", "http://api/a%252Fb%2F"),
        ("http://api/?q={{ labels.x }}", "", "http://api/?q="),
    ],
)
def test_a_host_keeps_its_dots_and_its_port(template: str, value: str, expected: str) -> None:
    """`urlencode` is done once, whether the author asks for it or not."""
    validate(template, ALERT_NAMES, Text.URL)
    assert expected == _rendered(template, Text.URL, x=value)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("http://{{ labels.x }}/", "api/evil"),
        ("http://{{ labels.x }}/", "user@evil"),
        ("http://{{ labels.x }}/", "evil\\@api"),
        ("http://{{ labels.x }}/", ""),
        ("http://{{ labels.x }}.shop.svc/", "evil.example:80"),
        ("http://{{ labels.x }}{{ labels.x }}/", "a:80"),
        ("http://api{{ labels.x }}/", ":81"),
        ("http://api{{ labels.x }}", "/admin"),
        ("http://api/{{ labels.x }}", ""),
        ("{{ labels.x }}", "http://api/"),
        ("{{ labels.x }}://api/", "file"),
    ],
)
def test_a_value_that_would_be_another_host_is_refused(template: str, value: str) -> None:
    """Also one that would leave a part of the path out."""
    assert "URL" in _refused(template, Text.URL, x=value)


def test_an_empty_value_selects_nothing() -> None:
    """`tenant:*` would be every tenant."""
    for kind in (Text.GLOB, Text.PATTERN):
        assert "an empty value" in _refused("tenant:{{ labels.x }}*", kind, x="")


def test_each_parameter_is_written_as_its_kind() -> None:
    """Within lists, too; what has no kind is plain text."""
    alert = TemplateContext(labels={"x": '*"'}, annotations={}, fingerprint="64690668013f0197", starts_at=NOW)
    given_params = {"query": 'up{a="{{ labels.x }}"}', "users": ["{{ labels.x }}"], "body": "{{ labels.x }}"}
    kinds = {"query": Text.PROMQL, "users": Text.PATTERN}
    expected = {"query": 'up{a="*\\""}', "users": ['[*]"'], "body": '*"'}
    assert expected == render_params(given_params, alert, kinds)
