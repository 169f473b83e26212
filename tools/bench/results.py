"""What was measured, as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One line: what was measured, what came out beside which reference, and what it is to reach."""

    case: str
    what: str
    value: float
    unit: str
    reference: float | None = None
    bound: float | None = None  # of the ratio to the reference where there is one, else of the value
    at_least: bool = False  # the bound is the least, not the most
    note: str = ""
    call: float | None = None  # milliseconds that a bare HTTP call took just before: how quick the machine was

    @property
    def ratio(self) -> float | None:
        """To the reference."""
        return self.value / self.reference if self.reference else None

    @property
    def is_met(self) -> bool | None:
        """Whether it is within its bound; None where it has none."""
        if self.bound is None:
            return None
        measured = self.value if self.ratio is None else self.ratio
        return measured >= self.bound if self.at_least else measured <= self.bound


@dataclass
class Curve:
    """How something grows: one line of a plot."""

    plot: str
    name: str
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)


def table(results: Sequence[Result]) -> str:
    """Markdown, one row a result."""
    heads = "| what | measured | beside | ratio | to reach | verdict | bare call |"
    lines = [heads, "|---|---:|---:|---:|---:|---|---:|"]
    for one in results:
        sign = "≥" if one.at_least else "≤"
        cells = (
            one.what,
            f"{_short(one.value)} {one.unit}",
            "" if one.reference is None else f"{_short(one.reference)} {one.unit}",
            "" if one.ratio is None else f"{one.ratio:.2f}",
            "" if one.bound is None else f"{sign} {one.bound:g}",
            "; ".join(filter(None, ({None: "", True: "met", False: "**short**"}[one.is_met], one.note))),
            "" if one.call is None else f"{_short(one.call)} ms",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - digits that mean something


def write(directory: Path, results: Sequence[Result], curves: Sequence[Curve]) -> None:
    """Write results.md, results.json and, for each kind of curve, a plot."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.md").write_text(table(results))
    content = {
        "results": [asdict(one) | {"ratio": one.ratio, "met": one.is_met} for one in results],
        "curves": [asdict(one) for one in curves],
    }
    (directory / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    for plot in sorted({curve.plot for curve in curves}):
        _draw(directory / f"{plot}.svg", [curve for curve in curves if curve.plot == plot])


def _draw(file: Path, curves: Sequence[Curve]) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - takes a second, and only this needs it

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4.2))
    for curve in curves:
        axes.plot(curve.x, curve.y, marker="o", label=curve.name)
    words = file.stem.split("-by-")
    axes.set(xlabel=words[-1].replace("-", " "), ylabel=words[0].replace("-", " "))
    if _is_wide([x for curve in curves for x in curve.x]):
        axes.set_xscale("log")
    heights = [y for curve in curves for y in curve.y]
    if _is_wide(heights):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.2 * max(heights))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.10g}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _is_wide(values: Sequence[float]) -> bool:
    """Whether most would be drawn as one where all are drawn to scale."""
    return max(values) > 50 * min((value for value in values if value > 0), default=math.inf)
