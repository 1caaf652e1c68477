"""Bits do not depend on how the host program has the processor round, and it finds that as it was."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from longspan import _csrc
from longspan.executors.cpu import CpuExecutor
from longspan.pooling.precision import Ranges
from longspan.weights import Format

from ..ops.harness import Case, batch_of, every_format, pooled_by_row
from ..ops.test_formats import layer

MODES = {"x86_64": (0x400, 0x800, 0xC00), "aarch64": (0x800000, 0x400000, 0xC00000)}.get(platform.machine(), ())
"""Downward, upward and toward zero, as fenv.h numbers them; upward and downward may be the other way round."""

pytestmark = pytest.mark.skipif(not MODES, reason="this machine's modes are unknown")


@contextmanager
def rounding(mode: int) -> Iterator[None]:
    """The calling thread rounds so."""
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    before = library.fegetround()
    assert library.fesetround(mode) == 0
    try:
        yield
        assert library.fegetround() == mode
    finally:
        library.fesetround(before)


def bytes_of(executor: CpuExecutor) -> list[bytes | None]:
    """Of all that its matrices are packed as."""
    parts = (part for _, matrices in executor.panels() for matrix in matrices for part in matrix)
    return [None if part is None else part.tobytes() for part in parts]


@pytest.mark.parametrize("mode", MODES)
@every_format
def test_weights_and_vectors(weights: Format, mode: int) -> None:
    case = Case(1)
    x = case.rows("x", 64)
    program = case.program(*layer(case, x, 4, 2, 16, 96), outputs=[x])
    body, batch = pooled_by_row(program, batch_of([90, 60]))

    def make() -> CpuExecutor:
        return CpuExecutor(body, case.tensors, threads=1, weights=weights, samples=lambda: batch)

    plain = make()
    (expected,) = plain.run_body(batch)
    with rounding(mode):
        turned = make()
        (found,) = turned.run_body(batch)
    assert bytes_of(turned) == bytes_of(plain)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_bytes_and_scores(mode: int) -> None:
    vectors = Case(2).normal(200, 64)
    ranges = Ranges.of(vectors[:50])
    step = (ranges.high - ranges.low) / np.float32(255)
    codes = _csrc.quantize(vectors, "int8", ranges.low, step, "")
    scores = _csrc.scores(vectors, vectors, "cosine", 1, "")
    with rounding(mode):
        turned = _csrc.quantize(vectors, "int8", ranges.low, step, "")
        again = _csrc.scores(vectors, vectors, "cosine", 1, "")
    assert turned.tobytes() == codes.tobytes()
    assert again.tobytes() == scores.tobytes()
