"""Attention over bytes, on every tier, judged by its own rounding written down in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from longspan.batch import Float32
from longspan.executors.cpu import CpuExecutor
from longspan.program.formats import with_int8_attention
from longspan.program.instructions import Attention, Instruction, Qkv, RelativeBias
from longspan.program.operands import Buffer
from longspan.program.relative import bias_buckets
from longspan.weights import Format

from .harness import (
    Case,
    assert_same_bits,
    batch_of,
    every_tier,
    executors_of,
    pooled_by_row,
    run_cpu,
    run_reference,
)
from .test_attention import block
from .test_formats import bfloat16, layer, relative

Float64 = npt.NDArray[np.float64]

BLOCK = 128
"""Keys that have a mean and a greatest weight together; they count from the segment's start."""

HEADS = [
    *((1, 1, 8), (3, 3, 24), (2, 2, 40), (4, 2, 64), (6, 1, 32), (2, 2, 72), (2, 2, 96), (2, 1, 128), (1, 1, 136)),
    *((2, 1, 256), (1, 1, 264), (1, 1, 512)),
]
LENGTHS = [1, 2, 0, 17, 127, 128, 129, 250, 31]


def codes(x: Float64) -> Float64:
    """Rows as signed codes of one scale each."""
    scale = np.maximum(np.abs(x).max(-1, keepdims=True) / 127, 1e-30)
    result: Float64 = np.rint(x / scale) * scale
    return result


def changed(scores: Float64, key: int, head: int, options: dict[str, Any]) -> Float64:
    """Scores [T, keys] after soft cap, bias and mask."""
    distance = np.arange(len(scores))[:, None] - np.arange(key, key + scores.shape[1])
    if (cap := options.get("soft_cap")) is not None:
        scores = cap * np.tanh(scores / cap)
    if options.get("slopes"):
        scores = scores - options["slopes"][head] * np.abs(distance)
    if "relative" in options:
        bias, table = options["relative"], options["relative_values"]
        buckets = bias_buckets(bias, len(table))  # by key - query, from -max_distance on
        scores = (
            scores + table[buckets[np.clip(-distance, -bias.max_distance, bias.max_distance) + bias.max_distance], head]
        )
    left, right = (options.get(side) for side in ("left", "right"))
    hidden = (distance > (len(scores) if left is None else left)) | (-distance > (10**6 if right is None else right))
    return np.where(hidden, -np.inf, scores)


def rounded(q: Float64, k: Float64, v: Float64, head: int, options: dict[str, Any]) -> Float64:
    """One head of one segment, [T, E] each: what the kernel computes, but for float32 and its 2^x."""
    sink = options["sink_values"][head] if "sink_values" in options else None
    outs, sums, references = [], [], []
    for key in range(0, len(k), BLOCK):
        keys, values = k[key : key + BLOCK], v[key : key + BLOCK]
        mean = keys.mean(0)
        scores = (codes(q) @ codes(keys - mean).T + (q @ mean)[:, None]) * q.shape[1] ** -0.5
        scores = changed(scores, key, head, options)
        reach = np.abs(values).max(-1) / 127
        reach = np.maximum(reach, max(reach.max() * 127 * 2.0**-24, 1e-30))
        exponent = np.floor(np.log2(reach))
        scale = 2 ** (exponent + reach / 2**exponent - 1 + 0.0861)
        reference = np.maximum((scores + np.log(scale)).max(-1, keepdims=True), -1e30)
        weights = np.exp(scores + np.log(scale) - reference)
        outs.append(np.rint(weights * 255) / 255 @ np.rint(values / scale[:, None]))
        sums.append((weights / scale).sum(-1, keepdims=True))
        references.append(reference)
    top = np.max(references, axis=0)
    if sink is not None:
        top = np.maximum(top, sink)
    factors = [np.exp(reference - top) for reference in references]
    total = sum(factor * part for factor, part in zip(factors, sums, strict=True))
    if sink is not None:
        total = total + np.exp(sink - top)
    result: Float64 = sum(factor * part for factor, part in zip(factors, outs, strict=True)) / total
    return result


