"""prometheus.query: whether a PromQL expression has the expected result now."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.backends.base import DEFAULT, Names
from app.backends.check import Check, CheckContext, observation, observing
from app.backends.prometheus.backend import PROMETHEUS
from app.backends.prometheus.client import Sample
from app.domain.model import Value
from app.domain.plans import Observation
from app.domain.texts import Text

_SHOWN = 5

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}


class QueryParams(Value):
    """The expression and the expected samples."""

    query: Annotated[str, Text.PROMQL] = Field(
        min_length=1, description="PromQL that gives an instant vector or a scalar."
    )
    op: Literal["<", "<=", "==", "!=", ">=", ">"] | None = Field(default=None, description="Compares every sample.")
    value: float | None = Field(default=None, allow_inf_nan=False, description="Compared with each sample.")
    empty: Literal["fail", "hold"] = Field(default="fail", description="The meaning of a result without samples.")

    # Only stored where it is another one: a release that knows one server only cannot ask it.
    instance: Annotated[str, Names("prometheus")] = Field(
        default=DEFAULT,
        exclude_if=lambda name: name == DEFAULT,
        description="Which server of connections.prometheus is asked.",
    )

    @model_validator(mode="after")
    def _comparison(self) -> QueryParams:
        if (self.op is None) != (self.value is None):
            msg = "op and value go together"
            raise ValueError(msg)
        if self.op is None and self.empty == "hold":
            msg = "empty: hold needs op and value; without them the check would always hold"
            raise ValueError(msg)
        return self


class Query(Check[QueryParams]):
    """Holds when there are samples and each compares as asked; NaN never does."""

    name = "prometheus.query"
    summary = "A PromQL expression gives samples, and each is as it should be."
    Params = QueryParams

    async def observe(self, context: CheckContext, params: QueryParams) -> Observation:
        """Evaluate the expression once."""
        with observing():
            samples = await (await PROMETHEUS.client(context.clients, params.instance)).query(params.query)
        if not samples:
            return observation(params.empty == "hold", "the query gives no samples", samples=0)
        failing = [sample for sample in samples if not _holds(params, sample.value)]
        shown = [{"labels": sample.labels, "value": str(sample.value)} for sample in (failing or samples)[:_SHOWN]]
        return observation(not failing, _message(params, samples, failing), samples=len(samples), shown=shown)


def _holds(params: QueryParams, value: float) -> bool:
    if math.isnan(value):
        return False
    return params.op is None or params.value is None or _COMPARE[params.op](value, params.value)


def _message(params: QueryParams, samples: list[Sample], failing: list[Sample]) -> str:
    wanted = "a number" if params.op is None else f"{params.op} {params.value:g}"
    if failing:
        return f"{len(failing)} of {len(samples)} samples are not {wanted}, for example {failing[0].value:g}"
    return f"all {len(samples)} samples are {wanted}"
