"""Unknown fields: which one was meant, and where it belongs when it stands at the wrong level.

Diagnostics of the catalog and the settings ask; both are trees of pydantic models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from app.backends.registry import targets
from app.domain import former_names
from app.domain.names import did_you_mean, listed
from app.domain.remediation import CheckSpec, StepSpec, TargetSpec

Loc = tuple[str | int, ...]
_MOST_PLACES = 3  # that are named for a field at the wrong level
_UNDER_WITH = '; parameters of an action or a check belong under "with"'


def unknown_field(model: type[BaseModel], loc: Loc, subject: str) -> str:
    """That the last part of `loc` is no field, and which one was probably meant."""
    owner = model
    for key in loc[:-1]:
        if isinstance(key, str):
            subject = f'"{key}"' if key in field_names(owner) else subject
            owner = _model_of(owner, key) or owner
    known = field_names(owner)
    if (renamed := former_names.FIELDS.get(str(loc[-1]))) in known:
        return f"{loc[-1]} was renamed to {renamed}"
    name = str(loc[-1])
    hint = (
        _elsewhere(model, name, loc)
        or did_you_mean(name, known)
        or _near_elsewhere(model, name, loc)
        or (_UNDER_WITH if "with" in known else f"; there are {listed(known)}")
    )
    return f'unknown field "{name}" for {subject}{hint}'


def _elsewhere(model: type[BaseModel], name: str, loc: Loc) -> str:
    """``; it belongs under "limits"`` where a field of this name stands at another level."""
    found = sorted(dict.fromkeys(place for field, place in _places(model) if field == name), key=len)
    told = [f'under "{".".join(place)}"' if place else f'beside "{loc[0]}"' for place in found[:_MOST_PLACES]]
    return f"; it belongs {' or '.join(told)}" if told else ""


def _near_elsewhere(model: type[BaseModel], name: str, loc: Loc) -> str:
    """The same for a name with a typing error."""
    meant = did_you_mean(name, sorted({field for field, _ in _places(model)}))
    if not meant:
        return ""
    field = meant.split('"')[1]
    return f"{meant.removesuffix('?')}, which{_elsewhere(model, field, loc).removeprefix('; it')}?"


def _places(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every field with the keys that lead to where it stands; the names that people choose are left out."""
    for key, info in zip(field_names(model), model.model_fields.values(), strict=True):
        yield key, above
        below = _first_model(info.annotation)
        if below is TargetSpec:
            for name, kind in targets().items():
                yield name, (*above, key)
                yield from _places(kind.Fields, (*above, key, name))
        elif below is not None:
            yield from _places(below, (*above, key))


def field_names(model: type[BaseModel]) -> list[str]:
    """The fields of a model as YAML names them."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    for name, info in model.model_fields.items():
        if key in {name, info.alias}:
            return _first_model(info.annotation)
    return None


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _first_model(part))), None)


def beside_with(path: str, loc: Loc) -> str:
    """Return the message about a field of a step or check that stands among its parameters."""
    fields = {*field_names(StepSpec), *field_names(CheckSpec)}
    name, is_parameter = str(loc[-1]), len(loc) == 1 and path.endswith(".with")
    return f'unknown field "{name}" for "with"; it belongs beside "with"' if is_parameter and name in fields else ""
