"""`latent_attention` in the C++ executor."""

from __future__ import annotations

from typing import Any

import pytest

from longspan.program.instructions import LatentAttention
from longspan.program.operands import Buffer, Rows

from .harness import TILE_EDGES, Case, batch_of, batches_of, every_tier, tokens_buffer


def latent_attention(case: Case, x: Buffer, out: Buffer, heads: int, size: int, latents: int, **more: Any) -> Any:
    """A `latent_attention` with random weights; options: affine, width of a latent, dtype of the weights."""
    width, dtype = more.pop("width", x.width), more.pop("dtype", "F32")
    queries = heads * size

    def matrix(name: str, rows: int, columns: int) -> Any:
        return case.weight(name, rows, columns, dtype=dtype)

    if more.pop("affine", True):
        more |= {"norm": case.weight("norm", width), "norm_bias": case.weight("norm_bias", width)}
    return LatentAttention(
        stage=1,
        x=x,
        out=out,
        scores=Buffer("scores", Rows.TILE, heads * latents),
        query=matrix("query", queries, x.width),
        latents=matrix("latents", latents, width),
        eps=1e-5,
        keys=matrix("keys", queries, width),
        values=matrix("values", queries, width),
        output=matrix("output", out.width, queries),
        heads=heads,
        scale=size**-0.5,
        **more,
    )


@every_tier
@pytest.mark.parametrize(
    ("heads", "size", "latents"), [(1, 1, 1), (1, 8, 3), (3, 5, 16), (8, 24, 17), (2, 300, 33), (5, 7, 260)]
)
def test_shapes(isa: str, heads: int, size: int, latents: int) -> None:
    case = Case(latents)
    x, out = case.rows("x", 40), tokens_buffer("out", 40)
    op = latent_attention(case, x, out, heads, size, latents)
    case.check(op, outputs=[out], batches=[*batches_of(*TILE_EDGES), batch_of([50, 0, 1])], isa=isa)


@every_tier
@pytest.mark.parametrize("width", [8, 24, 71, 264])
def test_in_place(isa: str, width: int) -> None:
    case = Case(width)
    x = case.rows("x", width)
    op = latent_attention(case, x, x, 4, 16, 20, residual=x)
    case.check(op, outputs=[x], batches=batches_of(0, 1, 13, 97, 200), isa=isa)


@every_tier
def test_widths_and_absent_weights(isa: str) -> None:
    case = Case(1)
    x, out = case.rows("x", 24), tokens_buffer("out", 56)
    op = latent_attention(case, x, out, 2, 16, 20, width=40, affine=False)
    case.check(op, outputs=[out], batches=batches_of(1, 97), isa=isa)


@every_tier
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_weights(isa: str, dtype: str) -> None:
    case = Case(2)
    x = case.rows("x", 40)
    op = latent_attention(case, x, x, 4, 16, 20, dtype=dtype, residual=x)
    case.check(op, outputs=[x], batches=batches_of(13, 97), isa=isa)


@every_tier
def test_large_scores(isa: str) -> None:
    """The greatest score takes everything; nothing overflows."""
    case = Case(3)
    x, out = case.rows("x", 40, scale=1000.0), tokens_buffer("out", 40)
    op = latent_attention(case, x, out, 2, 16, 9)
    case.check(op, outputs=[out], batches=batches_of(97), isa=isa)
