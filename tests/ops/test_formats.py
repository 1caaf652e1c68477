"""Products, heads and attention in bfloat16 and int8, on every tier.

bfloat16 is judged by torch in bfloat16, int8 by its own rounding written down in float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch

from longspan.batch import Float32
from longspan.executors.cpu import CpuExecutor
from longspan.program.formats import in_format
from longspan.program.instructions import Activation, Attention, Instruction, Linear, Mlp, Norm, Qkv, RelativeBias
from longspan.program.operands import Buffer
from longspan.program.rope import Frequencies, Rope, inverse_frequencies
from longspan.weights import Format

from .harness import (
    TILE_EDGES,
    Case,
    batch_of,
    batches_of,
    every_tier,
    executors_of,
    judge,
    pooled_by_row,
    run_cpu,
    run_reference,
    tokens_buffer,
)
from .test_mlp import mlp

Float64 = npt.NDArray[np.float64]

NARROW: tuple[Format, ...] = ("bfloat16", "int8")
narrow_formats = pytest.mark.parametrize("weights", NARROW)


def layer(case: Case, x: Buffer, heads: int, kv_heads: int, size: int, inner: int, **options: Any) -> list[Instruction]:
    """A pre-norm layer whose normed rows, heads and hidden rows may all be narrow."""
    width, own = x.width, (heads + 2 * kv_heads) * size
    normed, q, context = (
        tokens_buffer("normed", width),
        tokens_buffer("q", heads * size),
        tokens_buffer("c", heads * size),
    )
    k, v = tokens_buffer("k", kv_heads * size), tokens_buffer("v", kv_heads * size)
    shape: dict[str, Any] = {"heads": heads, "kv_heads": kv_heads, "head_size": size}
    gate = options.pop("gate", False)
    rope = options.pop("rope", None)
    return [
        Norm(stage=1, x=x, out=normed, kind="rms", eps=1e-5, weight=case.weight("norm", width)),
        Qkv(stage=1, x=normed, q=q, k=k, v=v, weight=case.weight("qkv", own, width), rope=rope, **shape),
        Attention(stage=1, q=q, k=k, v=v, out=context, scale=size**-0.5, **shape, **options),
        Linear(stage=1, x=context, out=x, weight=case.weight("o", width, heads * size), residual=x),
        Norm(stage=1, x=x, out=normed, eps=1e-5),
        replace(mlp(case, normed, x, inner, "silu" if gate else "gelu", gate=gate), residual=x),
    ]


def test_what_becomes_narrow() -> None:
    case = Case()
    x = case.rows("x", 64)
    program = in_format(case.program(*layer(case, x, 4, 2, 16, 96), outputs=[x]), "int8")
    narrow = {buffer.name for buffer in program.buffers if buffer.dtype == "bfloat16"}
    assert narrow == {"normed", "q", "k", "v", "c", "hidden"}
    assert {step.format for step in program.instructions if isinstance(step, Linear | Qkv | Mlp)} == {"int8"}
    assert in_format(program, "float32") is program


@every_tier
@pytest.mark.parametrize("size", [8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 104, 128, 136, 256, 264, 512])
def test_head_sizes(isa: str, size: int) -> None:
    case = Case(size)
    x = case.rows("x", 72)
    batches = [batch_of([300, 0, 1, 2, 31, 32, 33, 129]), batch_of([513])]
    case.check(*layer(case, x, 4, 2, size, 104), outputs=[x], batches=batches, isa=isa, weights="bfloat16")


SCORES: list[dict[str, Any]] = [
    {"right": 0},
    {"left": 5, "right": 5},
    {"left": 200, "right": 0},
    {"left": 0, "right": 0},
    {"soft_cap": 2.0},
    {"slopes": (0.5, 0.25, 0.0, 1.0)},
]


@every_tier
@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("scores", SCORES, ids=str)
def test_scores(isa: str, scores: dict[str, Any], kv_heads: int) -> None:
    case = Case(3)
    x = case.rows("x", 64)
    batches = [batch_of([7, 300, 1, 40]), batch_of([600])]
    case.check(
        *layer(case, x, 4, kv_heads, 32, 96, **scores), outputs=[x], batches=batches, isa=isa, weights="bfloat16"
    )


@every_tier
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_relative_bias(isa: str, kv_heads: int, bidirectional: bool) -> None:
    case = Case(14)
    x = case.rows("x", 64)
    bias = RelativeBias(max_distance=128, bidirectional=bidirectional)
    steps = layer(case, x, 4, kv_heads, 32, 96, relative=bias, relative_bias=case.weight("bias", 32, 4))
    batches = [batch_of([7, 300, 1, 40]), batch_of([600])]
    case.check(*steps, outputs=[x], batches=batches, isa=isa, weights="bfloat16")


@every_tier
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_sinks(isa: str, kv_heads: int) -> None:
    case = Case(4)
    x = case.rows("x", 64)
    sinks = case.known("sinks", np.array([0.0, 3.0, -50.0, 90.0], np.float32))
    case.check(
        *layer(case, x, 4, kv_heads, 16, 96, sinks=sinks),
        outputs=[x],
        batches=[batch_of([300, 5])],
        isa=isa,
        weights="bfloat16",
    )


@every_tier
def test_scores_that_rise_by_far(isa: str) -> None:
    """The greatest scores come last, hundreds above the first."""
    case = Case(5)
    rows = np.sort(np.abs(case.normal(700, 64)), axis=0) * np.linspace(0.1, 40, 700, dtype=np.float32)[:, None]
    x = case.rows("x", 64, values=rows)
    steps = layer(case, x, 2, 2, 32, 96)[1:4]
    steps[0] = Qkv(
        stage=1, x=x, q=tokens_buffer("q", 64), k=tokens_buffer("k", 64), v=tokens_buffer("v", 64),
        weight=case.known("id", np.tile(np.eye(64, dtype=np.float32), (3, 1))), heads=2, kv_heads=2, head_size=32,
    )  # fmt: skip
    case.check(*steps, outputs=[x], batches=[batch_of([700]), batch_of([400, 300])], isa=isa, weights="bfloat16")


@every_tier
@pytest.mark.parametrize("interleaved", [True, False])
def test_gates_and_turns(isa: str, interleaved: bool) -> None:
    case = Case(6)
    x = case.rows("x", 88)
    rope = Rope(16, Frequencies(inverse_frequencies(100.0, 16)), interleaved)
    steps = layer(case, x, 6, 2, 24, 136, gate=True, rope=rope)
    case.check(*steps, outputs=[x], batches=[batch_of([97, 3, 250])], isa=isa, weights="bfloat16")


@every_tier
@pytest.mark.parametrize(("width", "inner"), [(8, 24), (40, 257), (255, 256), (384, 1536)])
def test_tiles(isa: str, width: int, inner: int) -> None:
    case = Case(width)
    x, out = case.rows("x", width), tokens_buffer("out", inner)
    op = Linear(stage=1, x=x, out=out, weight=case.weight("w", inner, width), bias=case.weight("b", inner))
    case.check(op, outputs=[out], batches=batches_of(*TILE_EDGES), isa=isa, weights="bfloat16")


@every_tier
@narrow_formats
def test_low_rank_pairs(isa: str, weights: Format) -> None:
    case = Case(7)
    x, out = case.rows("x", 72), tokens_buffer("out", 104)
    pair = case.low_rank("pair", 104, 72)
    op = Linear(stage=1, x=x, out=out, ranks=tokens_buffer("ranks", 4), weight=case.weight("w", 104, 72), low_rank=pair)
    batch = batch_of([100, 33])
    program = case.program(op, outputs=[out])
    for task in (None, 1):
        with_task = type(batch)(batch.ids, batch.positions, batch.cu_seqlens, batch.partials, task)
        body, pooled = pooled_by_row(program, with_task)
        exact = run_reference(program, case.tensors, with_task, torch.float64)[0]
        for how, (found,) in run_cpu(executors_of(body, case.tensors, isa, weights), pooled):
            assert relative(found, exact) < (0.004 if weights == "bfloat16" else 0.012), how


# --- int8: the same rounding in float64 ------------------------------------------------------------------------------


def relative(found: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """The relative root mean square error."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def rounded_rows(x: Float64) -> Float64:
    """Rows as unsigned codes of one scale and zero point each."""
    low, high = np.minimum(x.min(1, keepdims=True), 0), np.maximum(x.max(1, keepdims=True), 0)
    step = np.maximum((high - low) * (1 + 2.0**-17) / 255, 1e-30)
    zero = np.rint(-low / step + 2.0**-10)
    levels = np.rint(x / step + zero)
    assert levels.size == 0 or (levels.min() >= 0 and levels.max() <= 255)
    codes: Float64 = (levels - zero) * step
    return codes


