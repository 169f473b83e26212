"""What may be touched: the border that neither a label nor a catalog can move, in a block for each backend.

Nothing is within it but what the configuration names. The model is made of what the installed backends say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, create_model

from app.backends.base import Backend, ScopeBlock
from app.backends.registry import backends
from app.domain.model import JsonObject, Value
from app.domain.plans import NO_BACKEND, Plan, Target


class _Scope(Value):
    """Patterns (`*` and `?`) of targets that the service may act on; it touches no other target."""

    def of(self, backend: str) -> Any:
        """The block of a backend; None where it has none, or is not installed."""
        return getattr(self, backend, None)

    def objection(self, target: Target) -> str | None:
        """Say why `target` is out of scope and which setting would bring it in, or None."""
        if target.backend == NO_BACKEND:
            return None
        block = self.of(target.backend)
        if block is None:
            return f"there is no scope for {target.backend} targets: the backend is not installed"
        said: str | None = block.objection(target)
        return said

    def params_objection(self, params: JsonObject) -> str | None:
        """Say which parameter of a step or check is out of scope, or None."""
        return next(filter(None, (block.params_objection(params) for block in self._blocks())), None)

    def plan_objection(self, plan: Plan) -> str | None:
        """Say which part of `plan` is out of scope, or None."""
        used = [*(step.params for step in plan.steps), *(check.params for check in plan.verify)]
        return self.objection(plan.target) or next(filter(None, map(self.params_objection, used)), None)

    def _blocks(self) -> Iterator[ScopeBlock]:
        return (getattr(self, name) for name in type(self).model_fields)


def _block(backend: Backend[Any], block: type[ScopeBlock]) -> tuple[Any, Any]:
    return Annotated[block, BeforeValidator(_mapping(backend.name, next(iter(block.model_fields))))], Field(
        default=block(), description=f"What of {backend.title} may be acted on."
    )


def _mapping(name: str, first: str) -> Callable[[object], object]:
    """Say which form replaces a list, which earlier releases had here."""

    def check(given: object) -> object:
        if isinstance(given, list | tuple | str):
            raise ValueError(f"must be a mapping; write scope.{name}.{first}: [...]")  # noqa: TRY004 - pydantic's way
        return given

    return check


if TYPE_CHECKING:
    Scope = _Scope
else:
    Scope = create_model(
        "Scope",
        __base__=_Scope,
        __module__=__name__,
        **{name: _block(one, one.Scope) for name, one in backends().items() if one.Scope is not None},
    )
    Scope.__doc__ = _Scope.__doc__