def attended(
    rows: Float64, lengths: list[int], heads: int, kv_heads: int, size: int, options: dict[str, Any]
) -> Float64:
    """All heads of all segments, from rows of queries, keys and values."""
    split = np.split(rows, [heads * size, (heads + kv_heads) * size], axis=1)
    q, k, v = (part.reshape(len(rows), -1, size) for part in split)
    parts, end = [], 0
    for length in filter(None, lengths):
        start, end = end, end + length
        of_segment = [
            rounded(q[start:end, h], k[start:end, g], v[start:end, g], h, options)
            for h in range(heads)
            for g in (h // (heads // kv_heads),)
        ]
        parts.append(np.concatenate(of_segment, axis=1))
    return np.concatenate(parts)


def check(
    isa: str,
    lengths: list[int],
    heads: int,
    kv_heads: int,
    size: int,
    rows: Float32 | None = None,
    weights: Format = "bfloat16",
    **options: Any,
) -> Float32:
    """Assert that the kernel errs as much as its rounding makes it, in every way to run it the same; its result."""
    width = (heads + 2 * kv_heads) * size
    case = Case(width)
    rows = case.normal(700, width) if rows is None else rows
    plain = bfloat16(rows.astype(np.float64))  # what any format of the buffers holds exactly
    x = case.rows("x", width, values=plain.astype(np.float32))
    if "sink_values" in options:
        options["sinks"] = case.known("sinks", np.array(options["sink_values"], np.float32))
    if "relative_values" in options:
        options["relative_bias"] = case.known("bias", np.array(options["relative_values"], np.float32))
    more = {name: value for name, value in options.items() if not name.endswith("_values")}
    ops = block(x, case.known("identity", np.eye(width, dtype=np.float32)), None, heads, kv_heads, size, **more)
    program, batch = case.program(*ops, outputs=[ops[1].out]), batch_of(lengths)
    (exact,) = run_reference(program, case.tensors, batch, torch.float64)
    body, pooled = pooled_by_row(with_int8_attention(program), batch)
    results = [found for _, (found,) in run_cpu(executors_of(body, case.tensors, isa, weights), pooled)]
    for other in results[1:]:
        assert_same_bits([other], results[:1], isa)
    if np.isfinite(plain).all() and plain.any():
        peer = attended(plain[: batch.tokens], lengths, heads, kv_heads, size, options)
        floor = 0.004 if weights == "bfloat16" else 1e-6  # of the output itself
        assert relative(results[0], exact) < 1.15 * relative(peer, exact) + floor
    return results[0]


@every_tier
@pytest.mark.parametrize(("heads", "kv_heads", "size"), HEADS)
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_int8_attention(isa: str, heads: int, kv_heads: int, size: int, weights: Format) -> None:
    check(isa, LENGTHS, heads, kv_heads, size, weights=weights)


@every_tier
@pytest.mark.parametrize(
    "options",
    [
        {"right": 0},
        {"left": 5, "right": 5},
        {"left": 200, "right": 0},
        {"left": 0, "right": 0},
        {"soft_cap": 2.0},
        {"slopes": (0.5, 0.25, 0.0, 1.0)},
        {"slopes": (0.5, 0.25, 0.0, 1.0), "right": 0, "soft_cap": 20.0},
        {"sink_values": (0.0, 3.0, -50.0, 90.0)},
    ],
    ids=str,
)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_what_changes_scores(isa: str, options: dict[str, Any], kv_heads: int) -> None:
    check(isa, [7, 300, 1, 40], 4, kv_heads, 32, **options)


@every_tier
def test_more_queries_at_once(isa: str) -> None:
    """From 4,096 tokens on; the last of them are few."""
    check(isa, [3, 4100], 1, 1, 8, Case(5).normal(4103, 24), left=100, right=100)


@every_tier
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_relative_bias(isa: str, kv_heads: int, bidirectional: bool) -> None:
    bias, table = RelativeBias(max_distance=128, bidirectional=bidirectional), Case(3).normal(32, 4)
    check(isa, [7, 300, 1, 40], 4, kv_heads, 32, relative=bias, relative_values=table)


@every_tier
def test_keys_that_have_much_in_common_cost_nothing(isa: str) -> None:
    """A column that is large in all keys leaves only the rest to be rounded."""
    rows = Case(1).normal(700, 192)
    rows[:, 64:128] += np.linspace(-40, 40, 64, dtype=np.float32)
    found = check(isa, [400], 1, 1, 64, rows)
    assert np.isfinite(found).all()


@every_tier
@pytest.mark.parametrize("value", [0.0, 1e-6, 1e-2])
def test_a_key_that_draws_all_attention_to_a_small_value(isa: str, value: float) -> None:
    """As first tokens do in language models: the others' values are exact all the same."""
    rows = Case(2).normal(700, 96)
    rows[0, 32:64], rows[0, 64:] = 12 * np.sign(rows[:200, :32].mean(0)), value
    rows[:, :32] += 0.5 * np.sign(rows[:200, :32].mean(0))
    check(isa, [300], 1, 1, 32, rows)


@every_tier
def test_scores_that_rise_by_far(isa: str) -> None:
    rows = np.sort(np.abs(Case(5).normal(700, 96)), axis=0) * np.linspace(0.1, 40, 700, dtype=np.float32)[:, None]
    check(isa, [400, 300], 1, 1, 32, rows)


@every_tier
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_stay_in_their_segment(isa: str, number: float) -> None:
    rows = Case(7).normal(700, 96)
    rows[150, 40] = number
    found = check(isa, [140, 30, 100], 1, 1, 32, rows)
    assert np.isfinite(np.delete(found, np.s_[140:170], axis=0)).all()
    assert np.isnan(found[140:170]).all()


@every_tier
@pytest.mark.parametrize("scale", [1e-20, 1e15])
def test_magnitudes(isa: str, scale: float) -> None:
    rows = Case(8).normal(700, 96) * np.float32(scale)
    rows[:, :32] /= np.float32(max(scale, 1.0)) ** 2  # scores stay of the order of one at most
    check(isa, [200], 1, 1, 32, rows)


@every_tier
def test_zeros(isa: str) -> None:
    assert not check(isa, [200], 1, 1, 32, np.zeros((700, 96), np.float32)).any()


def with_queries(case: Case, x: Buffer, spread: float) -> list[Instruction]:
    """A layer whose queries are so much larger than normal."""
    steps = layer(case, x, 4, 4, 16, 96)
    assert isinstance(steps[1], Qkv)
    values = case.tensors["qkv"].data.copy()
    values[:64] *= np.float32(spread)
    case.known("qkv", values)
    return steps


@pytest.mark.parametrize(("spread", "bears"), [(1.0, True), (300.0, False)])
def test_samples_decide(spread: float, bears: bool) -> None:
    """Where a query looks at one key alone, rounding may make it another."""
    case = Case(9)
    x = case.rows("x", 64)
    body, samples = pooled_by_row(case.program(*with_queries(case, x, spread), outputs=[x]), batch_of([90, 60, 33]))
    executor = CpuExecutor(body, case.tensors, threads=1, weights="int8", samples=lambda: samples)
    assert executor.bears_int8_attention is bears
    used = [step.int8 for step in executor.body.instructions if isinstance(step, Attention)]
    assert used in ([False], [bears])  # as the tier likes
    assert not CpuExecutor(body, case.tensors, threads=1, weights="int8").bears_int8_attention
