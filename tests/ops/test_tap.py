"""`tap` in the C++ executor."""

from __future__ import annotations

from longspan.program.instructions import Tap

from .harness import TILE_EDGES, Case, batches_of, every_tier, tokens_buffer


@every_tier
def test_a_weighted_sum_of_layers(isa: str) -> None:
    case = Case(3)
    weight = case.weight("w", 3)
    out = tokens_buffer("out", 41)
    layers = [case.rows(f"x{index}", 41) for index in range(3)]
    steps = [
        Tap(stage=1, x=x, into=out if index else None, out=out, weight=weight, index=index)
        for index, x in enumerate(layers)
    ]
    case.check(*steps, outputs=[out], batches=batches_of(*TILE_EDGES), isa=isa)
