"""Longspan's side: bodies that hold an instruction once and many times more, as it has no binding of its own."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .work import HEAD_SIZE, HEADS, WIDTH, Work


class Bodies:
    """Bound bodies of one instruction and of `repeats` more; what these take is the difference."""

    def __init__(self, tier: str, work: Work, repeats: int) -> None:
        self.work, self.repeats = work, repeats
        self.once, self.more = (_body(tier, work, count) for count in (1, 1 + repeats))

    def seconds(self) -> tuple[float, float]:
        """Of one run of each, over one text."""
        return _seconds(*self.once, self.work.tokens), _seconds(*self.more, self.work.tokens)


def _steps(work: Work, count: int) -> list[Any]:
    """The instruction so many times, and what it needs before."""
    from longspan.program.instructions import Attention, Linear, Qkv
    from longspan.program.operands import Weight

    x, y = _buffer("x", work.width), _buffer("y", work.columns)
    if work.instruction == "linear":
        weight = Weight((f"weight {work.width} {work.columns}",), (work.columns, work.width))
        return [Linear(stage=1, x=x, out=y, weight=weight, activation="identity")] * count
    q, k, v = (_buffer(name, WIDTH) for name in "qkv")
    heads: Any = {"heads": HEADS, "kv_heads": HEADS, "head_size": HEAD_SIZE}
    weight = Weight((f"weight {WIDTH} {3 * WIDTH}",), (3 * WIDTH, WIDTH))
    one = Attention(stage=1, q=q, k=k, v=v, out=y, scale=HEAD_SIZE**-0.5, **heads)
    return [Qkv(stage=1, x=x, q=q, k=k, v=v, weight=weight, **heads), *[one] * count]


def _buffer(name: str, width: int) -> Any:
    from longspan.program.operands import Buffer, Rows

    return Buffer(name, Rows.TOKENS, width)


def _body(tier: str, work: Work, count: int) -> tuple[Any, Any]:
    """A bound body that embeds, goes through the steps and pools, and what runs it."""
    from longspan.checkpoint.tensor_view import TensorView
    from longspan.executors.binding import bind
    from longspan.executors.runner import BodyRunner
    from longspan.program.formats import in_format
    from longspan.program.instructions import Embed, Pool
    from longspan.program.operands import Buffer, Rows, Weight
    from longspan.program.program import Program

    steps = _steps(work, count)
    rng = np.random.default_rng(0)
    x, y = steps[0].x, steps[-1].out
    embed = Embed(stage=0, out=x, tokens=Weight(("table",), (512, x.width)))
    pool = Pool(stage=2, x=y, out=Buffer("pooled", Rows.PARTIALS, y.width), kind="sum", index=0)
    weights: Any = work.weights
    body = in_format(Program("kernel", (embed, *steps, pool), outputs=(pool.out,)), weights)
    tensors = {}
    for weight in {weight for step in body.instructions for weight in step.weights}:
        values = rng.standard_normal(weight.shape, dtype=np.float32) * (1 if "table" in weight.names else 0.05)
        tensors[weight.names[0]] = TensorView(weight.names[0], "F32", weight.shape, values, Path("memory"), None, 0)
    program = bind(body, tensors, tier, None)
    program.attend_in_int8(work.int8_attention)
    return program, BodyRunner(body, tensors)


def _seconds(program: Any, runner: Any, tokens: int) -> float:
    from longspan.batch import PackedBatch, Partials
    from longspan.executors.ways import Way

    ends = np.array([0, tokens], np.int64)
    whole = Partials(ends[:1], ends[1:], np.ones(1, np.float32), np.zeros(1, np.float32), np.array([0, 1], np.int64))
    ids = (np.arange(tokens) % 512).astype(np.int32)
    batch = PackedBatch(ids=ids, positions=ids, cu_seqlens=ends, partials=(whole,))
    start = time.perf_counter()
    runner.run(program, batch, replace(Way(), schedule="packs"), 1)
    return time.perf_counter() - start