def rounded_columns(weight: Float64) -> Float64:
    """A weight [n, k] as signed codes of one scale a row."""
    step = np.abs(weight).max(1, keepdims=True) / 127
    codes: Float64 = np.rint(weight / step) * step
    return codes


def bfloat16(x: Float64) -> Float64:
    rounded: Float64 = torch.tensor(x).to(torch.bfloat16).double().numpy()
    return rounded


@every_tier
@pytest.mark.parametrize(("width", "inner"), [(8, 24), (40, 257), (255, 256), (384, 1536)])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_int8_rounds_as_it_says(isa: str, width: int, inner: int, offset: float) -> None:
    case = Case(width)
    x = case.rows("x", width, values=case.normal(700, width) + np.float32(offset))
    out = tokens_buffer("out", inner)
    op = Linear(stage=1, x=x, out=out, weight=case.weight("w", inner, width), bias=case.weight("b", inner))
    program = case.program(op, outputs=[out])
    table, weight, bias = (case.tensors[name].data.astype(np.float64) for name in ("x.rows", "w", "b"))
    for batch in batches_of(*TILE_EDGES):
        body, pooled = pooled_by_row(program, batch)
        exact = rounded_rows(table[: batch.tokens]) @ rounded_columns(weight).T + bias
        # A code that float32 rounds to its neighbour may differ: one step of one component.
        peer = exact + (np.abs(weight).max() * np.ptp(table) / 255 if batch.tokens else 0)
        judge(run_cpu(executors_of(body, case.tensors, isa, "int8"), pooled), [exact], [peer], f"{isa}, {batch.tokens}")
        (found,) = next(iter(run_cpu(executors_of(body, case.tensors, isa, "int8"), pooled)))[1]
        if batch.tokens:
            assert relative(found, exact) < 1e-4


