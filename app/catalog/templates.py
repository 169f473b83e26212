"""Templates in the values of a remediation: Jinja2, sandboxed, over the alert and the target.

The catalog validates them at load, the engine renders them while it plans. The text of a template is the catalog
owner's. An alert only fills in values: they are never evaluated, in any form, and are escaped for the kind of text that
they become a part of (app.catalog.escaping). app.catalog.sandbox limits the cost of a rendering.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import quote

import jinja2
from jinja2 import nodes

from app.catalog.escaping import Quoted, Value, escaper
from app.catalog.meter import MAX_TEXT, metered, text_of
from app.catalog.sandbox import MAX_SOURCE, Sandbox
from app.domain.errors import PermanentError
from app.domain.model import JsonObject
from app.domain.names import did_you_mean, listed
from app.domain.plans import Target
from app.domain.reasons import Reason
from app.domain.texts import Text

MAX_OUTPUT = MAX_TEXT
ALERT_NAMES = ("labels", "annotations", "alert")
NAMES = (*ALERT_NAMES, "target")
_FIELDS = {
    "alert": ("fingerprint", "starts_at", "status", "generator_url"),
    "target": ("kind", "namespace", "name", "key"),
}
# The usual template, which needs no parser to be found right: thousands of remediations load in seconds.
_PLAIN = re.compile(r"(?:[^{]|\{(?![{%#])|\{\{ *(?:labels|annotations)\.[A-Za-z_][A-Za-z0-9_]* *\}\})*")
# Errors of expressions over strings and numbers; Jinja2's truncate asserts that its length is enough.
_RENDER_ERRORS = (
    *(jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError),
    AssertionError,
)


class InvalidTemplateError(ValueError):
    """A template cannot work; `line` is the 1-based line within it."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """The names that a template can use; `target` is None until the target is known."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    fingerprint: str
    starts_at: datetime
    status: str = "firing"
    generator_url: str = ""
    target: Target | None = None

    def variables(self) -> dict[str, object]:
        """As the templates name them."""
        alert = {
            "fingerprint": self.fingerprint,
            "starts_at": self.starts_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "status": self.status,
            "generator_url": self.generator_url,
        }
        found: dict[str, object] = {
            "labels": _Named(self.labels, "label"),
            "annotations": _Named(self.annotations, "annotation"),
            "alert": _Named(alert, "field"),
        }
        if self.target is not None:
            target = {name: getattr(self.target, name) for name in _FIELDS["target"]}
            found["target"] = _Named(target, "field")
        return found


class _Named(dict[str, str]):
    """The values of an alert; it lists its names when one is missing."""

    def __init__(self, values: Mapping[str, str], noun: str) -> None:
        super().__init__(values)
        self.noun = noun


class _Missing(jinja2.StrictUndefined):
    """A missing value; its use raises an error that names it."""

    @property
    def _undefined_message(self) -> str:
        within, name = self._undefined_obj, self._undefined_name
        if isinstance(within, _Named) and not self._undefined_hint:
            return f'the alert has no {within.noun} "{name}" (it has: {listed(sorted(within))})'
        return self._undefined_hint or f'there is no "{name}"'


def _quoted(value: object) -> Quoted:
    """One part of a path or of a query; Jinja2's own filter lets a slash through, and with that another path."""
    return Quoted(quote(text_of(value), safe=""))


@jinja2.pass_context  # so that Jinja2 does not take a constant for the author's text
def _printed(_context: object, value: object) -> Value:
    """The value of an expression, marked as such."""
    text = text_of(value)
    return text if isinstance(text, Value) else Value(text)


_ENVIRONMENT = Sandbox(_Missing, _printed, _Named)
_ENVIRONMENT.add_filter("urlencode", _quoted)


def is_template(value: object) -> bool:
    """Whether a value is a text that Jinja2 would change."""
    return isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))


def contains_template(value: object) -> bool:
    """Whether a value, or anything within it, is a template."""
    if isinstance(value, Mapping):
        return any(map(contains_template, value.values()))
    if isinstance(value, list | tuple):
        return any(map(contains_template, value))
    return is_template(value)


@lru_cache(maxsize=16_384)
def _problem(source: str, names: tuple[str, ...], kind: Text) -> tuple[str, int] | None:
    try:
        tree = _ENVIRONMENT.parse(source)
        _refuse_unknown(tree, names)
        _refuse_place(tree, kind)
    except jinja2.TemplateSyntaxError as error:
        return f"bad template: {error.message}", error.lineno
    except InvalidTemplateError as error:
        return f"bad template: {error}", error.line
    return None


def validate(source: str, names: Collection[str] = NAMES, kind: Text = Text.PLAIN) -> None:
    """Find at load the errors of every rendering; raises InvalidTemplateError."""
    plain = kind is Text.PLAIN and len(source) <= MAX_SOURCE and _PLAIN.fullmatch(source)
    problem = None if plain else _problem(source, tuple(names), kind)
    if problem is not None:
        raise InvalidTemplateError(*problem)


