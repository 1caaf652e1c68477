"""`moe` in the C++ executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from longspan.batch import Float32
from longspan.executors.meanings import choose
from longspan.program.instructions import Moe, Routing
from longspan.program.operands import Buffer, Rows

from .harness import (
    ROWS,
    Case,
    assert_same_bits,
    batch_of,
    batches_of,
    every_tier,
    executors_of,
    pooled_by_row,
    run_cpu,
    tokens_buffer,
)

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


NAN, INF = float("nan"), float("inf")
LOWEST = float(np.finfo(np.float32).min)
LOGITS = np.array(
    [
        [0.5, 2, -1, 1, 0, 3],
        [NAN] * 6,
        [NAN, 1, 2, 3, 4, 5],
        [1, 2, NAN, 3, 4, 5],
        [LOWEST, -3.1e38, LOWEST, -3.2e38, LOWEST, LOWEST],
        [LOWEST] * 6,
        [-3e38] * 6,
        [-INF] * 6,
        [-INF, -INF, LOWEST, -INF, -INF, -INF],
        [-INF, 1, -INF, LOWEST, -INF, -INF],
        [INF, 1, 2, 3, 4, 5],
        [-1e38, 3e38, 3e38, 0, LOWEST, NAN],
        [2, 0.5, -1, 1, 0, 3],
    ],
    np.float32,
)
"""What routers give, a row for each token: good ones between those that no router should give."""


def weights_of(isa: str, routing: Routing) -> Float32:
    """The weight of each expert for each row of LOGITS [T, X], the same bits whatever threads and schedule are.

    Logit e is twice the sum of a token's components e and X + e, which overflows to an infinity, or to a NaN where the
    two differ in sign. Each expert gives its own unit vector.
    """
    tokens, experts = LOGITS.shape
    width = 2 * experts + 1
    rows = np.zeros((ROWS, width), np.float32)
    rows[:tokens, :experts] = np.where(np.isfinite(LOGITS), LOGITS / 2, np.copysign(3e38, LOGITS))
    rows[:tokens, :experts][np.isnan(LOGITS)] = 3e38
    rows[:tokens, experts : 2 * experts][np.isnan(LOGITS)] = -3e38
    rows[:, -1] = 1
    case = Case()
    x, out = case.rows("x", width, values=rows), tokens_buffer("out", width)
    router = np.concatenate([2 * np.eye(experts)] * 2 + [np.zeros((experts, 1))], axis=1)
    up, down = np.zeros((experts, width)), np.zeros((experts * width, 1))
    up[:, -1] = 1
    down[np.arange(experts) * (width + 1)] = 1
    op = Moe(
        stage=1,
        x=x,
        out=out,
        logits=tile("logits", experts),
        gathered=tile("gathered", width),
        hidden=tile("hidden", 1),
        sums=tile("sums", width),
        router=case.known("router", router),
        routing=routing,
        up=case.known("up", up),
        down=case.known("down", down),
        activation="identity",
    )
    body, batch = pooled_by_row(case.program(op, outputs=[out]), batch_of([tokens]))
    (how, first), *others = run_cpu(executors_of(body, case.tensors, isa), batch)
    for other, results in others:
        assert_same_bits(results, first, f"{isa}: {other} against {how}")
    return first[0][:, :experts]


@every_tier
@pytest.mark.parametrize("chosen", [1, 2, 6])
@pytest.mark.parametrize("normalised", [False, True])
def test_logits_that_are_no_numbers(isa: str, chosen: int, normalised: bool) -> None:
    """Tokens with a NaN become NaN; all others have weights that sum to what they should."""
    routing = Routing(experts=LOGITS.shape[1], chosen=chosen, normalised=normalised)
    expected = choose(torch.tensor(LOGITS), routing).numpy()
    expected[np.isnan(expected).any(1)] = NAN  # a NaN times nothing is one
    np.testing.assert_allclose(weights_of(isa, routing), expected, rtol=1e-6, atol=1e-7)
