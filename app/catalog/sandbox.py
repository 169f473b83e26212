"""The limits of a template, in names and in cost: Jinja2, sandboxed and metered.

A catalog is reviewed and a label is not, so neither alone may make much out of little. Every value that an expression
reads or makes is charged to a budget before it is made; a rendering that has spent its budget fails. There is no way
around the meter: the blocks, filters and methods are the ones listed here, and each goes through it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.catalog.meter import afford, bounded, charge, spend_round, text_of

MAX_SOURCE = 64 * 1024  # characters of one template
_MAX_DEPTH = 40

_BLOCKS: frozenset[type[nodes.Node]] = frozenset(
    {
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign),
        *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Call),
        *(nodes.Filter, nodes.Test, nodes.Keyword, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.Concat),
        *(nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div),
        *(nodes.FloorDiv, nodes.Mod, nodes.Pow, nodes.Dict, nodes.Pair),
    }
)
_WORDS: dict[type[nodes.Node], str] = {
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
    nodes.FilterBlock: "filter",
    nodes.AssignBlock: "set x %}...{% endset",
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.With: "with",
}
_FILTERS = (
    *("abs", "capitalize", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length"),
    *("list", "lower", "max", "min", "reject", "select", "sort", "title"),
    *("trim", "truncate", "unique", "upper"),
)
# Filters that take anything for a text, and would spell out a mapping of every label.
_OF_TEXTS = frozenset({"capitalize", "lower", "title", "trim", "truncate", "upper"})
_METHODS_OF_TEXTS = (
    *("capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal"),
    *("isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "lower", "lstrip", "partition"),
    *("removeprefix", "removesuffix", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines"),
    *("startswith", "strip", "swapcase", "title", "upper"),
)
_METHODS_OF_MAPPINGS = frozenset({"get", "items", "keys", "values"})
_JINJA = (jinja2.Environment, nodes.EvalContext, Context)  # the first argument of its own filters


def _joined(parts: Iterable[object], between: str = "") -> str:
    texts = [text_of(part) for part in parts]
    afford(sum(map(len, texts)) + len(between) * (len(texts) - 1))
    return between.join(texts)


def _replaced(text: str, old: str, new: str, count: int = -1) -> str:
    text, old, new = text_of(text), text_of(old), text_of(new)
    found = text.count(old)
    afford(len(text) + (found if count < 0 else min(found, count)) * (len(new) - len(old)))
    return text.replace(old, new, count)


def _tojson(value: object) -> str:
    # As Jinja2's own filter: what HTML would read as markup is spelled out. The text of a collection is no longer
    # than its charge, but for escapes.
    text = json.dumps(value, sort_keys=True, default=text_of)
    for mark in "<>&'":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _metered(filter_: Callable[..., Any], *, of_text: bool) -> Callable[..., Any]:
    """A filter whose arguments are charged before it runs, and its result after; Jinja2's marks are kept."""

    @wraps(filter_)
    def run(*args: Any, **options: Any) -> Any:
        given = [value for value in args if not isinstance(value, _JINJA)]
        charge(*given, *options.values())
        if of_text:
            text_of(given[0])
        return bounded(filter_(*args, **options))

    return run


def _rounds(items: Any) -> Iterator[Any]:
    """The items of a loop; each round costs, so that a loop over little cannot run for long."""
    for item in items:
        charge(item)
        spend_round()
        yield item


