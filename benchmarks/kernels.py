"""Single products and attentions beside the machine's ceilings: operations per second of one thread, tier by tier.

An instruction has no binding of its own: bodies run that hold it once and many times more, and the difference is what
so many take. Each is the best of some rounds, in turns; ceilings are loops on registers alone, in the same run.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import machine
from .arguments import positive, positives

RESULTS = Path(__file__).parent / "results"
REPEATS = (4, 64)  # at least and at most
SECONDS = 0.02  # that they would take at the ceiling, unless that is more of them
WIDTH, HEADS = 768, 12  # BERT-base's
SHAPES = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))
"""Of a product's weight: columns of the input, of the output."""


@dataclass(frozen=True)
class Row:
    """One line of the table; `rate` and `ceiling` in operations per second."""

    instruction: str
    tier: str
    weights: str
    tokens: int
    rate: float
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
    print(f"{'tier':9} {'weights':9} {'instruction':28} {'tokens':>6} {'GOP/s':>7} {'ceiling':>8}")
    for row in measured(tiers, options.weights.split(","), options.tokens, options.rounds):
        rows.append(row)
        share = f"{row.rate / row.ceiling:.0%}"
        print(
            f"{row.tier:9} {row.weights:9} {row.instruction:28} {row.tokens:6,} {row.rate / 1e9:7,.0f} {share:>8}",
            flush=True,
        )
    path = options.output or RESULTS / f"kernels-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": description, "rows": [asdict(row) for row in rows]}, indent=2))
    print(f"\nwritten: {path}")
    return 0


def measured(tiers: Sequence[str], formats: Sequence[str], tokens: Sequence[int], rounds: int) -> Iterator[Row]:
    """The lines of the table, one by one."""
    from longspan import _csrc

    for tier in tiers:
        for weights in formats:
            for count in tokens:
                for case in _cases(tier, weights, count):
                    once, more, peaks = [], [], []
                    for _ in range(rounds):
                        once.append(_seconds(case.once, count))
                        more.append(_seconds(case.more, count))
                        peaks.append(1e9 * _csrc.peak_gflops(tier, 1, "int8" if "int8" in case.name else weights))
                    rate = case.repeats * case.operations / (min(more) - min(once))
                    yield Row(case.name, tier, weights, count, rate, max(peaks))


@dataclass(frozen=True)
class Case:
    """What is measured: `operations` of one, a bound body that holds it once, and one with `repeats` more."""

    name: str
    operations: float
    repeats: int
    once: Any
    more: Any


def _cases(tier: str, weights: str, tokens: int) -> Iterator[Case]:
    from longspan import _csrc

    peak = 1e9 * _csrc.peak_gflops(tier, 1, weights)

    def case(name: str, operations: float, body: Callable[[int], Any]) -> Case:
        repeats = int(np.clip(math.ceil(SECONDS * peak / operations), *REPEATS))
        return Case(name, operations, repeats, body(1), body(1 + repeats))

    def linear(width: int, columns: int) -> Case:
        one = _linear(width, columns)
        operations = 2.0 * tokens * width * columns
        return case(f"linear {width} -> {columns}", operations, lambda count: _body(tier, weights, [one] * count))

    def attention(name: str, int8: bool) -> Case:
        operations = 4.0 * tokens * tokens * WIDTH
        title = f"{name}, head size {WIDTH // HEADS}"
        return case(title, operations, lambda count: _body(tier, weights, _attention(count), int8))

    yield from (linear(*shape) for shape in SHAPES)
    yield attention("attention", int8=False)
    if weights == "int8":
        yield attention("attention over int8", int8=True)


def _linear(width: int, columns: int) -> Any:
    from longspan.program.instructions import Linear
    from longspan.program.operands import Weight

    weight = Weight((f"weight {width} {columns}",), (columns, width))
    return Linear(stage=1, x=_buffer("x", width), out=_buffer("y", columns), weight=weight, activation="identity")


def _attention(count: int) -> list[Any]:
    from longspan.program.instructions import Attention, Qkv
    from longspan.program.operands import Weight

    q, k, v = (_buffer(name, WIDTH) for name in "qkv")
    size = WIDTH // HEADS
    weight = Weight((f"weight {WIDTH} {3 * WIDTH}",), (3 * WIDTH, WIDTH))
    x, y = _buffer("x", WIDTH), _buffer("y", WIDTH)
    qkv = Qkv(stage=1, x=x, q=q, k=k, v=v, weight=weight, heads=HEADS, kv_heads=HEADS, head_size=size)
    one = Attention(stage=1, q=q, k=k, v=v, out=y, heads=HEADS, kv_heads=HEADS, head_size=size, scale=size**-0.5)
    return [qkv, *[one] * count]


def _buffer(name: str, width: int) -> Any:
    from longspan.program.operands import Buffer, Rows

    return Buffer(name, Rows.TOKENS, width)


def _body(tier: str, weights: Any, steps: Sequence[Any], int8_attention: bool = False) -> Any:
    """A bound body that embeds, goes through the steps and pools, with what runs it."""
    from longspan.checkpoint.tensor_view import TensorView
    from longspan.executors.binding import bind
    from longspan.executors.runner import BodyRunner
    from longspan.program.formats import in_format
    from longspan.program.instructions import Embed, Pool
    from longspan.program.operands import Buffer, Rows, Weight
    from longspan.program.program import Program

    rng = np.random.default_rng(0)
    x, y = steps[0].x, steps[-1].out
    embed = Embed(stage=0, out=x, tokens=Weight(("table",), (512, x.width)))
    pool = Pool(stage=2, x=y, out=Buffer("pooled", Rows.PARTIALS, y.width), kind="sum", index=0)
    body = in_format(Program("kernel", (embed, *steps, pool), outputs=(pool.out,)), weights)
    tensors = {}
    for weight in {weight for step in body.instructions for weight in step.weights}:
        values = rng.standard_normal(weight.shape, dtype=np.float32) * (1 if "table" in weight.names else 0.05)
        tensors[weight.names[0]] = TensorView(weight.names[0], "F32", weight.shape, values, Path("memory"), None, 0)
    program = bind(body, tensors, tier, None)
    program.attend_in_int8(int8_attention)
    return program, BodyRunner(body, tensors)


def _seconds(bound: Any, tokens: int) -> float:
    """Of one run over one text."""
    from longspan.batch import PackedBatch, Partials
    from longspan.executors.ways import Way

    program, runner = bound
    ends = np.array([0, tokens], np.int64)
    whole = Partials(ends[:1], ends[1:], np.ones(1, np.float32), np.zeros(1, np.float32), np.array([0, 1], np.int64))
    ids = (np.arange(tokens) % 512).astype(np.int32)
    batch = PackedBatch(ids=ids, positions=ids, cu_seqlens=ends, partials=(whole,))
    start = time.perf_counter()
    runner.run(program, batch, replace(Way(), schedule="packs"), 1)
    return time.perf_counter() - start
