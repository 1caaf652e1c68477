"""Operations per second of one thread, tier by tier, beside the machine's ceilings and torch's own kernels.

Each is the best of some rounds, in turns; ceilings are loops on registers alone, in the same run.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .. import machine
from ..arguments import positive, positives
from .bodies import Bodies
from .torch_kernels import TorchKernels
from .work import Work, all_work

RESULTS = Path(__file__).parents[1] / "results"
REPEATS = (4, 64)  # at least and at most
SECONDS = 0.02  # that they would take at the ceiling, unless that is more of them


@dataclass(frozen=True)
class Row:
    """One line of the table; rates in operations per second."""

    instruction: str
    tier: str
    weights: str
    tokens: int
    rate: float
    torch: float | None  # None: it has no kernel for this, or is not there
    ceiling: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks kernels`."""
    parser.add_argument("--tiers", metavar="A,B", help="tiers of instructions (default: all of this machine)")
    parser.add_argument("--weights", metavar="A,B", default="float32,bfloat16,int8", help="formats (default: all)")
    parser.add_argument("--tokens", type=positives, default=(512, 4096), metavar="N,N", help="(default: 512,4096)")
    parser.add_argument("--rounds", type=positive, default=5, help="the best of so many counts (default: 5)")
    parser.add_argument("--output", type=Path, help="the JSON file (default: in results/)")


def run(options: argparse.Namespace) -> int:
    """The command `kernels`."""
    from longspan import _csrc

    description = machine.describe()
    print(machine.title(description), "one thread", sep=", ", flush=True)
    tiers = options.tiers.split(",") if options.tiers else _csrc.tiers()
    rows: list[Row] = []
    print(f"{'tier':9} {'weights':9} {'instruction':32} {'tokens':>6} {'GOP/s':>7} {'ceiling':>8} {'torch':>6}")
    for row in measured(tiers, options.weights.split(","), options.tokens, options.rounds):
        rows.append(row)
        print(line(row), flush=True)
    path = options.output or RESULTS / f"kernels-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": description, "rows": [asdict(row) for row in rows]}, indent=2))
    print(f"\n`ceiling`: the share of it that Longspan reaches; `torch`: that torch does\nwritten: {path}")
    return 0


def line(row: Row) -> str:
    """A row of the table, for people."""
    torch = "-" if row.torch is None else f"{row.torch / row.ceiling:.0%}"
    return (
        f"{row.tier:9} {row.weights:9} {row.instruction:32} {row.tokens:6,} {row.rate / 1e9:7,.0f} "
        f"{row.rate / row.ceiling:>8.0%} {torch:>6}"
    )


def measured(tiers: Sequence[str], formats: Sequence[str], tokens: Sequence[int], rounds: int) -> Iterator[Row]:
    """The lines of the table, one by one."""
    for tier in tiers:
        told = False
        with closing(TorchKernels(tier)) as torch:
            for work in (work for weights in formats for count in tokens for work in all_work(weights, count)):
                row = measure(tier, work, torch, rounds)
                if torch.why and not told:
                    print(f"without torch: {torch.why}")
                    told = True
                yield row


def measure(tier: str, work: Work, torch: TorchKernels, rounds: int) -> Row:
    """One line: all of it in turns."""
    from longspan import _csrc

    def peak() -> float:
        return 1e9 * float(_csrc.peak_gflops(tier, 1, work.precision))

    repeats = int(np.clip(math.ceil(SECONDS * peak() / work.operations), *REPEATS))
    own = Bodies(tier, work, repeats)
    once, more, theirs, peaks = [], [], [], []
    for _ in range(rounds):
        seconds = own.seconds()
        once.append(seconds[0])
        more.append(seconds[1])
        theirs.append(torch.seconds(work, repeats))
        peaks.append(peak())
    total = repeats * work.operations
    best = min((seconds for seconds in theirs if seconds is not None), default=None)
    rate = total / (min(more) - min(once))
    return Row(work.name, tier, work.weights, work.tokens, rate, total / best if best else None, max(peaks))
