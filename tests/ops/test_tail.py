"""The tail's instructions in the C++ executor: rows are vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pytest

from longspan.batch import Float32, Partials
from longspan.program.instructions import Activation, Combine, Instruction, Linear, Norm, Normalize, TanhQuantize
from longspan.program.operands import Buffer, Rows
from longspan.program.program import Program

from .harness import Case, check_tail, every_tier, run_tails

Kind = Literal["mean", "mean_sqrt_len", "maximum"]


def vectors(name: str, width: int) -> Buffer:
    return Buffer(name, Rows.VECTORS, width)


def partials(counts: Sequence[int], rows: int = 5) -> Partials:
    """Vectors of so many partials each, of `rows` rows and more, with weights of several forms."""
    bounds = np.cumsum([0, *counts], dtype=np.int64)
    numbers = np.arange(bounds[-1])
    starts = 100 * numbers.astype(np.int64)
    steps = (numbers % 3 == 2).astype(np.float32)
    return Partials(starts, starts + rows + numbers % 7, 1 + (numbers % 4).astype(np.float32), steps, bounds)


def random_sums(case: Case, of: Partials, width: int) -> Float32:
    return case.normal(of.count, width) * 5


def tail(outputs: Buffer, inputs: Sequence[Buffer], *instructions: Instruction) -> Program:
    return Program("tail", instructions, outputs=(outputs,), inputs=tuple(inputs))


def inputs_of(widths: Sequence[int]) -> list[Buffer]:
    return [Buffer(f"partials{index}", Rows.PARTIALS, width) for index, width in enumerate(widths)]


COUNTS = [[], [1], [0], [1] * 13, [3, 0, 1, 7, 2, 0], [40, 300]]


@every_tier
@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("width", [8, 40, 255, 264, 300])
def test_combine(isa: str, width: int, kind: Kind) -> None:
    case = Case(width)
    (given,) = inputs_of([width])
    out = vectors("out", width)
    program = tail(out, [given], Combine(stage=0, partials=given, out=out, kind=kind, index=0))
    for counts in COUNTS:
        of = partials(counts)
        result = check_tail(program, {}, [random_sums(case, of, width)], [of], isa)
        empty = np.array(counts, np.int64) == 0
        assert not result[empty].any(), "a vector without partials is zero"


@every_tier
def test_poolings_are_concatenated(isa: str) -> None:
    case = Case(1)
    given = inputs_of([24, 24, 24])
    out = vectors("out", 72)
    kinds: tuple[Kind, ...] = ("maximum", "mean", "mean_sqrt_len")
    combines = [
        Combine(stage=0, partials=buffer, out=out, kind=kind, index=index, column=24 * index)
        for index, (buffer, kind) in enumerate(zip(given, kinds, strict=True))
    ]
    sets = [partials([2, 0, 1, 5]), partials([0, 1, 3, 1]), partials([1, 1, 1, 1])]
    check_tail(tail(out, given, *combines), {}, [random_sums(case, of, 24) for of in sets], sets, isa)


@every_tier
@pytest.mark.parametrize("activation", get_args(Activation))
def test_dense(isa: str, activation: Activation) -> None:
    case = Case(2)
    (given,) = inputs_of([257])
    x, out = vectors("x", 257), vectors("out", 72)
    program = tail(
        out,
        [given],
        Combine(stage=0, partials=given, out=x, kind="mean", index=0),
        Linear(
            stage=0, x=x, out=out, weight=case.weight("w", 72, 257), bias=case.weight("b", 72), activation=activation
        ),
    )
    for count in (0, 1, 2, 5, 13, 97):
        of = partials([1] * count)
        check_tail(program, case.tensors, [random_sums(case, of, 257)], [of], isa)


@every_tier
@pytest.mark.parametrize(("width", "cut"), [(8, 8), (264, 264), (264, 40), (300, 257), (40, 1)])
@pytest.mark.parametrize("unit", [True, False])
def test_normalize(isa: str, width: int, cut: int, unit: bool) -> None:
    case = Case(width)
    (given,) = inputs_of([width])
    x, out = vectors("x", width), vectors("out", cut)
    program = tail(
        out,
        [given],
        Combine(stage=0, partials=given, out=x, kind="mean", index=0),
        Normalize(stage=0, x=x, out=out, unit=unit),
    )
    of = partials([1, 0, 2, 1, 1])
    result = check_tail(program, {}, [random_sums(case, of, width)], [of], isa)
    assert not result[1].any(), "zero stays zero"


@every_tier
@pytest.mark.parametrize("width", [1, 40, 257])
def test_tanh_quantize(isa: str, width: int) -> None:
    """Integers, and those of float64 wherever float32 cannot round to the other side."""
    case = Case(width)
    (given,) = inputs_of([width])
    x, out = vectors("x", width), vectors("out", width)
    combine = Combine(stage=0, partials=given, out=x, kind="maximum", index=0)
    program = tail(out, [given], combine, TanhQuantize(stage=0, x=x, out=out))
    values = case.normal(20, width)
    values[0] = np.resize(np.array([0, 1e-30, -1e-3, 0.6249, -0.6251, 50, -np.inf, np.inf], np.float32), width)
    of = partials([1] * len(values), rows=1)
    exact = 127 * np.tanh(values.astype(np.float64))
    sure = np.abs(exact % 1 - 0.5) > 1e-4
    assert sure.mean() > 0.9
    for _, result in run_tails(program, {}, [values], [of], isa):
        assert (result == np.round(result)).all()
        assert (np.where(sure, result, np.round(exact)) == np.round(exact)).all()


@every_tier
def test_the_whole_chain(isa: str) -> None:
    case = Case(3)
    given = inputs_of([40, 40])
    x, y, z, out = vectors("x", 80), vectors("y", 264), vectors("z", 40), vectors("out", 24)
    program = tail(
        out,
        given,
        Combine(stage=0, partials=given[0], out=x, kind="mean", index=0),
        Combine(stage=0, partials=given[1], out=x, kind="maximum", index=1, column=40),
        Linear(stage=0, x=x, out=y, weight=case.weight("w1", 264, 80), activation="tanh"),
        Norm(stage=0, x=y, out=y, weight=case.weight("w2", 264), bias=case.weight("b2", 264), eps=1e-5),
        Linear(stage=0, x=y, out=z, weight=case.weight("w3", 40, 264), bias=case.weight("b3", 40)),
        Normalize(stage=0, x=z, out=out, unit=True),
    )
    for counts in ([], [1], [2, 1, 3], [1] * 49):
        sets = [partials(counts), partials(counts)]
        check_tail(program, case.tensors, [random_sums(case, of, 40) for of in sets], sets, isa)