def ends_that_would_wrap(stretch: float, nudge: float) -> Float32:
    """Least and greatest of rows, [n, 2], whose codes float32 would round to -1 or 256.

    Steps are longer by `stretch`, and zeros are moved up by `nudge` before they are rounded.
    """
    rng = np.random.default_rng(0)
    tries, magic = 2_000_000, np.float32(1.5 * 2**23)
    zero = rng.integers(0, 255, tries) + 0.5 + rng.uniform(-3e-5, 3e-5, tries)
    scale = np.exp(rng.uniform(-5, 5, tries))
    ends = (np.stack([-zero, 255 * (1 + stretch) - zero], 1) * scale[:, None]).astype(np.float32)
    step = ends[:, 1] * np.float32((1 + stretch) / 255) - ends[:, 0] * np.float32((1 + stretch) / 255)
    inverse = np.float32(1) / step
    offset = (np.float32(nudge) - ends[:, 0] * inverse) + magic
    codes = np.rint(ends * inverse[:, None].astype(np.float64) + (offset - magic)[:, None])
    return ends[(codes[:, 0] < 0) | (codes[:, 1] > 255)][:2000]


@every_tier
@pytest.mark.parametrize("magnitude", [1e-25, 1.0, 3.7e20])
@pytest.mark.parametrize(("stretch", "nudge"), [(0.0, 0.0), (2.0**-17, 0.0), (0.0, 2.0**-10)])
def test_int8_codes_do_not_wrap(isa: str, magnitude: float, stretch: float, nudge: float) -> None:
    """Rows that need the longer step, the nudge of the zero, or both."""
    ends = ends_that_would_wrap(stretch, nudge)
    assert len(ends)
    width = 64
    values = np.zeros((len(ends), width), np.float32)
    values[:, [0, -1]] = ends * np.float32(2.0 ** round(np.log2(magnitude)))
    case = Case(width)
    x, out = case.rows("x", width, values=values), tokens_buffer("out", width)
    op = Linear(stage=1, x=x, out=out, weight=case.known("w", np.eye(width, dtype=np.float32)))
    body, pooled = pooled_by_row(case.program(op, outputs=[out]), batch_of([len(ends)]))
    step = np.ptp(values.astype(np.float64), axis=1, keepdims=True) / 255
    for how, (found,) in run_cpu(executors_of(body, case.tensors, isa, "int8"), pooled):
        assert (np.abs(found - values) <= 0.51 * step).all(), how


