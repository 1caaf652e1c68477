"""Runs one instruction in the C++ executor and judges it by the reference in float64.

A body starts from token ids, so arbitrary rows get in through `embed` (each buffer has its own random table, token t
has id t) and come out through `pool` (a one-row partial of weight 1 is the row itself, exactly).
"""

from __future__ import annotations

import importlib
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch

from longspan.batch import Float32, PackedBatch, Partials
from longspan.checkpoint.tensor_view import TensorView
from longspan.executors.meanings import widened
from longspan.executors.reference import execute, load_weights, without_tokens
from longspan.program.instructions import Embed, Instruction, Pool
from longspan.program.operands import Buffer, LowRank, Rows, Weight
from longspan.program.program import Program
from longspan.weights import Format

Array = npt.NDArray[Any]
Schedule = Literal["auto", "packs", "shared"]

SCHEDULES: tuple[Schedule, ...] = ("packs", "shared")
THREADS = (1, 2)
ROWS = 700
"""Rows of the random tables: the most tokens that a test may use."""

TILE_EDGES = (0, 1, 2, 5, 6, 7, 12, 13, 47, 48, 49, 95, 96, 97, 200)
"""Numbers of tokens around the edges of the kernels' tiles."""

SLACK = 4 * float(np.finfo(np.float32).eps)
"""What an error may exceed its limit by, relative to the largest output: torch is sometimes exact by luck."""


class CpuExecutor(Protocol):
    """What the tests use of `longspan.executors.cpu.CpuExecutor`."""

    def run_body(
        self, batch: PackedBatch, schedule: Schedule = "auto", pack_tokens: int | None = None
    ) -> tuple[Float32, ...]: ...

    def run_tail(
        self,
        tail: Program,
        tensors: dict[str, TensorView],
        partials: tuple[Float32, ...],
        batch_partials: tuple[Partials, ...],
    ) -> Float32: ...


every_format = pytest.mark.parametrize("weights", get_args(Format))
"""Runs a test once per format of packed weights, as its argument `weights`."""


def cpu_executor(
    body: Program, tensors: dict[str, TensorView], *, threads: int, isa: str, weights: Format = "float32"
) -> CpuExecutor:
    """The C++ executor, which may not be built."""
    executor: CpuExecutor = importlib.import_module("longspan.executors.cpu").CpuExecutor(
        body, tensors, threads=threads, isa=isa, weights=weights
    )
    return executor


def tiers() -> list[str]:
    """The instruction tiers that this machine can run, none if the C++ executor is not built."""
    try:
        importlib.import_module("longspan.executors.cpu")
        return list(importlib.import_module("longspan._csrc").tiers())
    except ModuleNotFoundError:
        return []


every_tier = pytest.mark.parametrize(
    "isa",
    tiers() or [pytest.param("none", marks=pytest.mark.skip(reason="the C++ executor is not built"))],
)
"""Runs a test once per tier, as its argument `isa`."""


