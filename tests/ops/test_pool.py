"""`pool` in the C++ executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest

from longspan.batch import Partials
from longspan.program.instructions import Pool
from longspan.program.operands import Buffer, Rows
from longspan.program.program import Program

from .harness import Case, batch_of, check_body, every_tier

Kind = Literal["sum", "maximum"]

SEGMENTS = [1, 0, 300, 97, 2, 200]


def partials_of(*ranges: tuple[int, int, float, float]) -> Partials:
    """Partials (start, end, first weight, weight step), one vector each."""
    columns = np.array(ranges, np.float64).reshape(-1, 4).T.copy()
    starts, ends = columns[:2].astype(np.int64)
    first, step = columns[2:].astype(np.float32)
    return Partials(starts, ends, first, step, np.arange(len(ranges) + 1, dtype=np.int64))


RANGES = (
    (0, 1, 1.0, 0.0),  # one row
    (1, 301, 1.0, 0.0),  # a whole segment
    (1, 257, 1.0, 0.0),  # exactly one block of 256
    (10, 267, 0.5, 0.0),  # one row more
    (301, 398, 1.0, 1.0),  # position weights
    (301, 350, 1.0, 1.0),
    (350, 398, 50.0, 1.0),  # which go on after 49 tokens
    (300, 301, 1.0, 0.0),
    (400, 600, 0.25, 0.125),
    (398, 400, 3.0, -1.0),
)


def pooling(case: Case, width: int, kinds: Sequence[Kind]) -> Program:
    x = case.rows("x", width)
    pools = [
        Pool(stage=2, x=x, out=Buffer(f"out{i}", Rows.PARTIALS, width), kind=kind, index=i)
        for i, kind in enumerate(kinds)
    ]
    return Program("pooling", (*case.program(outputs=[x]).instructions, *pools), tuple(pool.out for pool in pools))


@every_tier
@pytest.mark.parametrize("kind", ["sum", "maximum"])
@pytest.mark.parametrize("width", [8, 24, 40, 255, 264, 300, 520])
def test_kinds(isa: str, width: int, kind: Kind) -> None:
    case = Case(width)
    body = pooling(case, width, [kind])
    check_body(body, case.tensors, [batch_of(SEGMENTS, partials=[partials_of(*RANGES)])], isa)


@every_tier
def test_several_pools_with_their_own_partials(isa: str) -> None:
    case = Case(1)
    body = pooling(case, 72, ["sum", "maximum", "sum"])
    partials = [partials_of(*RANGES[:3]), partials_of(*RANGES[3:]), partials_of()]
    check_body(body, case.tensors, [batch_of(SEGMENTS, partials=partials)], isa)


@every_tier
@pytest.mark.parametrize("kind", ["sum", "maximum"])
def test_nothing_to_pool(isa: str, kind: Kind) -> None:
    case = Case(2)
    body = pooling(case, 40, [kind])
    batches = [batch_of(segments, partials=[partials_of()]) for segments in ([], [0], [5], [3, 0])]
    check_body(body, case.tensors, batches, isa)


@every_tier
def test_weights_far_into_a_long_document(isa: str) -> None:
    case = Case(3)
    body = pooling(case, 24, ["sum"])
    partials = partials_of((0, 600, 100_000.0, 1.0), (0, 300, 1.0, 1.0), (300, 600, 301.0, 1.0))
    check_body(body, case.tensors, [batch_of([600], partials=[partials])], isa)
