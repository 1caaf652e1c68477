"""`embed` in the C++ executor."""

from __future__ import annotations

import numpy as np
import pytest

from longspan.program.instructions import Embed
from longspan.program.program import Program

from .harness import TILE_EDGES, Case, batch_of, cpu_executor, every_tier, pooled_by_row, tokens_buffer


@every_tier
@pytest.mark.parametrize("width", [8, 24, 40, 72, 255, 264, 300, 520])
def test_all_tables(isa: str, width: int) -> None:
    case = Case(width)
    out = tokens_buffer("out", width)
    op = Embed(
        stage=0,
        out=out,
        tokens=case.weight("tokens", 50, width),
        positions=case.weight("positions", 210, width),
        position_offset=2,
        types=case.weight("types", 2, width),
    )
    batches = [batch_of([tokens], ids=case.rng.integers(0, 50, tokens)) for tokens in TILE_EDGES]
    batches.append(batch_of([3, 0, 7, 1], ids=[49, 0, 0, 1, 2, 3, 4, 5, 6, 49, 0]))
    case.check(op, outputs=[out], batches=batches, isa=isa)


@every_tier
@pytest.mark.parametrize("present", ["tokens", "positions", "types", "positions alone"])
def test_optional_tables(isa: str, present: str) -> None:
    case = Case(1)
    out = tokens_buffer("out", 24)
    op = Embed(
        stage=0,
        out=out,
        tokens=case.weight("tokens", 50, 24) if "alone" not in present else None,
        positions=case.weight("positions", 13, 24) if "positions" in present else None,
        types=case.weight("types", 1, 24) if present == "types" else None,
    )
    case.check(op, outputs=[out], batches=[batch_of([13, 2], ids=case.rng.integers(0, 50, 15))], isa=isa)


@every_tier
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_table_dtypes(isa: str, dtype: str) -> None:
    case = Case(2)
    out = tokens_buffer("out", 40)
    op = Embed(
        stage=0,
        out=out,
        tokens=case.weight("tokens", 50, 40, dtype=dtype),
        positions=case.weight("positions", 50, 40, dtype=dtype),
    )
    case.check(op, outputs=[out], batches=[batch_of([49], ids=case.rng.integers(0, 50, 49))], isa=isa)


@every_tier
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_scale(isa: str, dtype: str) -> None:
    """The scale is of the token rows alone."""
    case = Case(3)
    out = tokens_buffer("out", 40)
    tokens, positions = case.weight("tokens", 50, 40, dtype=dtype), case.weight("positions", 50, 40)
    op = Embed(stage=0, out=out, tokens=tokens, scale=40**0.5, positions=positions)
    case.check(op, outputs=[out], batches=[batch_of([49], ids=case.rng.integers(0, 50, 49))], isa=isa)


@every_tier
def test_every_float16_number(isa: str) -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    case, out = Case(4), tokens_buffer("out", 256)
    op = Embed(stage=0, out=out, tokens=case.known("tokens", numbers, "F16"))
    body, batch = pooled_by_row(Program("halves", (op,), outputs=(out,)), batch_of([256]))
    (found,) = cpu_executor(body, case.tensors, threads=1, isa=isa).run_body(batch)
    np.testing.assert_array_equal(found, numbers.astype(np.float32))