class _Generator(CodeGenerator):
    """Lets every value that is read by name, put together or gone over pass the meter."""

    def visit_Name(self, node: nodes.Name, frame: Frame) -> None:  # noqa: N802 - Jinja2's own name
        if node.ctx != "load":
            super().visit_Name(node, frame)
            return
        self.write("environment.read(")
        super().visit_Name(node, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja2's own name
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802 - Jinja2's own name
        self.write("environment.getitem(")
        self.visit(node.node, frame)
        self.write(", ")
        if isinstance(node.arg, nodes.Slice):
            self.write("slice(")
            for end in (node.arg.start, node.arg.stop, node.arg.step):
                self.visit(end or nodes.Const(None), frame)
                self.write(", ")
            self.write(")")
        else:
            self.visit(node.arg, frame)
        self.write(")")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 without loaders, globals, and every block, filter or method that has no bound."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, undefined: type[jinja2.Undefined], finalize: Callable[..., str], given: type) -> None:
        # The output is no HTML; app.catalog.escaping has the needs of each place.
        super().__init__(undefined=undefined, autoescape=False, finalize=finalize, optimized=False)
        self._given = given
        self.globals.clear()
        own: dict[str, Callable[..., Any]] = {
            "join": _joined,
            "replace": _replaced,
            "string": text_of,
            "tojson": _tojson,
        }
        kept = {name: _metered(self.filters[name], of_text=name in _OF_TEXTS) for name in _FILTERS}
        self.filters = kept | {name: _metered(filter_, of_text=False) for name, filter_ in own.items()}
        self.filters["~rounds"] = _rounds  # no template can write that name

    def add_filter(self, name: str, filter_: Callable[..., Any]) -> None:
        """Add a filter from a text to a text."""
        self.filters[name] = _metered(filter_, of_text=True)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE:
            raise jinja2.TemplateSyntaxError(f"it is longer than {MAX_SOURCE} characters", 1)
        try:
            tree = super()._parse(source, name, filename)
        except RecursionError:
            raise jinja2.TemplateSyntaxError("it is nested too deeply", 1) from None
        except (ValueError, OverflowError):
            raise jinja2.TemplateSyntaxError("a number is too large", 1) from None
        _refuse_blocks(tree)
        return tree

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        for loop in source.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "~rounds", [], [], None, None, lineno=loop.lineno)
        return super()._generate(source, *args, **options)

    def read(self, value: Any) -> Any:
        """A value that is read by name; an alert's values are charged when something is taken out of them."""
        if not isinstance(value, self._given):
            charge(value)
        return value

    def joined(self, parts: Iterable[object]) -> str:
        """The texts of `a ~ b`."""
        return str(bounded(_joined(parts)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An arithmetic operation on numbers, or two texts put together."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self.joined((left, right))
        if operator == "**" or not (isinstance(left, int | float) and isinstance(right, int | float)):
            for each in (left, right):
                if isinstance(each, jinja2.Undefined):
                    str(each)  # raises, and names the present ones
            raise jinja2.TemplateRuntimeError(f'"{operator}" cannot be used on these values')
        return bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, *args: Any, **options: Any) -> Any:
        """A method of a text or a mapping."""
        if not isinstance(obj, partial):
            return super().call(context, obj, *args, **options)
        charge(*args, *options.values())
        return bounded(obj(*args, **options))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A label named like a method of mappings (`labels.items`) is the label, not the method."""
        if isinstance(obj, Mapping):
            if attribute in obj:
                return bounded(obj[attribute])
            if attribute in _METHODS_OF_MAPPINGS:
                return partial(getattr(dict, attribute), obj)
        if isinstance(obj, str) and attribute in _METHODS:
            charge(obj)
            return partial(_METHODS[attribute], obj)
        if isinstance(obj, LoopContext | jinja2.Undefined):
            return super().getattr(obj, attribute)
        if hasattr(obj, attribute):
            raise SecurityError(f'"{attribute}" is not available in templates')
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An element of a mapping or a list, a character of a text."""
        if isinstance(argument, str) and not (isinstance(obj, Mapping) and argument in obj):
            return self.getattr(obj, argument)
        return bounded(super().getitem(obj, argument))


_METHODS: dict[str, Callable[..., Any]] = {name: getattr(str, name) for name in _METHODS_OF_TEXTS} | {
    "join": lambda between, parts: _joined(parts, between),
    "replace": _replaced,
}


def _refuse_blocks(tree: nodes.Template) -> None:
    """Let only listed nodes through; goes level by level, since a deep tree would exhaust the stack."""
    level: list[nodes.Node] = [tree]
    depth = 0
    while level:
        if depth > _MAX_DEPTH:
            raise jinja2.TemplateSyntaxError("it is nested too deeply", level[0].lineno)
        for node in level:
            if type(node) not in _BLOCKS:
                word = _WORDS.get(type(node), type(node).__name__.lower())
                raise jinja2.TemplateSyntaxError(f'"{{% {word} %}}" is not available', node.lineno)
            if isinstance(node, nodes.For) and (node.recursive or node.find(nodes.For) is not None):
                raise jinja2.TemplateSyntaxError("a loop within a loop is not available", node.lineno)
        level = [child for node in level for child in node.iter_child_nodes()]
        depth += 1