@every_tier
def test_int8_of_tiny_huge_and_infinite_rows(isa: str) -> None:
    """Rows about the least step, rows about the greatest float32, and rows that have no codes."""
    width, least = 64, 1e-30
    ranges = np.array([0, 1e-38, least / 3, 200 * least, 254 * least, 256 * least, 400 * least, 1e30, 6e38])
    values = (np.linspace(-0.5, 0.5, width) * ranges[:, None]).astype(np.float32)
    infinite = np.zeros((3, width), np.float32)
    infinite[0, 5], infinite[1, 5], infinite[2, 5:7] = np.inf, -np.inf, (np.inf, -np.inf)
    case = Case(width)
    x, out = case.rows("x", width, values=np.concatenate([values, infinite])), tokens_buffer("out", width)
    op = Linear(stage=1, x=x, out=out, weight=case.known("w", np.eye(width, dtype=np.float32)))
    body, pooled = pooled_by_row(case.program(op, outputs=[out]), batch_of([len(values) + 3]))
    step = np.maximum(np.ptp(values.astype(np.float64), axis=1, keepdims=True) / 255, least)
    for how, (found,) in run_cpu(executors_of(body, case.tensors, isa, "int8"), pooled):
        assert (np.abs(found[:-3] - values.astype(np.float64)) <= 0.51 * step).all(), how
        assert np.isnan(found[-3:]).all(), how


@every_tier
@pytest.mark.parametrize("hardly", [0.0, 1e-3])
@pytest.mark.parametrize("reach", [0.02, 50.0])
def test_int8_of_columns_that_samples_hardly_reach(isa: str, hardly: float, reach: float) -> None:
    """Rows that reach them err at most three times as much as they would without samples, whatever the rows' scale."""
    case = Case(12)
    rows = case.normal(700, 96) * np.float32(reach)
    rows[:50, ::2] *= np.float32(hardly)
    x, out = case.rows("x", 96, values=rows), tokens_buffer("out", 64)
    program = case.program(Linear(stage=1, x=x, out=out, weight=case.weight("w", 64, 96)), outputs=[out])
    body, pooled = pooled_by_row(program, batch_of([60], ids=range(100, 160)))
    samples = pooled_by_row(program, batch_of([50]))[1]
    executor = CpuExecutor(body, case.tensors, threads=1, isa=isa, weights="int8", samples=lambda: samples)
    plain, weight = rows[100:160].astype(np.float64), case.tensors["w"].data.astype(np.float64)
    exact, rounded = plain @ weight.T, rounded_rows(plain) @ rounded_columns(weight).T
    assert relative(executor.run_body(pooled)[0], exact) < 3 * relative(rounded, exact)


