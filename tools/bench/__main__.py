"""Measures the service beside what it is compared with, in one run: `make bench`, `make bench ARGS="--only latency"`.

Ratios count, since machines differ and are shared; each is of medians over rounds that alternate.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from tools.bench import lasting, receiving, running
from tools.bench.parts import Bench, bare_call
from tools.bench.results import Curve, Result, table, write

CASES: dict[str, Callable[[Bench], Iterator[Result | Curve]]] = {
    "acknowledgement": receiving.acknowledgement,
    "take-in": receiving.taking_in,
    "latency": running.latency,
    "throughput": running.throughput,
    "storm": receiving.storm,
    "catalog": lasting.catalogs,
    "audit": lasting.audit,
    "idle": lasting.idle,
    "start": lasting.cold_start,
    "memory": lasting.memory,
    "growth": receiving.growth,
}


@click.command(help=__doc__)
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="Only this case; repeatable.")
@click.option("--small", is_flag=True, help="One round of a hundredth: does it work at all?")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), help="Where to write.")
def main(only: tuple[str, ...], *, small: bool, out: Path) -> None:
    """Run the cases one after the other."""
    results: list[Result] = []
    curves: list[Curve] = []
    with tempfile.TemporaryDirectory(prefix="remediator-bench-") as home:
        bench = Bench(Path(home), rounds=1, scale=0.01) if small else Bench(Path(home))
        for name in only or CASES:
            call = bare_call(bench)
            for one in CASES[name](bench):
                if isinstance(one, Curve):
                    curves.append(one)
                    continue
                results.append(replace(one, call=call))
                sys.stderr.write(table(results[-1:]).splitlines()[-1] + "\n")
            write(out, results, curves)
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
