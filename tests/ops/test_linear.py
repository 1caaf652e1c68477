"""`linear` in the C++ executor."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from longspan.program.instructions import Activation, Linear
from longspan.program.operands import Layout

from .harness import (
    TILE_EDGES,
    Case,
    batch_of,
    batches_of,
    every_tier,
    executors_of,
    pooled_by_row,
    run_cpu,
    run_reference,
    tokens_buffer,
)

SHAPES = [  # width of x, width of out
    (8, 24),
    (24, 8),
    (40, 72),
    (72, 40),
    (255, 40),
    (256, 264),
    (257, 300),
    (300, 257),
    (384, 384),
    (513, 24),
    (520, 520),
]


@every_tier
@pytest.mark.parametrize(("inner", "outer"), SHAPES)
def test_shapes(isa: str, inner: int, outer: int) -> None:
    case = Case(inner)
    x, out = case.rows("x", inner), tokens_buffer("out", outer)
    op = Linear(stage=1, x=x, out=out, weight=case.weight("w", outer, inner), bias=case.weight("b", outer))
    case.check(op, outputs=[out], batches=batches_of(*TILE_EDGES), isa=isa)


@every_tier
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("activation", get_args(Activation))
def test_epilogues(isa: str, activation: Activation, residual: bool, bias: bool) -> None:
    case = Case(1)
    x, out = case.rows("x", 72, scale=3.0), tokens_buffer("out", 40)
    op = Linear(
        stage=1,
        x=x,
        out=out,
        weight=case.weight("w", 40, 72),
        bias=case.weight("b", 40) if bias else None,
        activation=activation,
        residual=case.rows("residual", 40) if residual else None,
    )
    case.check(op, outputs=[out], batches=batches_of(0, 1, 13, 97), isa=isa)


@every_tier
@pytest.mark.parametrize("activation", get_args(Activation))
def test_activations_far_out(isa: str, activation: Activation) -> None:
    case = Case(2)
    x, out = case.rows("x", 24, scale=40.0), tokens_buffer("out", 24)
    op = Linear(stage=1, x=x, out=out, weight=case.weight("w", 24, 24), activation=activation)
    case.check(op, outputs=[out], batches=batches_of(200), isa=isa)


@every_tier
@pytest.mark.parametrize("activation", get_args(Activation))
def test_activations_at_the_ends(isa: str, activation: Activation) -> None:
    """Each number by itself, as the smallest ones are lost beside the largest."""
    numbers = [0.0, 1e-40, 3.0, 9.9, 10.1, 14.0, 100.0, 1e4, 1e10, 1e19, 1e20, 1e30, 3e38]
    case = Case(3)
    x, out = case.rows("x", 8, values=np.full((700, 8), 1, np.float32)), tokens_buffer("out", 2 * len(numbers))
    weight = np.zeros((2 * len(numbers), 8), np.float32)
    weight[:, 0] = [*numbers, *(-number for number in numbers)]
    op = Linear(stage=1, x=x, out=out, weight=case.known("w", weight), activation=activation)
    program, batch = case.program(op, outputs=[out]), batch_of([13])
    exact = run_reference(program, case.tensors, batch, torch.float64)[0]
    body, pooled = pooled_by_row(program, batch)
    for how, (found,) in run_cpu(executors_of(body, case.tensors, isa), pooled):
        np.testing.assert_allclose(found, exact, rtol=3e-6, atol=1e-7, err_msg=how)


@every_tier
def test_residual_in_place(isa: str) -> None:
    case = Case(3)
    x, out = case.rows("x", 264), case.rows("out", 72)
    op = Linear(stage=1, x=x, out=out, weight=case.weight("w", 72, 264), bias=case.weight("b", 72), residual=out)
    case.check(op, outputs=[out], batches=[*batches_of(0, 1, 6, 97), batch_of([50, 0, 1, 49])], isa=isa)


@every_tier
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_weight_dtypes(isa: str, dtype: str) -> None:
    case = Case(4)
    x, out = case.rows("x", 257), tokens_buffer("out", 40)
    weight, bias = case.weight("w", 40, 257, dtype=dtype), case.weight("b", 40, dtype=dtype)
    case.check(Linear(stage=1, x=x, out=out, weight=weight, bias=bias), outputs=[out], batches=batches_of(13), isa=isa)


@every_tier
@pytest.mark.parametrize("in_place", [False, True])
def test_factor(isa: str, in_place: bool) -> None:
    """The product is multiplied by another buffer, which may be the output's own, after its activation."""
    case = Case(5)
    x, factor, residual = case.rows("x", 72), case.rows("factor", 300), case.rows("residual", 300)
    out = factor if in_place else tokens_buffer("out", 300)
    weight = case.weight("w", 300, 72)
    op = Linear(stage=1, x=x, out=out, weight=weight, activation="gelu_tanh", factor=factor, residual=residual)
    case.check(op, outputs=[out], batches=batches_of(*TILE_EDGES), isa=isa)


LAYOUTS = {
    "transposed": Layout(stored=(257, 40), axes=(1, 0)),
    "by head": Layout(stored=(40, 257), folded=(5, 2, 4, 257), axes=(1, 0, 2, 3)),
    "some rows": Layout(stored=(100, 257), first=60),
    "of each pair": Layout(stored=(10, 8, 257), folded=(10, 2, 4, 257), axes=(1, 0, 2, 3), first=40),
}


@every_tier
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("how", LAYOUTS)
def test_layouts(isa: str, how: str, dtype: str) -> None:
    """Weights that do not lie in the file as rows of the product."""
    case = Case(6)
    layout = LAYOUTS[how]
    weight = replace(case.weight("w", *layout.stored, dtype=dtype), shape=(40, 257), layout=layout)
    x, out = case.rows("x", 257), tokens_buffer("out", 40)
    case.check(Linear(stage=1, x=x, out=out, weight=weight), outputs=[out], batches=batches_of(13), isa=isa)
