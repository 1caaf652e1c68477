"""`moe` in the C++ executor."""

from __future__ import annotations

from typing import Any

import pytest

from longspan.program.instructions import Moe, Routing
from longspan.program.operands import Buffer, Rows

from .harness import Case, batches_of, every_tier, tokens_buffer

TOKENS = (0, 1, 2, 7, 48, 97, 200)


def tile(name: str, width: int) -> Buffer:
    return Buffer(name, Rows.TILE, width)


def check(isa: str, experts: int, chosen: int, **more: Any) -> None:
    case = Case(experts)
    inner = 40
    x = case.rows("x", 24)
    sources = {"x": x, "r": case.rows("r", 24)}
    names: Any = {name: sources[more.pop(name)] for name in ("residual", "out") if name in more}
    weights: Any = {"gate": case.weight("gate", experts * inner, 24)} if more.pop("gated", False) else {}
    if more.pop("bias", False):
        weights["out_bias"] = case.weight("bias", 24)
    op = Moe(
        stage=1,
        x=x,
        out=names.pop("out", tokens_buffer("out", 24)),
        logits=tile("logits", experts),
        gathered=tile("gathered", 24),
        hidden=tile("hidden", inner),
        sums=tile("sums", 24),
        router=case.weight("router", experts, 24),
        routing=Routing(experts=experts, chosen=chosen, normalised=more.pop("normalised", True)),
        up=case.stacked("up", *[(inner, 24)] * experts),
        down=case.weight("down", experts * 24, inner),
        activation="silu",
        **names,
        **weights,
        **more,
    )
    case.check(op, outputs=[op.out], batches=batches_of(*TOKENS), isa=isa)


@every_tier
@pytest.mark.parametrize(("experts", "chosen"), [(1, 1), (4, 1), (5, 2), (8, 8), (40, 3)])
@pytest.mark.parametrize("normalised", [False, True])
def test_experts(isa: str, experts: int, chosen: int, normalised: bool) -> None:
    check(isa, experts, chosen, normalised=normalised)


@every_tier
def test_gate_bias_and_residual(isa: str) -> None:
    check(isa, 6, 2, gated=True, bias=True, residual="r")


@every_tier
def test_in_place(isa: str) -> None:
    check(isa, 6, 2, gated=True, residual="x", out="x")
