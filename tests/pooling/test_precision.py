"""Output precision against sentence-transformers, bit for bit."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.util.quantization import quantize_embeddings

from longspan.errors import InputError
from longspan.pooling.precision import Precision, Ranges, check_precision, to_precision

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@given(rows=st.integers(0, 5), width=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_equals_sentence_transformers(precision: Precision, rows: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(rows, width)).astype(np.float32)
    ranges = Ranges.of(random.normal(size=(9, width)).astype(np.float32))
    expected = quantize_embeddings(vectors, precision, ranges=np.stack([ranges.low, ranges.high]))
    found = to_precision(vectors, precision, ranges)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_ends_and_constant_components() -> None:
    ranges = Ranges(np.array([-1.0, 2.0], np.float32), np.array([1.0, 2.0], np.float32))
    vectors = np.array([[-9.0, 2.0], [-1.0, 1.5], [1.1, 2.5], [9.0, np.nan]], np.float32)
    np.testing.assert_array_equal(to_precision(vectors, "uint8", ranges), [[0, 0], [0, 0], [255, 0], [255, 0]])
    np.testing.assert_array_equal(to_precision(vectors, "int8", ranges)[:, 0], [-128, -128, 127, 127])


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_needs_ranges(precision: Precision) -> None:
    with pytest.raises(InputError, match="calibrate"):
        to_precision(np.zeros((1, 3), np.float32), precision, None)


def test_calibration_refuses_what_cannot_work() -> None:
    with pytest.raises(InputError, match="at least 2"):
        Ranges.of(np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match="text 1"):
        Ranges.of(np.array([[0.0], [np.inf], [1.0]], np.float32))
    with pytest.raises(InputError, match="'int4'"):
        check_precision("int4")
