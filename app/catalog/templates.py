"""Templates in the values of a remediation: Jinja2, sandboxed, over the alert and the target.

The catalog validates them at load, the engine renders them while it plans. The text of a template is the catalog
owner's; what comes with an alert only fills in values and is never evaluated, however it looks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn
from urllib.parse import quote

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.catalog.names import did_you_mean, listed
from app.domain.errors import PermanentError
from app.domain.plans import Target
from app.domain.reasons import Reason

MAX_OUTPUT = 64 * 1024  # characters
ALERT_NAMES = ("labels", "annotations", "alert")
NAMES = (*ALERT_NAMES, "target")
_FIELDS = {
    "alert": ("fingerprint", "starts_at", "status", "generator_url"),
    "target": ("kind", "namespace", "name", "key"),
}
# None of these makes much out of little, so that a template's cost is bounded by the size of the alert.
_FILTERS = (
    *("abs", "capitalize", "d", "default", "dictsort", "first", "float", "int", "items", "join", "last", "length"),
    *("list", "lower", "max", "min", "reject", "replace", "select", "sort", "string", "title", "tojson"),
    *("trim", "truncate", "unique", "upper", "urlencode"),
)
_UNBOUNDED = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "translate", "zfill"})
# The usual template, which needs no parser to be found right: thousands of remediations load in seconds.
_PLAIN = re.compile(r"(?:[^{]|\{(?![{%#])|\{\{ *(?:labels|annotations)\.[A-Za-z_][A-Za-z0-9_]* *\}\})*")
_REFUSED_BLOCKS: dict[type[nodes.Node], str] = {
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Extends: "extends",
    nodes.Block: "block",
}
# What an expression over strings and numbers can raise.
_RENDER_ERRORS = (
    *(jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError),
)


class InvalidTemplateError(ValueError):
    """A template cannot work; `line` is the 1-based line within it."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """What templates see; `target` is None until the target is known."""

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
            "alert": alert,
        }
        if self.target is not None:
            found["target"] = {name: getattr(self.target, name) for name in _FIELDS["target"]}
        return found


class _Named(dict[str, str]):
    """Labels or annotations, which can say what they have when one is missing."""

    def __init__(self, values: Mapping[str, str], noun: str) -> None:
        super().__init__(values)
        self.noun = noun


class _Missing(jinja2.StrictUndefined):
    """Something that is not there; using it names what is."""

    @property
    def _undefined_message(self) -> str:
        within, name = self._undefined_obj, self._undefined_name
        if isinstance(within, _Named) and not self._undefined_hint:
            return f'the alert has no {within.noun} "{name}" (it has: {listed(sorted(within))})'
        return self._undefined_hint or f'there is no "{name}"'


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja2 without loaders, globals and whatever makes much out of little."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        # The output is no HTML; where it becomes JSON or a URL, the filters tojson and urlencode are the way.
        super().__init__(undefined=_Missing, autoescape=False, finalize=_printable)
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in _FILTERS} | {"urlencode": _quoted}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise jinja2.TemplateRuntimeError(f'"{operator}" cannot be used on these values')
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A label named like a method of mappings (`labels.items`) is the label, not the method."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        _refuse_unbounded(obj, attribute)
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        return self.undefined(f'"{attribute}" is not available in templates', name=attribute, obj=obj)

    def getitem(self, obj: Any, argument: Any) -> Any:
        _refuse_unbounded(obj, argument)
        return super().getitem(obj, argument)


def _quoted(value: object) -> str:
    """One part of a path or of a query; Jinja2's own filter lets a slash through, and with that another path."""
    return quote(str(value), safe="")


def _refuse_unbounded(obj: object, attribute: object) -> None:
    if isinstance(obj, str) and attribute in _UNBOUNDED:
        raise SecurityError(f'"{attribute}" is not available in templates')


def _printable(value: object) -> object:
    """Refuse to print what has no one obvious text."""
    if isinstance(value, str | int | float | jinja2.Undefined):
        return value
    raise jinja2.TemplateRuntimeError(f"an expression gives {_kind(value)} where a text is needed")


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return "a method without its ()" if callable(value) else "a collection"


_ENVIRONMENT = _Environment()


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
def _problem(source: str, names: tuple[str, ...]) -> tuple[str, int] | None:
    try:
        tree = _ENVIRONMENT.parse(source)
        _refuse_unknown(tree, names)
    except jinja2.TemplateSyntaxError as error:
        return f"bad template: {error.message}", error.lineno
    except InvalidTemplateError as error:
        return f"bad template: {error}", error.line
    return None


def validate(source: str, names: Collection[str] = NAMES) -> None:
    """Find at load what would fail at every rendering; raises InvalidTemplateError."""
    problem = None if _PLAIN.fullmatch(source) else _problem(source, tuple(names))
    if problem is not None:
        raise InvalidTemplateError(*problem)


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
            case nodes.Filter(name=name) if name not in _FILTERS:
                raise InvalidTemplateError(f'unknown filter "{name}"{did_you_mean(name, _FILTERS)}', node.lineno)
            case nodes.Test(name=name) if name not in _ENVIRONMENT.tests:
                hint = did_you_mean(name, _ENVIRONMENT.tests)
                raise InvalidTemplateError(f'unknown test "{name}"{hint}', node.lineno)
            case nodes.For() if node.recursive or node.find(nodes.For) is not None:
                raise InvalidTemplateError("a loop within a loop is not available", node.lineno)
            case _ if type(node) in _REFUSED_BLOCKS:
                raise InvalidTemplateError(f'"{{% {_REFUSED_BLOCKS[type(node)]} %}}" is not available', node.lineno)


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


def render(value: Any, context: TemplateContext) -> Any:
    """Fill in every template within a JSON value; raises PermanentError that names what is missing."""
    return _render(value, context.variables()) if contains_template(value) else value


def _render(value: Any, variables: Mapping[str, object]) -> Any:
    if isinstance(value, Mapping):
        return {key: _render(item, variables) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_render(item, variables) for item in value]
    return _render_text(value, variables) if is_template(value) else value


def _render_text(source: str, variables: Mapping[str, object]) -> str:
    parts: list[str] = []
    length = 0
    try:
        for part in _compiled(source).generate(variables):
            length += len(part)
            if length > MAX_OUTPUT:
                _fail(source, f"its text is longer than {MAX_OUTPUT} characters")
            parts.append(part)
    except _RENDER_ERRORS as error:
        _fail(source, str(error))
    text = "".join(parts)
    if "\0" in text:
        _fail(source, "its text contains a NUL character")
    return text


def _fail(source: str, message: str) -> NoReturn:
    shown = source if len(source) <= 80 else f"{source[:77]}..."  # noqa: PLR2004 - one line of a log
    raise PermanentError(f"template {shown!r}: {message}", reason=Reason.TEMPLATE_FAILED) from None