def view(name: str, values: Array, dtype: str = "F32") -> TensorView:
    """Values as a checkpoint tensor of the given dtype, in memory."""
    if dtype == "BF16":
        data = torch.tensor(values, dtype=torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    else:
        data = values.astype({"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype])
    # Shared memory keeps its contents when pages are given back, as a file does.
    memory = mmap.mmap(-1, max(1, data.nbytes))
    memory[: data.nbytes] = data.tobytes()
    mapped = np.frombuffer(memory, data.dtype, data.size).reshape(data.shape)
    mapped.flags.writeable = False
    return TensorView(name, dtype, data.shape, mapped, Path("memory"), memory, 0)


def floats(*shape: int) -> list[tuple[Array, str]]:
    """Ones as the parts of a weight that `_csrc` takes."""
    return [(np.ones(shape, np.float32), "F32")]


def tokens_buffer(name: str, width: int) -> Buffer:
    """A buffer [T, width]."""
    return Buffer(name, Rows.TOKENS, width)


class Case:
    """Random weights and random input rows for the instructions of one test."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, TensorView] = {}
        self._embeds: list[Embed] = []

    def normal(self, *shape: int) -> Float32:
        """Standard normal numbers."""
        return self.rng.standard_normal(shape, dtype=np.float32)

    def weight(self, name: str, *shape: int, dtype: str = "F32") -> Weight:
        """A random weight, scaled so that products with it keep the scale of their input."""
        return self.known(name, self.normal(*shape) * shape[-1] ** (-0.5 if len(shape) > 1 else 0.0), dtype)

    def known(self, name: str, values: Array, dtype: str = "F32") -> Weight:
        """A weight with the given values."""
        self.tensors[name] = view(name, values, dtype)
        return Weight((name,), values.shape)

    def low_rank(self, name: str, outer: int, inner: int, rank: int = 4, tasks: int = 3, dtype: str = "F32") -> LowRank:
        """Random pairs for a weight [outer, inner], which change it as much as it is large."""
        left = self.weight(f"{name}.left", tasks * outer, rank, dtype=dtype)
        right = self.weight(f"{name}.right", tasks * rank, inner, dtype=dtype)
        return LowRank(left=left, right=right, tasks=tasks, scale=0.7)

    def stacked(self, name: str, *shapes: tuple[int, ...]) -> Weight:
        """Several random weights stacked along the first axis."""
        parts = [self.weight(f"{name}.{index}", *shape) for index, shape in enumerate(shapes)]
        rows = sum(shape[0] for shape in shapes)
        return Weight(tuple(part.names[0] for part in parts), (rows, *shapes[0][1:]))

    def rows(self, name: str, width: int, scale: float = 1.0, values: Float32 | None = None) -> Buffer:
        """A buffer [T, width] that holds random rows, or the given ones, when the instruction starts."""
        table = self.known(f"{name}.rows", self.normal(ROWS, width) * scale if values is None else values)
        buffer = tokens_buffer(name, width)
        self._embeds.append(Embed(stage=0, out=buffer, tokens=table))
        return buffer

    def program(self, *instructions: Instruction, outputs: Sequence[Buffer]) -> Program:
        """The inputs' `embed`s, then the instructions, whose token buffers `outputs` are the results."""
        staged = tuple(replace(instruction, stage=1) for instruction in instructions)
        return Program("test", (*self._embeds, *staged), outputs=tuple(outputs))

    def check(
        self,
        *instructions: Instruction,
        outputs: Sequence[Buffer],
        batches: Sequence[PackedBatch],
        isa: str,
        weights: Format = "float32",
    ) -> None:
        """Assert that the C++ executor computes every row of `outputs` as well as torch does in that dtype."""
        check_rows(self.program(*instructions, outputs=outputs), self.tensors, batches, isa, weights)


def token_partials(tokens: int) -> Partials:
    """One partial per token, of weight 1, and one vector for each."""
    rows = np.arange(tokens + 1, dtype=np.int64)
    return Partials(rows[:-1], rows[1:], np.ones(tokens, np.float32), np.zeros(tokens, np.float32), rows)


def batch_of(
    segments: Sequence[int], ids: Sequence[int] | Array | None = None, partials: Sequence[Partials] | None = None
) -> PackedBatch:
    """Segments of the given lengths; token t has id t, and one partial per token is pooled, unless told otherwise."""
    tokens = sum(segments)
    return PackedBatch(
        ids=np.asarray(np.arange(tokens) if ids is None else ids, dtype=np.int32),
        positions=np.concatenate([np.zeros(0, np.int32), *(np.arange(n, dtype=np.int32) for n in segments)]),
        cu_seqlens=np.cumsum([0, *segments], dtype=np.int64),
        partials=(token_partials(tokens),) if partials is None else tuple(partials),
    )


def batches_of(*token_counts: int) -> list[PackedBatch]:
    """One batch per number of tokens, each of one segment."""
    return [batch_of([tokens]) for tokens in token_counts]


def pooled_by_row(program: Program, batch: PackedBatch) -> tuple[Program, PackedBatch]:
    """The program and the batch, with a `pool` for each output that returns its rows as they are."""
    pools = [
        Pool(stage=2, x=buffer, out=Buffer(f"pooled{i}", Rows.PARTIALS, buffer.width), kind="sum", index=i)
        for i, buffer in enumerate(program.outputs)
    ]
    body = Program(program.name, (*program.instructions, *pools), outputs=tuple(pool.out for pool in pools))
    return body, replace(batch, partials=(token_partials(batch.tokens),) * len(pools))


def check_rows(
    program: Program,
    tensors: dict[str, TensorView],
    batches: Sequence[PackedBatch],
    isa: str,
    weights: Format = "float32",
) -> None:
    """Assert that the C++ executor computes every row of the program's token outputs as well as torch in that dtype."""
    body, _ = pooled_by_row(program, batches[0])
    executors = executors_of(body, tensors, isa, weights)
    dtypes = (torch.float64, getattr(torch, weights))
    for batch in batches:
        exact, peer = (run_reference(program, tensors, batch, dtype) for dtype in dtypes)
        judge(run_cpu(executors, pooled_by_row(program, batch)[1]), exact, peer, f"{isa}, {weights}, {describe(batch)}")


def check_body(body: Program, tensors: dict[str, TensorView], batches: Sequence[PackedBatch], isa: str) -> None:
    """The same for a whole body, with its own `pool`s and the batches' own partials."""
    executors = executors_of(body, tensors, isa)
    for batch in batches:
        exact, torch32 = (run_reference(body, tensors, batch, dtype) for dtype in (torch.float64, torch.float32))
        judge(run_cpu(executors, batch), exact, torch32, f"{isa}, {describe(batch)}")


def check_tail(
    tail: Program, tensors: dict[str, TensorView], inputs: Sequence[Float32], partials: Sequence[Partials], isa: str
) -> Float32:
    """Assert that the C++ executor runs a tail as well as torch in float32, and return its vectors."""
    exact, torch32 = (
        run_reference(tail, tensors, without_tokens(tuple(partials)), dtype, inputs)
        for dtype in (torch.float64, torch.float32)
    )
    results = ((threads, (vectors,)) for threads, vectors in run_tails(tail, tensors, inputs, partials, isa))
    return judge(results, exact, torch32, isa)[0]


def run_tails(
    tail: Program, tensors: dict[str, TensorView], inputs: Sequence[Float32], partials: Sequence[Partials], isa: str
) -> Iterator[tuple[str, Float32]]:
    """A tail's vectors by the C++ executor, for every number of threads, described."""
    case = Case()
    body, _ = pooled_by_row(case.program(outputs=[case.rows("x", 8)]), batch_of([1]))
    for threads, executor in executors_of(body, case.tensors, isa).items():
        yield f"{threads} threads", executor.run_tail(tail, tensors, tuple(inputs), tuple(partials))


def describe(batch: PackedBatch) -> str:
    """The segments' lengths, for messages."""
    return f"segments {np.diff(batch.cu_seqlens).tolist()}"


def executors_of(
    body: Program, tensors: dict[str, TensorView], isa: str, weights: Format = "float32"
) -> dict[int, CpuExecutor]:
    """A C++ executor for each number of threads."""
    return {threads: cpu_executor(body, tensors, threads=threads, isa=isa, weights=weights) for threads in THREADS}


def run_cpu(executors: dict[int, CpuExecutor], batch: PackedBatch) -> Iterator[tuple[str, tuple[Float32, ...]]]:
    """The results of every number of threads and schedule, described."""
    for threads, executor in executors.items():
        for schedule in SCHEDULES:
            yield f"{threads} threads, {schedule}", executor.run_body(batch, schedule=schedule)


def run_reference(
    program: Program,
    tensors: dict[str, TensorView],
    batch: PackedBatch,
    dtype: torch.dtype,
    inputs: Sequence[Float32] = (),
) -> list[Array]:
    """The program's outputs in the given dtype."""
    given = {
        buffer.name: torch.tensor(array, dtype=dtype) for buffer, array in zip(program.inputs, inputs, strict=True)
    }
    buffers = execute(program, given, load_weights(program, tensors, dtype=dtype), batch)
    return [widened(buffers[buffer.name]).numpy() for buffer in program.outputs]


def judge(
    results: Iterator[tuple[str, tuple[Float32, ...]]], exact: Sequence[Array], torch32: Sequence[Array], label: str
) -> tuple[Float32, ...]:
    """Assert that the first result errs at most twice as much as torch, and that all have the same bits."""
    how, first = next(results)
    assert len(first) == len(exact), f"{label}, {how}: {len(first)} outputs, expected {len(exact)}"
    for result, truth, peer in zip(first, exact, torch32, strict=True):
        assert result.dtype == np.float32
        assert result.shape == truth.shape, f"{label}, {how}: shape {result.shape}, expected {truth.shape}"
        if truth.size:
            error, allowed = np.abs(result - truth).max(), 2 * np.abs(peer - truth).max() + SLACK * np.abs(truth).max()
            assert error <= allowed, f"{label}, {how}: error {error:.3g}, allowed {allowed:.3g}"
    for other_way, others in results:
        assert_same_bits(others, first, f"{label}: {other_way} against {how}")
    return first


def assert_same_bits(left: Sequence[Float32], right: Sequence[Float32], label: str) -> None:
    """Assert that two lists of arrays hold the same bits; NaNs count by their bits too."""
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape, f"{label}: shapes {a.shape} and {b.shape}"
        same = np.ascontiguousarray(a).view(np.uint32) == np.ascontiguousarray(b).view(np.uint32)
        assert same.all(), f"{label}: {np.count_nonzero(~same)} of {same.size} elements differ in their bits"
