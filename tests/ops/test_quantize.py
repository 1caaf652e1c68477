"""Vectors as bytes and bits, on every tier: exactly what the definition says, of all float32 numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longspan import _csrc

from .harness import every_tier

NONE = np.zeros(0, np.float32)
EDGES = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 3e38, -3e38, np.inf, -np.inf, np.nan]

numbers = st.one_of(st.floats(width=32), st.floats(-1.5, 1.5, width=32), st.sampled_from(EDGES))


@st.composite
def matrices(draw: st.DrawFn) -> Any:
    """Some rows of any numbers, most of them copies of a few."""
    rows, width, seed = draw(st.integers(0, 4)), draw(st.integers(1, 70)), draw(st.integers(0, 99))
    some = np.array(draw(st.lists(numbers, min_size=1, max_size=12)), np.float32)
    return np.random.default_rng(seed).choice(some, (rows, width))


def ranges(width: int) -> tuple[Any, Any]:
    """The least and the step of each component, of several sizes."""
    random = np.random.default_rng(width)
    steps = np.array([1e-6, 2 / 255, 1, 1e20], np.float32)
    return random.standard_normal(width, dtype=np.float32), random.choice(steps, width)


@every_tier
@pytest.mark.parametrize(("precision", "offset"), [("uint8", 0), ("int8", 128)])
@given(vectors=matrices())
@example(vectors=np.tile(np.array(EDGES, np.float32), (2, 6)))
@settings(max_examples=40, deadline=None)
def test_bytes(isa: str, precision: str, offset: int, vectors: Any) -> None:
    low, step = ranges(vectors.shape[1])
    with np.errstate(all="ignore"):
        levels = np.floor((vectors - low) / step)
    expected = np.clip(np.nan_to_num(levels, nan=0.0), 0, 255).astype(np.int64) - offset
    found = _csrc.quantize(vectors, precision, low, step, isa)
    np.testing.assert_array_equal(found, expected.astype(np.uint8))


@every_tier
@pytest.mark.parametrize(("precision", "offset"), [("ubinary", 0), ("binary", 128)])
@given(vectors=matrices())
@example(vectors=np.tile(np.array(EDGES, np.float32), (2, 6)))
@settings(max_examples=40, deadline=None)
def test_bits(isa: str, precision: str, offset: int, vectors: Any) -> None:
    expected = np.packbits(vectors > 0, axis=1).astype(np.int64) - offset
    found = _csrc.quantize(vectors, precision, NONE, NONE, isa)
    np.testing.assert_array_equal(found, expected.astype(np.uint8))


def test_refusals() -> None:
    vectors = np.zeros((2, 3), np.float32)
    for given_vectors, precision, size, isa, message in (
        (vectors[0], "int8", 3, "", "matrix"),
        (vectors, "int4", 3, "", "'int4'"),
        (vectors, "uint8", 2, "", "dimension"),
        (vectors, "int8", 3, "v9", "'v9'"),
    ):
        with pytest.raises(ValueError, match=message):
            _csrc.quantize(given_vectors, precision, np.ones(size, np.float32), np.ones(size, np.float32), isa)
