"""How many rows tiles have: as many as stay in the near cache."""

from __future__ import annotations

import pytest

from longspan.executors.layouts import LEAST_TILE_ROWS, BodyLayouts
from longspan.executors.ways import SMALL_TILE_ROWS, TILE_ROWS
from longspan.program.instructions import Mlp
from longspan.program.operands import Buffer, Rows, Weight
from longspan.program.program import Program


def body(intermediate: int) -> Program:
    x, hidden = Buffer("x", Rows.TOKENS, 64), Buffer("hidden", Rows.TILE, intermediate)
    up, down = Weight(("up",), (intermediate, 64)), Weight(("down",), (64, intermediate))
    mlp = Mlp(stage=1, x=x, out=x, hidden=hidden, up=up, down=down, activation="gelu", residual=x)
    return Program("mlp", (mlp,), outputs=(x,), inputs=(x,))


@pytest.mark.parametrize(
    ("intermediate", "near_cache", "rows"),
    [
        (1536, 4 << 20, TILE_ROWS),
        (1536, 2 << 20, 160),  # 170 would take half of it
        (1536, 1 << 20, LEAST_TILE_ROWS),
        (1 << 16, 1 << 20, LEAST_TILE_ROWS),
    ],
)
def test_tiles_take_half_of_the_near_cache(intermediate: int, near_cache: int, rows: int) -> None:
    layouts = BodyLayouts(body(intermediate), near_cache)
    offsets, size, held = layouts.tile(TILE_ROWS)
    assert held == rows
    assert size >= rows * intermediate * 4
    assert offsets.shape == (2,)


def test_fewer_rows_are_taken_as_they_are() -> None:
    assert BodyLayouts(body(1536), 4 << 20).tile(SMALL_TILE_ROWS)[2] == SMALL_TILE_ROWS