@every_tier
@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("gate", [False, True])
def test_int8_mlp(isa: str, activation: Activation, gate: bool) -> None:
    """As exact as the rounding allows: the error to float64 is that of the rounding, within a tenth."""
    case = Case(9)
    x, out = case.rows("x", 96), tokens_buffer("out", 64)
    op = mlp(case, x, out, 200, activation, bias=False, gate=gate, residual=False)
    program, batch = case.program(op, outputs=[out]), batch_of([130, 70])
    exact = run_reference(program, case.tensors, batch, torch.float64)[0]
    plain = {name: view.data.astype(np.float64) for name, view in case.tensors.items()}
    rows, up = rounded_rows(plain["x.rows"][:200]), rounded_columns(plain["up"])
    first = bfloat16(activated(rows @ rounded_columns(plain["gate"]).T, activation)) if gate else 1.0
    hidden = rows @ up.T if gate else activated(rows @ up.T, activation)
    rounded = rounded_rows(bfloat16(hidden * first)) @ rounded_columns(plain["down"]).T
    body, pooled = pooled_by_row(program, batch)
    for how, (found,) in run_cpu(executors_of(body, case.tensors, isa, "int8"), pooled):
        assert relative(found, rounded) < 0.004, how
        assert relative(found, exact) < 1.1 * relative(rounded, exact), how


def activated(x: Float64, activation: Activation) -> Float64:
    tensor = torch.tensor(x)
    known = {
        "identity": tensor,
        "gelu": torch.nn.functional.gelu(tensor),
        "gelu_tanh": torch.nn.functional.gelu(tensor, approximate="tanh"),
        "relu": tensor.relu(),
        "silu": torch.nn.functional.silu(tensor),
        "tanh": tensor.tanh(),
    }
    result: Float64 = known[activation].numpy()
    return result


@every_tier
@narrow_formats
def test_numbers_that_are_none_stay_in_their_rows(isa: str, weights: Format) -> None:
    case = Case(10)
    rows = case.normal(700, 64)
    clean = rows.copy()
    rows[40:45] = np.array([np.nan, np.inf, -np.inf, 1e30, np.nan], np.float32)[:, None]
    x = case.rows("x", 64, values=rows)
    program = case.program(*layer(case, x, 4, 2, 16, 96), outputs=[x])
    case.known("x.rows", clean)
    batch = batch_of([40, 5, 300])
    body, pooled = pooled_by_row(program, batch)
    other = {**case.tensors}
    case.known("x.rows", rows)
    for (how, (found,)), (_, (good,)) in zip(
        run_cpu(executors_of(body, case.tensors, isa, weights), pooled),
        run_cpu(executors_of(body, other, isa, weights), pooled),
        strict=True,
    ):
        keep = np.r_[0:40, 45:345]
        assert np.array_equal(found[keep], good[keep]), how
        assert np.isnan(found[40:45]).all(), how


def test_a_weight_that_is_no_number_spoils_its_column_only() -> None:
    case = Case(11)
    x, out = case.rows("x", 32), tokens_buffer("out", 40)
    weight: Float32 = case.normal(40, 32)
    weight[7, 3] = np.nan
    op = Linear(stage=1, x=x, out=out, weight=case.known("w", weight))
    body, pooled = pooled_by_row(case.program(op, outputs=[out]), batch_of([50]))
    for _, (found,) in run_cpu(executors_of(body, case.tensors, "generic", "int8"), pooled):
        assert np.isnan(found[:, 7]).all()
        assert np.isfinite(np.delete(found, 7, axis=1)).all()


@every_tier
@pytest.mark.parametrize("scale", [1e-36, 1e-38, 1e-41, 1e-45])
def test_weights_at_the_lower_end(isa: str, scale: float) -> None:
    """Where a step between codes would be no normal number any more, columns become coarser, then zero."""
    case = Case(13)
    x, out = case.rows("x", 32), tokens_buffer("out", 40)
    values = case.normal(40, 32)
    values[::2] = np.clip(values[::2], -1, 1) * np.float32(scale)
    op = Linear(stage=1, x=x, out=out, weight=case.known("w", values))
    body, pooled = pooled_by_row(case.program(op, outputs=[out]), batch_of([50]))
    weight = values.astype(np.float64)
    peer = rounded_rows(case.tensors["x.rows"].data[:50].astype(np.float64)) @ rounded_columns(weight[1::2]).T
    for how, (found,) in run_cpu(executors_of(body, case.tensors, isa, "int8"), pooled):
        assert relative(found[:, 1::2], peer) < 1e-4, how
        assert np.abs(found[:, ::2]).max() < 32 * 5 * max(scale, 1e-36), how
