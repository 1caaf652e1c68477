"""`close_enough`: when attention over bytes is about what it was without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.executors.attention_gate import LEAST_COSINE, MEAN_COSINE, close_enough
from longspan.executors.joining import Pooled


def at_cosines(*cosines: float) -> tuple[Pooled, Pooled]:
    """Vectors of one pooling, and others at these cosines to them."""
    angles = np.arccos(np.array(cosines))
    one = np.tile(np.array([1.0, 0.0], np.float32), (len(cosines), 1))
    other = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return (one,), (other,)


@given(st.floats(1e-6, 1e6))
def test_the_same_directions_at_any_length_are_close(length: float) -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    assert close_enough((vectors,), (vectors * np.float32(length),))


def test_the_mean_decides() -> None:
    below, above = MEAN_COSINE - 1e-4, MEAN_COSINE + 1e-4
    assert close_enough(*at_cosines(above, above, above))
    assert not close_enough(*at_cosines(below, below, below))


def test_so_does_the_worst_vector_among_many_good_ones() -> None:
    good = [1.0] * 99
    assert close_enough(*at_cosines(*good, LEAST_COSINE + 1e-4))
    assert not close_enough(*at_cosines(*good, LEAST_COSINE - 1e-4))


def test_every_pooling_counts() -> None:
    (fine,), (near,) = at_cosines(1.0, 1.0)
    (start,), (far,) = at_cosines(0.9, 0.9)
    assert not close_enough((fine, start), (near, far))
    assert not close_enough((start, fine), (far, near))


@pytest.mark.parametrize("odd", [np.nan, np.inf, 0.0])
def test_vectors_without_a_direction_are_not_close(odd: float) -> None:
    (one,), (other,) = at_cosines(1.0, 1.0)
    other[1] = odd
    with np.errstate(invalid="ignore"):
        assert not close_enough((one,), (other,))


def test_no_vectors_are_no_reason_against_it() -> None:
    nothing = np.zeros((0, 4), np.float32)
    assert close_enough((nothing,), (nothing,))
