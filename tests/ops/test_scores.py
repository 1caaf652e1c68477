"""Scores and differing bits in C++: every tier, against float64, and bits that depend on the two vectors alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import _csrc
from longspan.checkpoint.recipe import SIMILARITIES, SimilarityName

from .harness import SLACK, every_tier

every_name = pytest.mark.parametrize("name", SIMILARITIES)
WIDTHS = (1, 3, 4, 7, 8, 9, 15, 16, 17, 40, 255, 384, 1024, 4096)


def vectors(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def scores(queries: Any, rows: Any, name: SimilarityName, dtype: torch.dtype) -> Any:
    """The definition, in torch."""
    q, x = torch.tensor(queries).to(dtype), torch.tensor(rows).to(dtype)
    if name in ("cosine", "dot"):
        if name == "cosine":
            q, x = (torch.nn.functional.normalize(item, eps=1e-12) for item in (q, x))
        return (q @ x.T).double().numpy()
    gaps = (q[:, None] - x[None]).abs()
    return -(gaps.sum(-1) if name == "manhattan" else gaps.square().sum(-1).sqrt()).double().numpy()


@every_tier
@every_name
def test_error_is_at_most_twice_torchs(isa: str, name: SimilarityName) -> None:
    for width in WIDTHS:
        queries, rows = vectors(5, width), vectors(37, width, seed=1)
        exact = scores(queries, rows, name, torch.float64)
        allowed = 2 * np.abs(scores(queries, rows, name, torch.float32) - exact).max() + SLACK * np.abs(exact).max()
        found = _csrc.scores(queries, rows, name, 2, isa)
        assert np.abs(found - exact).max() <= allowed, width


@every_tier
@every_name
@given(queries=st.integers(1, 8), rows=st.integers(1, 200), width=st.integers(1, 70), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_bits_depend_on_the_two_vectors_alone(
    isa: str, name: SimilarityName, queries: int, rows: int, width: int, seed: int
) -> None:
    q, x = vectors(queries, width, seed=seed), vectors(rows, width, seed=seed + 1)
    x[-1] = x[0]
    together = _csrc.scores(q, x, name, 2, isa)
    assert together.shape == (queries, rows)
    assert (together[:, -1] == together[:, 0]).all()
    for i in (0, queries - 1):
        for j in (0, rows // 2):
            assert _csrc.scores(q[i : i + 1], x[j : j + 1], name, 1, isa)[0, 0] == together[i, j]


@every_tier
@every_name
@pytest.mark.parametrize("signed", [False, True])
def test_codes_are_the_floats_that_they_stand_for(isa: str, name: SimilarityName, signed: bool) -> None:
    random = np.random.default_rng(3)
    for rows, width in ((1, 1), (5, 9), (100, 384), (3, 4000)):
        levels = random.integers(0, 256, (rows, width), np.uint8)
        low, step = vectors(width), np.abs(vectors(width, seed=1)) / 100
        codes = levels ^ np.uint8(0x80 if signed else 0)
        floats = low + levels.astype(np.float32) * step
        queries = vectors(4, width, seed=2)
        found = _csrc.scores_of_codes(queries, codes, signed, low, step, name, 2, isa)
        np.testing.assert_array_equal(found, _csrc.scores(queries, floats, name, 2, isa))


@every_tier
@given(queries=st.integers(0, 4), rows=st.integers(0, 40), width=st.integers(1, 40), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_hamming(isa: str, queries: int, rows: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    q, x = (random.integers(0, 256, (count, width), np.uint8) for count in (queries, rows))
    expected = -np.unpackbits(q[:, None] ^ x[None], axis=2).sum(2, dtype=np.float32)
    np.testing.assert_array_equal(_csrc.hamming(q, x, 2, isa), expected)


def test_many_rows_of_bits_on_several_threads() -> None:
    random = np.random.default_rng(0)
    q, x = random.integers(0, 256, (2, 48), np.uint8), random.integers(0, 256, (20_000, 48), np.uint8)
    expected = -np.unpackbits(q[:, None] ^ x[None], axis=2).sum(2, dtype=np.float32)
    np.testing.assert_array_equal(_csrc.hamming(q, x, 2, ""), expected)


@every_name
def test_odd_values(name: SimilarityName) -> None:
    rows = np.array([[0, 0], [np.nan, 1], [np.inf, 0], [3, 4]], np.float32)
    found = _csrc.scores(np.array([[0, 1]], np.float32), rows, name, 1, "")[0]
    assert np.isnan(found[1])
    expected = {"cosine": (0, 0.8), "dot": (0, 4), "euclidean": (-1, -np.sqrt(18)), "manhattan": (-1, -6)}[name]
    np.testing.assert_allclose(found[[0, 3]], expected, rtol=1e-6)


def test_what_does_not_fit() -> None:
    good, low = np.zeros((2, 8), np.float32), np.zeros(8, np.float32)
    codes = np.zeros((2, 8), np.uint8)
    for wrong, message in ((good[:, :7], "width"), (good[0], "matrices"), (good[:, :0], "width")):
        with pytest.raises(ValueError, match=message):
            _csrc.scores(good, wrong, "dot", 1, "")
    with pytest.raises(ValueError, match="components"):
        _csrc.scores(good[:, :0], good[:, :0], "dot", 1, "")
    with pytest.raises(ValueError, match="closeness"):
        _csrc.scores(good, good, "closeness", 1, "")
    with pytest.raises(ValueError, match="threads"):
        _csrc.scores(good, good, "dot", 0, "")
    with pytest.raises(ValueError, match="v9"):
        _csrc.scores(good, good, "dot", 1, "v9")
    with pytest.raises(ValueError, match="ranges"):
        _csrc.scores_of_codes(good, codes, True, low[:7], low, "dot", 1, "")
    with pytest.raises(ValueError, match="width"):
        _csrc.hamming(codes, codes[:, :7], 1, "")
