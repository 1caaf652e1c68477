"""`qkv` and `attention` in the C++ executor, apart and together."""

from __future__ import annotations

import pytest

from longspan.program.instructions import Attention, Qkv

from .harness import TILE_EDGES, Case, batch_of, batches_of, every_tier, tokens_buffer

SEGMENTS = [[], [0], [1], [0, 5, 0], [1, 2, 3, 17, 64, 65, 129], [255, 257], [2] * 100]
HEADS = [(1, 1, 8), (3, 3, 24), (5, 5, 40), (2, 2, 64), (4, 2, 72), (6, 1, 32), (2, 2, 96), (2, 1, 128)]


def attention_case(
    heads: int, kv_heads: int, size: int, scale: float | None = None, spread: float = 1.0
) -> tuple[Case, Attention]:
    case = Case(heads * size)
    op = Attention(
        stage=1,
        q=case.rows("q", heads * size, scale=spread),
        k=case.rows("k", kv_heads * size),
        v=case.rows("v", kv_heads * size),
        out=tokens_buffer("out", heads * size),
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        scale=size**-0.5 if scale is None else scale,
    )
    return case, op


@every_tier
@pytest.mark.parametrize(("heads", "kv_heads", "size"), HEADS)
def test_attention(isa: str, heads: int, kv_heads: int, size: int) -> None:
    case, op = attention_case(heads, kv_heads, size)
    case.check(op, outputs=[op.out], batches=[batch_of(segments) for segments in SEGMENTS], isa=isa)


@every_tier
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(3, 3, 24), (4, 2, 64)])
def test_long_segments(isa: str, heads: int, kv_heads: int, size: int) -> None:
    case, op = attention_case(heads, kv_heads, size)
    case.check(op, outputs=[op.out], batches=[batch_of([700]), batch_of([5, 600, 1])], isa=isa)


@every_tier
def test_sharp_attention(isa: str) -> None:
    """Scores far apart: the running maximum rises from one key block to the next."""
    case, op = attention_case(2, 2, 16, scale=1.0, spread=20.0)
    case.check(op, outputs=[op.out], batches=[batch_of([700]), batch_of([1, 300])], isa=isa)


@every_tier
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "heads", "kv_heads", "size"), [(40, 5, 5, 8), (257, 4, 2, 24), (300, 3, 1, 72)])
def test_qkv(isa: str, width: int, heads: int, kv_heads: int, size: int, bias: bool) -> None:
    case = Case(width)
    q, k, v = (tokens_buffer(name, n * size) for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)))
    op = Qkv(
        stage=1,
        x=case.rows("x", width),
        q=q,
        k=k,
        v=v,
        weight=case.stacked("w", *((buffer.width, width) for buffer in (q, k, v))),
        bias=case.stacked("b", *((buffer.width,) for buffer in (q, k, v))) if bias else None,
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
    )
    case.check(op, outputs=[q, k, v], batches=batches_of(*TILE_EDGES), isa=isa)


@every_tier
def test_qkv_then_attention_with_one_fused_weight(isa: str) -> None:
    case = Case(7)
    _, attention = attention_case(4, 2, 40)
    op = Qkv(
        stage=1,
        x=case.rows("x", 264),
        q=attention.q,
        k=attention.k,
        v=attention.v,
        weight=case.weight("w", 320, 264),
        bias=case.weight("b", 320),
        heads=4,
        kv_heads=2,
        head_size=40,
    )
    batches = [batch_of(segments) for segments in ([13], [1, 2, 3, 17, 64, 65, 129], [0, 48, 97])]
    case.check(op, attention, outputs=[attention.out], batches=batches, isa=isa)
