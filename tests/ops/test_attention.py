"""`qkv` and `attention` in the C++ executor.

Always together: how q, k and v lie in memory between the two is the executor's own affair. Arbitrary queries, keys and
values get in as the columns of x through a `qkv` whose weight is the identity, which is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from longspan.program.instructions import Attention, Qkv, RelativeBias
from longspan.program.operands import Buffer, Weight
from longspan.weights import Format

from .harness import TILE_EDGES, Case, batch_of, batches_of, every_tier, tokens_buffer

SEGMENTS = [[], [0], [1], [0, 5, 0], [1, 2, 3, 17, 64, 65, 129], [255, 257], [2] * 100]
HEADS = [(1, 1, 8), (3, 3, 24), (5, 5, 40), (2, 2, 64), (4, 2, 72), (6, 1, 32), (2, 2, 96), (2, 1, 128)]


def block(
    x: Buffer,
    weight: Weight,
    bias: Weight | None,
    heads: int,
    kv_heads: int,
    size: int,
    scale: float | None = None,
    **more: Any,
) -> tuple[Qkv, Attention]:
    """The two instructions."""
    q, k, v = (tokens_buffer(name, n * size) for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)))
    return (
        Qkv(stage=1, x=x, q=q, k=k, v=v, weight=weight, bias=bias, heads=heads, kv_heads=kv_heads, head_size=size),
        Attention(
            stage=1,
            q=q,
            k=k,
            v=v,
            out=tokens_buffer("out", heads * size),
            heads=heads,
            kv_heads=kv_heads,
            head_size=size,
            scale=size**-0.5 if scale is None else scale,
            **more,
        ),
    )


def check_attention(
    isa: str,
    heads: int,
    kv_heads: int,
    size: int,
    segments: list[list[int]],
    scale: float | None = None,
    spread: float = 1.0,
    weights: Mapping[str, tuple[int, ...]] | None = None,
    heads_format: Format = "float32",
    **more: Any,
) -> None:
    """Attention over standard normal queries, keys and values; `spread` widens the queries.

    `weights` are random ones by field and shape, `heads_format` is that of the program.
    """
    width = (heads + 2 * kv_heads) * size
    case = Case(width)
    more |= {name: case.weight(name, *shape) for name, shape in (weights or {}).items()}
    rows = case.normal(max(700, *map(sum, segments), 1), width)
    rows[:, : heads * size] *= spread
    identity = case.known("identity", np.eye(width, dtype=np.float32))
    ops = block(case.rows("x", width, values=rows), identity, None, heads, kv_heads, size, scale, **more)
    batches = [batch_of(lengths) for lengths in segments]
    case.check(*ops, outputs=[ops[1].out], batches=batches, isa=isa, weights=heads_format)


@every_tier
@pytest.mark.parametrize(("heads", "kv_heads", "size"), HEADS)
def test_attention(isa: str, heads: int, kv_heads: int, size: int) -> None:
    check_attention(isa, heads, kv_heads, size, SEGMENTS)


@every_tier
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(3, 3, 24), (4, 2, 64)])
def test_long_segments(isa: str, heads: int, kv_heads: int, size: int) -> None:
    check_attention(isa, heads, kv_heads, size, [[700], [5, 600, 1]])


@every_tier
@pytest.mark.parametrize("heads_format", ["float32", "bfloat16"])
def test_more_queries_at_once(isa: str, heads_format: Format) -> None:
    """From 4,096 tokens on; the last of them are few."""
    check_attention(isa, 1, 1, 8, [[3, 4100], [4700]], left=100, right=100, heads_format=heads_format)


@every_tier
def test_sharp_attention(isa: str) -> None:
    """Scores far apart: the running maximum rises from one key block to the next."""
    check_attention(isa, 2, 2, 16, [[700], [1, 300]], scale=1.0, spread=20.0)


@every_tier
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("width", "heads", "kv_heads", "size"), [(40, 5, 5, 8), (257, 4, 2, 24), (300, 3, 1, 72), (384, 12, 12, 32)]
)
def test_separate_projections(isa: str, width: int, heads: int, kv_heads: int, size: int, bias: bool) -> None:
    case = Case(width)
    rows = [n * size for n in (heads, kv_heads, kv_heads)]
    weight = case.stacked("w", *((n, width) for n in rows))
    biases = case.stacked("b", *((n,) for n in rows)) if bias else None
    ops = block(case.rows("x", width), weight, biases, heads, kv_heads, size)
    case.check(*ops, outputs=[ops[1].out], batches=batches_of(*TILE_EDGES), isa=isa)


@every_tier
def test_one_fused_projection(isa: str) -> None:
    case = Case(7)
    ops = block(case.rows("x", 264), case.weight("w", 320, 264), case.weight("b", 320), 4, 2, 40)
    batches = [batch_of(segments) for segments in ([13], [1, 2, 3, 17, 64, 65, 129], [0, 48, 97])]
    case.check(*ops, outputs=[ops[1].out], batches=batches, isa=isa)


@every_tier
def test_a_single_token_gets_its_own_value(isa: str) -> None:
    check_attention(isa, 4, 2, 24, [[1] * 97])


WINDOWS = [(None, 0), (0, 0), (1, 0), (63, 0), (64, 64), (3, 3), (128, None), (0, None), (127, 1), (600, 600)]


@every_tier
@pytest.mark.parametrize(("left", "right"), WINDOWS)
def test_windows(isa: str, left: int | None, right: int | None) -> None:
    """Causal and sliding windows, smaller and larger than the segments, at and beside the edges of key blocks."""
    check_attention(isa, 2, 1, 24, [*SEGMENTS, [385], [5, 600, 1]], left=left, right=right)


@every_tier
@pytest.mark.parametrize(("left", "right"), [(None, None), (None, 0), (40, 40)])
def test_alibi(isa: str, left: int | None, right: int | None) -> None:
    check_attention(isa, 3, 3, 16, [*SEGMENTS, [300]], slopes=(0.5, 0.0625, 2.0), left=left, right=right)


@every_tier
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("reach", [17, 128])
def test_relative_bias(isa: str, reach: int, bidirectional: bool) -> None:
    """T5's buckets, whose distances end inside and outside the segments."""
    relative = RelativeBias(max_distance=reach, bidirectional=bidirectional)
    shape = {"relative_bias": (32, 3)}
    check_attention(isa, 3, 3, 16, [*SEGMENTS, [300]], scale=1.0, weights=shape, relative=relative)


@every_tier
@pytest.mark.parametrize(("left", "right"), [(None, None), (20, 0)])
def test_soft_cap(isa: str, left: int | None, right: int | None) -> None:
    check_attention(isa, 4, 2, 32, [*SEGMENTS, [300]], spread=30.0, soft_cap=5.0, left=left, right=right)


@every_tier
@pytest.mark.parametrize(("left", "right"), [(None, None), (20, 0)])
def test_sinks(isa: str, left: int | None, right: int | None) -> None:
    check_attention(isa, 4, 2, 32, [*SEGMENTS, [300]], weights={"sinks": (4,)}, left=left, right=right)


@every_tier
def test_large_heads(isa: str) -> None:
    check_attention(isa, 2, 1, 512, [[1, 130], [50]], left=100, right=100)