def texts(value: object) -> Iterator[str]:
    """Every text within a JSON value, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from texts(item)


def labels_used(source: str) -> frozenset[str]:
    """The labels that a valid template names, in whichever way: `labels.job`, `labels["job"]`, `labels.get("job")`."""
    found: set[str] = set()
    for node in _ENVIRONMENT.parse(source).find_all(nodes.Node):
        match node:
            case nodes.Getattr(node=nodes.Name(name="labels"), attr=name):
                found.add(name)
            case nodes.Getitem(node=nodes.Name(name="labels"), arg=nodes.Const(value=name)):
                found.add(str(name))
            case nodes.Call(node=nodes.Getattr(node=nodes.Name(name="labels")), args=[nodes.Const(value=name), *_]):
                found.add(str(name))
    return frozenset(found)


def _refuse_place(tree: nodes.Template, kind: Text) -> None:
    """Refuse an expression where no value can ever stand; branches are checked when they are rendered.

    The scope decides about the hosts of a URL, at run time.
    """
    if kind in {Text.PLAIN, Text.URL} or not all(isinstance(node, nodes.Output) for node in tree.body):
        return
    refused: list[InvalidTemplateError] = []
    for sample in ("a", "1"):
        try:
            _try_sample(tree, kind, sample)
        except InvalidTemplateError as error:
            refused.append(error)
        else:
            return
    raise refused[0]


def _try_sample(tree: nodes.Template, kind: Text, sample: str) -> None:
    text = escaper(kind)
    for part in (part for output in tree.find_all(nodes.Output) for part in output.nodes):
        try:
            if isinstance(part, nodes.TemplateData):
                text.literal(part.data)
            else:
                text.value(sample)
        except ValueError as error:
            raise InvalidTemplateError(str(error), part.lineno) from error


def _refuse_unknown(tree: nodes.Template, names: tuple[str, ...]) -> None:
    found = list(tree.find_all(nodes.Node))
    own = {node.name for node in found if isinstance(node, nodes.Name) and node.ctx == "store"}
    if any(isinstance(node, nodes.For) for node in found):
        own.add("loop")
    for node in found:
        match node:
            case nodes.Name(name=name) if name not in own and name not in names:
                _refuse_name(name, names, node.lineno)
            case nodes.Getattr(node=nodes.Name(name=owner), attr=field) if owner in _FIELDS:
                _refuse_field(owner, field, node.lineno)
            case nodes.Filter(name=name) if name not in _ENVIRONMENT.filters:
                hint = did_you_mean(name, _ENVIRONMENT.filters)
                raise InvalidTemplateError(f'unknown filter "{name}"{hint}', node.lineno)
            case nodes.Test(name=name) if name not in _ENVIRONMENT.tests:
                hint = did_you_mean(name, _ENVIRONMENT.tests)
                raise InvalidTemplateError(f'unknown test "{name}"{hint}', node.lineno)


def _refuse_name(name: str, names: tuple[str, ...], line: int) -> None:
    if name in NAMES:
        raise InvalidTemplateError(f'there is no "{name}" here', line)
    hint = did_you_mean(name, names) or f"; there are {listed(names)}"
    raise InvalidTemplateError(f'unknown name "{name}"{hint}', line)


def _refuse_field(owner: str, field: str, line: int) -> None:
    known = _FIELDS[owner]
    if field not in known:
        hint = did_you_mean(field, known) or f"; it has {listed(known)}"
        raise InvalidTemplateError(f'{owner} has no "{field}"{hint}', line)


@lru_cache(maxsize=4096)
def _compiled(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


def render(value: Any, context: TemplateContext, kind: Text = Text.PLAIN) -> Any:
    """Fill in every template within a JSON value; raises PermanentError that names the missing value."""
    if not contains_template(value):
        return value
    with metered():
        return _render(value, context.variables(), kind)


def render_params(params: JsonObject, context: TemplateContext, kinds: Mapping[str, Text]) -> JsonObject:
    """Fill in the parameters of a step or check, each as the kind of text that it is."""
    if not contains_template(params):
        return params
    variables = context.variables()
    with metered():
        return {name: _render(value, variables, kinds.get(name, Text.PLAIN)) for name, value in params.items()}


def _render(value: Any, variables: Mapping[str, object], kind: Text) -> Any:
    if isinstance(value, Mapping):
        return {key: _render(item, variables, kind) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_render(item, variables, kind) for item in value]
    return _render_text(value, variables, kind) if is_template(value) else value


def _render_text(source: str, variables: Mapping[str, object], kind: Text) -> str:
    parts: list[str] = []
    length = 0
    text = escaper(kind)
    try:
        for part in _compiled(source).generate(variables):
            parts.append(text.value(part) if isinstance(part, Value) else text.literal(part))
            length += len(parts[-1])
            if length > MAX_OUTPUT:
                _fail(source, f"its text is longer than {MAX_OUTPUT} characters")
    except _RENDER_ERRORS as error:
        _fail(source, str(error))
    rendered = "".join(parts)
    if "\0" in rendered:
        _fail(source, "its text contains a NUL character")
    return rendered


def _fail(source: str, message: str) -> NoReturn:
    shown = source if len(source) <= 80 else f"{source[:77]}..."  # noqa: PLR2004 - one line of a log
    raise PermanentError(f"template {shown!r}: {message}", reason=Reason.TEMPLATE_FAILED) from None
