"""`mlp` in the C++ executor."""

from __future__ import annotations

from typing import get_args

import pytest

from longspan.program.instructions import Activation, Mlp
from longspan.program.operands import Buffer, Rows

from .harness import TILE_EDGES, Case, batch_of, batches_of, every_tier, tokens_buffer


def mlp(case: Case, x: Buffer, out: Buffer, inner: int, activation: Activation = "gelu", **options: bool) -> Mlp:
    """An `mlp` with random weights; options: bias, residual, gate."""
    biased, gated = options.get("bias", True), options.get("gate", False)
    return Mlp(
        stage=1,
        x=x,
        out=out,
        hidden=Buffer("hidden", Rows.TILE, inner),
        up=case.weight("up", inner, x.width),
        up_bias=case.weight("up.bias", inner) if biased else None,
        gate=case.weight("gate", inner, x.width) if gated else None,
        gate_bias=case.weight("gate.bias", inner) if gated and biased else None,
        down=case.weight("down", out.width, inner),
        down_bias=case.weight("down.bias", out.width) if biased else None,
        activation=activation,
        residual=x if options.get("residual", True) else None,
    )


@every_tier
@pytest.mark.parametrize(
    ("width", "inner"), [(8, 24), (24, 8), (40, 257), (72, 264), (255, 256), (264, 513), (384, 1536)]
)
def test_in_place(isa: str, width: int, inner: int) -> None:
    case = Case(width)
    x = case.rows("x", width)
    batches = [*batches_of(*TILE_EDGES), batch_of([50, 0, 1, 49])]
    case.check(mlp(case, x, x, inner), outputs=[x], batches=batches, isa=isa)


@every_tier
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("activation", get_args(Activation))
def test_epilogues(isa: str, activation: Activation, residual: bool, bias: bool) -> None:
    case = Case(1)
    x, out = case.rows("x", 40), tokens_buffer("out", 40)
    op = mlp(case, x, out, 72, activation, bias=bias, residual=residual)
    case.check(op, outputs=[out], batches=batches_of(0, 1, 97), isa=isa)


@every_tier
def test_another_output_width(isa: str) -> None:
    case = Case(2)
    x, out = case.rows("x", 72), tokens_buffer("out", 24)
    case.check(mlp(case, x, out, 300, residual=False), outputs=[out], batches=batches_of(13, 97), isa=isa)


@every_tier
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "inner"), [(24, 8), (72, 264), (264, 513)])
def test_gate(isa: str, width: int, inner: int, bias: bool) -> None:
    case = Case(width)
    x = case.rows("x", width)
    op = mlp(case, x, x, inner, "silu", bias=bias, gate=True)
    case.check(op, outputs=[x], batches=batches_of(*TILE_EDGES), isa=isa)
