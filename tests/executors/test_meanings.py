"""Each instruction as the reference executor runs it, against an independent formulation, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from longspan.batch import PackedBatch, Partials
from longspan.executors import meanings
from longspan.executors.reference import execute, without_tokens
from longspan.program.instructions import (
    Activation,
    Attention,
    Combine,
    Embed,
    Instruction,
    Linear,
    Mlp,
    Norm,
    Normalize,
    Pool,
    Qkv,
    TanhQuantize,
)
from longspan.program.operands import Buffer, LowRank, Rows, Weight
from longspan.program.program import Program


def tokens(name: str, width: int) -> Buffer:
    return Buffer(name, Rows.TOKENS, width)


def weight(name: str, *shape: int) -> Weight:
    return Weight((name,), shape)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


def batch_of(
    lengths: Sequence[int], partials: Sequence[Partials] = (), ids: npt.NDArray[Any] | None = None
) -> PackedBatch:
    total = sum(lengths)
    return PackedBatch(
        ids=np.arange(total, dtype=np.int32) if ids is None else ids.astype(np.int32),
        positions=np.concatenate([np.zeros(0, np.int32), *(np.arange(n, dtype=np.int32) for n in lengths)]),
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int64),
        partials=tuple(partials),
    )


def partials_of(
    ranges: Sequence[tuple[int, int]], counts: Sequence[int], weights: Sequence[tuple[float, float]] = ()
) -> Partials:
    """Partials over ranges of rows; `counts` says how many each vector has."""
    pairs = np.array(weights or [(1.0, 0.0)] * len(ranges), np.float32).reshape(-1, 2)
    bounds = np.array(ranges, np.int64).reshape(-1, 2)
    return Partials(bounds[:, 0], bounds[:, 1], pairs[:, 0], pairs[:, 1], np.cumsum([0, *counts], dtype=np.int64))


def run(
    op: Instruction, inputs: Mapping[str, Tensor], weights: Mapping[Weight, Tensor], batch: PackedBatch | None = None
) -> dict[str, Tensor]:
    """One instruction on given buffers."""
    rows = next((len(value) for value in inputs.values()), 0)
    given = tuple(dict.fromkeys(op.reads))
    program = Program("one", (op,), outputs=op.writes[:1], inputs=given)
    return execute(program, inputs, weights, batch or batch_of([rows]))


def expect(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def test_embed() -> None:
    t, p, s = weight("t", 20, 8), weight("p", 12, 8), weight("s", 2, 8)
    weights = {t: random(20, 8), p: random(12, 8), s: random(2, 8)}
    ids = np.array([3, 19, 0, 3, 7])
    op = Embed(stage=0, out=tokens("x", 8), tokens=t, positions=p, position_offset=2, types=s)
    result = run(op, {}, weights, batch_of([2, 3], ids=ids))["x"]
    expected = weights[t][[3, 19, 0, 3, 7]] + weights[p][[2, 3, 2, 3, 4]] + weights[s][[0] * 5]
    expect(result, expected)
    expect(run(Embed(stage=0, out=tokens("x", 8), tokens=t), {}, weights, batch_of([5], ids=ids))["x"], weights[t][ids])


def pairs_of(name: str, outer: int, inner: int) -> tuple[LowRank, dict[Weight, Tensor], list[Tensor]]:
    """Pairs of rank 3 for 2 tasks, their tensors, and what the weight gains for each task."""
    pair = LowRank(
        left=weight(f"{name}.left", 2 * outer, 3), right=weight(f"{name}.right", 6, inner), tasks=2, scale=0.7
    )
    tensors = {side: random(*side.shape, seed=index) for index, side in enumerate((pair.left, pair.right))}
    left, right = (tensors[side] for side in (pair.left, pair.right))
    return pair, tensors, [0.7 * left[t * outer :][:outer] @ right[3 * t :][:3] for t in range(2)]


@pytest.mark.parametrize("task", [0, 1])
def test_low_rank_pairs_are_added_to_the_weights(task: int) -> None:
    """As an executor of merged weights would have it."""
    pair, tensors, gains = pairs_of("w", 40, 24)
    x, w, b = random(5, 24), random(40, 24), random(40)
    matrix, bias = weight("w", 40, 24), weight("b", 40)
    op = Linear(
        stage=0,
        x=tokens("x", 24),
        out=tokens("out", 40),
        ranks=tokens("ranks", 3),
        weight=matrix,
        low_rank=pair,
        bias=bias,
    )
    batch = replace(batch_of([5]), task=task)
    result = run(op, {"x": x}, {matrix: w, bias: b, **tensors}, batch)["out"]
    expect(result, x @ (w + gains[task]).T + b)

    table = weight("t", 20, 8)
    pair, tensors, gains = pairs_of("t", 20, 8)
    weights = {table: random(20, 8), **tensors}
    ids = np.array([3, 19, 0, 3, 7])
    embed = Embed(stage=0, out=tokens("x", 8), tokens=table, tokens_low_rank=pair, scale=1.5)
    result = run(embed, {}, weights, replace(batch_of([5], ids=ids), task=task))["x"]
    expect(result, (weights[table] + gains[task])[ids] * 1.5)


def test_no_such_task() -> None:
    pair, tensors, _ = pairs_of("w", 8, 8)
    w = weight("w", 8, 8)
    op = Linear(stage=0, x=tokens("x", 8), out=tokens("out", 8), ranks=tokens("ranks", 3), weight=w, low_rank=pair)
    with pytest.raises(ValueError, match="there is no task 2 among 2"):
        run(op, {"x": random(5, 8)}, {w: random(8, 8), **tensors}, replace(batch_of([5]), task=2))


@pytest.mark.parametrize("affine", [True, False])
def test_norm(affine: bool) -> None:
    x, w, b = random(7, 24) * 3 + 1, random(24), random(24, seed=1)
    names = (weight("w", 24), weight("b", 24)) if affine else (None, None)
    op = Norm(stage=0, x=tokens("x", 24), out=tokens("x", 24), weight=names[0], bias=names[1], eps=1e-3)
    expected = (x - x.mean(1, keepdim=True)) / (
        (x**2).mean(1, keepdim=True) - x.mean(1, keepdim=True) ** 2 + 1e-3
    ).sqrt()
    result = run(op, {"x": x}, {weight("w", 24): w, weight("b", 24): b})["x"]
    expect(result, expected * w + b if affine else expected)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "gelu": lambda x: x / 2 * (1 + torch.erf(x / 2**0.5)),
    "gelu_tanh": lambda x: x / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "relu": lambda x: x * (x > 0),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", get_args(Activation))
def test_linear(activation: Activation, bias: bool, residual: bool) -> None:
    x, r, w, b = random(5, 24), random(5, 40), random(40, 24), random(40)
    op = Linear(
        stage=0,
        x=tokens("x", 24),
        out=tokens("out", 40),
        weight=weight("w", 40, 24),
        bias=weight("b", 40) if bias else None,
        activation=activation,
        residual=tokens("r", 40) if residual else None,
    )
    inputs = {"x": x, "r": r} if residual else {"x": x}
    result = run(op, inputs, {weight("w", 40, 24): w, weight("b", 40): b})["out"]
    product = torch.einsum("ti,oi->to", x, w) + (b if bias else 0)
    expect(result, ACTIVATIONS[activation](product) + (r if residual else 0))


def test_qkv_splits_the_stacked_rows() -> None:
    x, w, b = random(5, 40), random(64, 40), random(64)
    q, k, v = tokens("q", 32), tokens("k", 16), tokens("v", 16)
    names = weight("w", 64, 40), weight("b", 64)
    shape: dict[str, Any] = {"heads": 4, "kv_heads": 2, "head_size": 8}
    op = Qkv(stage=0, x=tokens("x", 40), q=q, k=k, v=v, weight=names[0], bias=names[1], **shape)
    result = run(op, {"x": x}, dict(zip(names, (w, b), strict=True)))
    expect(torch.cat([result["q"], result["k"], result["v"]], 1), x @ w.T + b)
    assert (result["q"].shape, result["k"].shape, result["v"].shape) == ((5, 32), (5, 16), (5, 16))


@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(1, 1, 8), (3, 3, 24), (6, 2, 40), (4, 1, 8)])
@pytest.mark.parametrize("lengths", [[0], [1], [0, 5, 0], [1, 2, 3, 17], [33]])
def test_attention(heads: int, kv_heads: int, size: int, lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanings, "ATTENTION_SCORES", heads * 33 * 5)  # 33 rows take several rounds
    total = sum(lengths)
    q, k, v = random(total, heads * size), random(total, kv_heads * size), random(total, kv_heads * size, seed=1)
    op = Attention(
        stage=0,
        q=tokens("q", heads * size),
        k=tokens("k", kv_heads * size),
        v=tokens("v", kv_heads * size),
        out=tokens("out", heads * size),
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        scale=0.3,
    )
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    expected = functional.scaled_dot_product_attention(
        q.view(total, heads, size).transpose(0, 1),
        k.view(total, kv_heads, size).transpose(0, 1),
        v.view(total, kv_heads, size).transpose(0, 1),
        attn_mask=segment[:, None] == segment[None, :],
        scale=0.3,
        enable_gqa=True,
    )
    result = run(op, {"q": q, "k": k, "v": v}, {}, batch_of(lengths))["out"]
    expect(result, expected.transpose(0, 1).reshape(total, heads * size))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 8, 9])
def test_mlp(rows: int, residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanings, "MLP_ROWS", 4)
    x, up, down = random(rows, 24), random(56, 24), random(24, 56)
    up_bias, down_bias = random(56), random(24)
    names = weight("up", 56, 24), weight("ub", 56), weight("down", 24, 56), weight("db", 24)
    op = Mlp(
        stage=0,
        x=tokens("x", 24),
        out=tokens("x", 24),
        hidden=Buffer("hidden", Rows.TILE, 56),
        up=names[0],
        up_bias=names[1],
        down=names[2],
        down_bias=names[3],
        activation="gelu",
        residual=tokens("x", 24) if residual else None,
    )
    result = run(op, {"x": x}, dict(zip(names, (up, up_bias, down, down_bias), strict=True)))["x"]
    expect(result, ACTIVATIONS["gelu"](x @ up.T + up_bias) @ down.T + down_bias + (x if residual else 0))


def test_pool_sum() -> None:
    x = random(12, 24)
    given = partials_of([(0, 1), (0, 5), (5, 12), (7, 7)], [4], [(1, 0), (1, 1), (6, 1), (1, 0)])
    op = Pool(stage=0, x=tokens("x", 24), out=Buffer("p", Rows.PARTIALS, 24), kind="sum", index=0)
    result = run(op, {"x": x}, {}, batch_of([5, 7], [given]))["p"].numpy()
    rows = x.numpy()
    expected = [rows[0], np.arange(1, 6) @ rows[:5], np.arange(6, 13) @ rows[5:], 0 * rows[0]]
    np.testing.assert_allclose(result, np.stack(expected), rtol=1e-12, atol=1e-12)


def test_pool_maximum_of_the_partials_of_its_index() -> None:
    x = random(12, 24)
    sets = [partials_of([(0, 1)], [1]), partials_of([(0, 5), (5, 12)], [1, 1])]
    op = Pool(stage=0, x=tokens("x", 24), out=Buffer("p", Rows.PARTIALS, 24), kind="maximum", index=1)
    result = run(op, {"x": x}, {}, batch_of([5, 7], sets))["p"].numpy()
    np.testing.assert_array_equal(result, np.stack([x.numpy()[:5].max(0), x.numpy()[5:].max(0)]))


@pytest.mark.parametrize("kind", ["mean", "mean_sqrt_len", "maximum"])
def test_combine(kind: Literal["mean", "mean_sqrt_len", "maximum"]) -> None:
    sums = random(4, 8)
    given = partials_of([(0, 3), (5, 9), (9, 10), (2, 2)], [2, 0, 1, 1], [(1, 0), (4, 1), (2, 0), (1, 0)])
    op = Combine(
        stage=0,
        partials=Buffer("p", Rows.PARTIALS, 8),
        out=Buffer("v", Rows.VECTORS, 24),
        kind=kind,
        index=0,
        column=8,
    )
    result = run(op, {"p": sums}, {}, without_tokens((given,)))["v"].numpy()
    values = sums.numpy()
    first, third = {
        "mean": ((values[0] + values[1]) / 25, values[2] / 2),  # 1 + 1 + 1 + 4 + 5 + 6 + 7
        "mean_sqrt_len": ((values[0] + values[1]) / 5, values[2] / 2**0.5),
        "maximum": (np.maximum(values[0], values[1]), values[2]),
    }[kind]
    expected = np.zeros((4, 24))
    expected[0, 8:16], expected[2, 8:16] = first, third
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("unit", [True, False])
def test_normalize(unit: bool) -> None:
    x = random(3, 24)
    x[1] = 0
    op = Normalize(stage=0, x=Buffer("x", Rows.VECTORS, 24), out=Buffer("y", Rows.VECTORS, 10), unit=unit)
    result = run(op, {"x": x}, {}, without_tokens(()))["y"]
    lengths = (x[:, :10] ** 2).sum(1, keepdim=True).sqrt().clamp(min=1e-12)
    expect(result, x[:, :10] / lengths if unit else x[:, :10])


def test_tanh_quantize() -> None:
    x = torch.tensor([[0.0, 0.001, -0.3, 0.5, 40.0, -40.0]], dtype=torch.float64)
    op = TanhQuantize(stage=0, x=Buffer("x", Rows.VECTORS, 6), out=Buffer("y", Rows.VECTORS, 6))
    assert run(op, {"x": x}, {}, without_tokens(()))["y"].tolist() == [[0, 0, -37, 59, 127, -127]]
