"""`norm` in the C++ executor."""

from __future__ import annotations

from typing import Any

import pytest

from longspan.program.instructions import Norm, NormKind

from .harness import TILE_EDGES, Case, batches_of, every_tier, tokens_buffer


@every_tier
@pytest.mark.parametrize("width", [8, 24, 40, 72, 255, 256, 257, 264, 300, 384, 520])
def test_widths(isa: str, width: int) -> None:
    case = Case(width)
    x, out = case.rows("x", width, scale=3.0), tokens_buffer("out", width)
    op = Norm(stage=1, x=x, out=out, weight=case.weight("w", width), bias=case.weight("b", width), eps=1e-12)
    case.check(op, outputs=[out], batches=batches_of(*TILE_EDGES), isa=isa)


@every_tier
@pytest.mark.parametrize("affine", ["none", "weight", "bias"])
def test_in_place_and_without_weights(isa: str, affine: str) -> None:
    case = Case(1)
    x = case.rows("x", 40)
    op = Norm(
        stage=1,
        x=x,
        out=x,
        weight=case.weight("w", 40) if affine == "weight" else None,
        bias=case.weight("b", 40) if affine == "bias" else None,
        eps=1e-5,
    )
    case.check(op, outputs=[x], batches=batches_of(0, 1, 97), isa=isa)


@every_tier
def test_a_large_mean_does_not_swamp_the_variance(isa: str) -> None:
    case = Case(2)
    x, out = case.rows("x", 300, values=case.normal(50, 300) + 100), tokens_buffer("out", 300)
    case.check(Norm(stage=1, x=x, out=out, eps=1e-12), outputs=[out], batches=batches_of(50), isa=isa)


@every_tier
def test_eps_counts_where_rows_are_nearly_constant(isa: str) -> None:
    case = Case(3)
    x, out = case.rows("x", 72, scale=1e-4), tokens_buffer("out", 72)
    case.check(Norm(stage=1, x=x, out=out, eps=1e-5), outputs=[out], batches=batches_of(13), isa=isa)


@every_tier
@pytest.mark.parametrize("width", [8, 40, 255, 384])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms(isa: str, offset: float, width: int) -> None:
    case = Case(width)
    x, out = case.rows("x", width, values=case.normal(700, width) + 0.5), tokens_buffer("out", width)
    op = Norm(stage=1, x=x, out=out, kind="rms", weight=case.weight("w", width), weight_offset=offset, eps=1e-6)
    case.check(op, outputs=[out], batches=batches_of(*TILE_EDGES), isa=isa)


@every_tier
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("in_place", [False, True])
def test_residual_and_scale(isa: str, in_place: bool, kind: NormKind) -> None:
    case = Case(4)
    x, residual = case.rows("x", 40), case.rows("residual", 40)
    out = residual if in_place else tokens_buffer("out", 40)
    weights: Any = {"weight": case.weight("w", 40), "bias": case.weight("b", 40), "scale": case.weight("s", 1)}
    op = Norm(stage=1, x=x, out=out, kind=kind, residual=residual, eps=1e-6, **weights)
    case.check(op, outputs=[out], batches=batches_of(0, 1, 97), isa=isa)
