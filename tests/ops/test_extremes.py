"""Batches at the ends of what there is: nothing, one token, very many, numbers that are none, heads of all sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from longspan.batch import Float32, PackedBatch, Partials
from longspan.program.instructions import Activation, Attention, Embed, HeadNorm, Linear, Norm, Pool, Qkv, Tap
from longspan.program.operands import Buffer, Rows
from longspan.program.positions import SelfExtend
from longspan.program.program import Program
from longspan.weights import Format

from .harness import (
    SCHEDULES,
    THREADS,
    Case,
    CpuExecutor,
    assert_same_bits,
    batch_of,
    cpu_executor,
    every_format,
    every_tier,
    tokens_buffer,
)
from .test_attention import check_attention
from .test_latent_attention import latent_attention
from .test_mlp import mlp
from .test_self_extend import rope

WIDTH, INNER, HEADS, SIZE = 16, 24, 2, 8
VOCABULARY = 40
ODD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "huge": 3e38}
"""What some embeddings hold; token VOCABULARY + i embeds the i-th."""

FEW: tuple[list[int], ...] = ([], [0], [0, 0, 0], [1], [0, 1, 0], [1] * 5, [2, 0, 1])
MANY = 200_000
RADIUS = 20


def body_of(
    case: Case,
    activation: Activation = "gelu",
    gate: bool = False,
    heads_end: dict[str, Any] | None = None,
    latents: bool = False,
    tapped: bool = False,
    **attention: Any,
) -> Program:
    """One transformer layer that pools sums, with an embedding of every odd number in its table.

    `heads_end` is what `qkv` does after its projection; with `latents` attention over some follows, and what is
    `tapped` is a sum of the layer's input and its output.
    """
    table = case.normal(VOCABULARY + len(ODD), WIDTH)
    table[VOCABULARY:, 3] = list(ODD.values())
    x, q, k, v, context = (tokens_buffer(name, WIDTH) for name in ("x", "q", "k", "v", "context"))
    heads: dict[str, Any] = {"heads": HEADS, "kv_heads": HEADS, "head_size": SIZE}
    out, pooled_rows = Buffer("out", Rows.PARTIALS, WIDTH), tokens_buffer("sum", WIDTH) if tapped else x
    weight = case.weight("taps", 2)
    first = Tap(stage=1, x=x, into=None, out=pooled_rows, weight=weight, index=0)
    taps = [first, replace(first, into=pooled_rows, index=1)] if tapped else []
    steps = (
        Embed(stage=0, out=x, tokens=case.known("tokens", table)),
        *taps[:1],
        Qkv(stage=1, x=x, q=q, k=k, v=v, weight=case.weight("qkv", 3 * WIDTH, WIDTH), **heads, **(heads_end or {})),
        Attention(stage=1, q=q, k=k, v=v, out=context, scale=SIZE**-0.5, **heads, **attention),
        Linear(stage=1, x=context, out=x, weight=case.weight("o", WIDTH, WIDTH), residual=x),
        mlp(case, x, x, INNER, activation, bias=False, gate=gate),
        Norm(stage=1, x=x, out=x, weight=case.weight("last norm", WIDTH), eps=1e-5),
        *([latent_attention(case, x, x, HEADS, SIZE, 5, residual=x)] if latents else []),
        *taps[1:],
        Pool(stage=2, x=pooled_rows, out=out, kind="sum", index=0),
    )
    return Program("extremes", steps, (out,))


class Model:
    """The body in executors of one and two threads; batches get ids that depend on the segment's length alone."""

    def __init__(self, isa: str, weights: Format, **body_options: Any) -> None:
        case = Case(1)
        if (sinks := body_options.get("sinks")) is not None:
            body_options["sinks"] = case.known("sinks", np.array(sinks, np.float32))
        body = body_of(case, **body_options)
        self._executors: dict[int, CpuExecutor] = {
            threads: cpu_executor(body, case.tensors, threads=threads, isa=isa, weights=weights) for threads in THREADS
        }

    def run(self, batch: PackedBatch) -> Float32:
        """What the batch pools to, the same bits by all threads and schedules."""
        first: tuple[Float32, ...] | None = None
        for threads, executor in self._executors.items():
            for schedule in SCHEDULES:
                result = executor.run_body(batch, schedule=schedule)
                first = first or result
                assert_same_bits(result, first, f"{threads} threads, {schedule}")
        assert first is not None
        return first[0]


def whole(lengths: Sequence[int]) -> Partials:
    """One partial per segment, of all its rows; none of an empty one."""
    bounds = np.cumsum([0, *lengths], dtype=np.int64)
    filled = np.flatnonzero(np.diff(bounds))
    ones = np.ones(len(filled), np.float32)
    sizes = np.cumsum(np.append(0, np.diff(bounds) > 0), dtype=np.int64)
    return Partials(bounds[:-1][filled], bounds[1:][filled], ones, 0 * ones, sizes)


def ids_of(length: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(length).integers(0, VOCABULARY, length)


def pooled(lengths: Sequence[int]) -> PackedBatch:
    """Segments of these lengths, each pooled whole."""
    ids = np.concatenate([np.zeros(0, np.int64), *(ids_of(length) for length in lengths)])
    return batch_of(lengths, ids=ids, partials=[whole(lengths)])


@every_tier
@every_format
def test_few_tokens(isa: str, weights: Format) -> None:
    model = Model(isa, weights)
    alone = {length: model.run(pooled([length])) for length in (1, 2)}
    for lengths in FEW:
        found = model.run(pooled(lengths))
        expected = [alone[length] for length in lengths if length]
        assert_same_bits([found], [np.concatenate([np.zeros((0, WIDTH), np.float32), *expected])], f"{lengths}")


@every_tier
@every_format
def test_very_many_short_segments(isa: str, weights: Format) -> None:
    model = Model(isa, weights)
    kinds = [1, 20, 0, 37, 142]
    lengths = kinds * (MANY // sum(kinds))
    found = model.run(pooled(lengths)).reshape(-1, 4, WIDTH)
    alone = np.stack([model.run(pooled([length]))[0] for length in kinds if length])
    assert_same_bits([found], [np.broadcast_to(alone, found.shape)], "segments in company")


@every_tier
@every_format
def test_a_very_long_segment(isa: str, weights: Format) -> None:
    """With a window, what is far from the end is the same in a shorter text."""
    model = Model(isa, weights, left=RADIUS, right=RADIUS)
    ids, short = np.random.default_rng(0).integers(0, VOCABULARY, MANY), 4000
    rows = np.array([0, 1, 63, 64, 255, 256, 1000, short - 200], np.int64)
    ones = np.ones(len(rows), np.float32)
    partials = Partials(rows, rows + 1, ones, 0 * ones, np.arange(len(rows) + 1, dtype=np.int64))
    long, head = (batch_of([n], ids=ids[:n], partials=[partials]) for n in (MANY, short))
    assert_same_bits([model.run(long)], [model.run(head)], "the first rows")
    everything = model.run(replace(long, partials=(whole([MANY]),)))
    assert np.isfinite(everything).all()


@every_tier
@every_format
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("window", [(None, None), (None, 0), (RADIUS, RADIUS)])
def test_odd_numbers_stay_in_their_segment(
    isa: str, weights: Format, window: tuple[int | None, int | None], odd: str
) -> None:
    """At both ends of a segment between two others, with neighbours in the same blocks of rows and of keys."""
    model = Model(isa, weights, left=window[0], right=window[1])
    token = VOCABULARY + list(ODD).index(odd)
    alone = {length: model.run(pooled([length]))[0] for length in (1, 5, 70)}
    for lengths in ([5, 7, 70], [1, 1, 1], [70, 130, 5], [5, 0, 300, 0, 1]):
        batch = pooled(lengths)
        begin = lengths[0]
        end = batch.tokens - lengths[-1]
        ids = batch.ids.copy()
        ids[[begin, end - 1]] = token
        found = model.run(replace(batch, ids=ids))
        assert_same_bits([found[0], found[-1]], [alone[lengths[0]], alone[lengths[-1]]], f"{odd}, {lengths}")
        if odd == "nan":
            assert np.isnan(found[1]).all()


BODIES: dict[str, dict[str, Any]] = {
    "gated": {"gate": True, "activation": "silu"},
    "gelu_tanh": {"activation": "gelu_tanh"},
    "relu": {"activation": "relu"},
    "tanh": {"activation": "tanh"},
    "turned": {"heads_end": {"rope": rope(SIZE), "norm": HeadNorm(kind="rms", eps=1e-5, values=True)}},
    "turned in pairs": {"heads_end": {"rope": rope(SIZE, interleaved=True)}},
    "capped": {"soft_cap": 5.0, "sinks": (0.0, 2.0)},
    "by distance": {"slopes": (0.5, 0.25), "left": RADIUS, "right": 3},
    "over latents": {"latents": True},
    "tapped": {"tapped": True},
    "extended": {"rope": rope(SIZE), "self_extend": SelfExtend(40, 3, 10)},
}


@every_tier
@every_format
@pytest.mark.parametrize("kind", BODIES)
def test_odd_numbers_whatever_the_layer_does(isa: str, weights: Format, kind: str) -> None:
    """They stay in their segment, and no NaN is lost on its way."""
    model = Model(isa, weights, **BODIES[kind])
    lengths = [5, 150, 70]
    alone = [model.run(pooled([length]))[0] for length in (5, 70)]
    batch = pooled(lengths)
    for token, odd in enumerate(ODD, VOCABULARY):
        ids = batch.ids.copy()
        ids[5] = token
        found = model.run(replace(batch, ids=ids))
        assert_same_bits([found[0], found[2]], alone, odd)
        if odd == "nan":
            assert np.isnan(found[1]).all()


@every_tier
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_keys_out_of_sight_are_not_read(isa: str, weights: Format) -> None:
    """Their weights would be zero, but zero times a value that is no number is none."""
    model = Model(isa, weights, left=RADIUS, right=RADIUS)
    rows = np.arange(129, dtype=np.int64)
    ones = np.ones(128, np.float32)
    ids = ids_of(128)
    ids[100] = VOCABULARY + list(ODD).index("nan")
    found = model.run(batch_of([128], ids=ids, partials=[Partials(rows[:-1], rows[1:], ones, 0 * ones, rows)]))
    assert np.isfinite(found[:32]).all()
    assert np.isnan(found[100 - RADIUS : 100 + RADIUS + 1]).all()


@every_tier
@pytest.mark.parametrize("size", [8, 24, 40, 56, 104, 136, 248, 264, 456, 504, 512])
def test_heads_of_all_sizes(isa: str, size: int) -> None:
    check_attention(isa, 2, 1, size, [[0], [1], [3, 0, 65, 17]])
    check_attention(isa, 2, 2, size, [[1], [3, 0, 65, 17]], left=9, right=9)


@every_tier
@pytest.mark.parametrize("reach", [2**31, 2**40, 2**63 - 1])
def test_windows_beyond_all_texts(isa: str, reach: int) -> None:
    for left, right in ((reach, reach), (None, reach), (reach, 0), (31, reach)):
        check_attention(isa, 2, 1, 8, [[0, 1], [32, 33, 150]], left=left, right=right)
