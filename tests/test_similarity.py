"""Scores, beside sentence-transformers' functions of the same names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import util

from longspan.checkpoint.recipe import SIMILARITIES, SimilarityName
from longspan.errors import InputError
from longspan.search import semantic_search
from longspan.similarity import similarity, similarity_pairwise

ALL_PAIRS: dict[SimilarityName, Any] = {
    "cosine": util.cos_sim,
    "dot": util.dot_score,
    "euclidean": util.euclidean_sim,
    "manhattan": util.manhattan_sim,
}
ROW_PAIRS: dict[SimilarityName, Any] = {
    "cosine": util.pairwise_cos_sim,
    "dot": util.pairwise_dot_score,
    "euclidean": util.pairwise_euclidean_sim,
    "manhattan": util.pairwise_manhattan_sim,
}
every_name = pytest.mark.parametrize("name", SIMILARITIES)


def vectors(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_names() -> None:
    assert set(SIMILARITIES) == set(ALL_PAIRS)


@every_name
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (3, 5, 7), (255, 2, 8), (257, 300, 16), (600, 1, 384)])
def test_all_pairs(name: SimilarityName, n: int, m: int, d: int) -> None:
    a, b = vectors(n, d), vectors(m, d, seed=1)
    ours, theirs = similarity(a, b, name), ALL_PAIRS[name](a, b).numpy()
    assert ours.shape == (n, m)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@every_name
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 7), (300, 384)])
def test_row_pairs(name: SimilarityName, n: int, d: int) -> None:
    a, b = vectors(n, d), vectors(n, d, seed=1)
    ours, theirs = similarity_pairwise(a, b, name), ROW_PAIRS[name](torch.tensor(a), torch.tensor(b)).numpy()
    assert ours.shape == (n,)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-4)  # theirs adds 1e-6 to the differences
    np.testing.assert_allclose(ours, np.diag(similarity(a, b, name)), rtol=1e-4, atol=1e-4)


@every_name
def test_larger_is_closer(name: SimilarityName) -> None:
    query = vectors(1, 16)
    near, far = query + 0.1 * vectors(1, 16, seed=2), -query
    scores = similarity(query, np.concatenate([far, near]), name)[0]
    assert scores[1] > scores[0]
    np.testing.assert_allclose(
        similarity(query, query, name), ALL_PAIRS[name](query, query).numpy(), rtol=1e-5, atol=1e-5
    )


@every_name
def test_what_counts_as_vectors(name: SimilarityName) -> None:
    a, b = vectors(3, 8), vectors(4, 8, seed=1)
    expected = similarity(a, b, name)
    np.testing.assert_array_equal(similarity(a.tolist(), torch.tensor(b), name), expected)
    np.testing.assert_array_equal(similarity([torch.tensor(row) for row in a], list(b), name), expected)
    np.testing.assert_allclose(similarity(a.astype(np.float64), b, name), expected, rtol=1e-6)
    assert similarity(a[0], b, name).shape == (1, 4)
    assert similarity(a[0], b[0], name).shape == (1, 1)
    assert similarity_pairwise(a[0], b[0], name).shape == (1,)
    assert similarity(a[:0], b, name).shape == (0, 4)
    assert similarity(a, b[:0], name).shape == (3, 0)
    assert similarity_pairwise(a[:0], b[:0], name).shape == (0,)


def test_zero_vectors_score_zero() -> None:
    zero = np.zeros((2, 4), np.float32)
    assert similarity(zero, vectors(3, 4), "cosine").tolist() == [[0.0] * 3] * 2
    assert similarity_pairwise(zero, zero, "cosine").tolist() == [0.0, 0.0]


@every_name
def test_wrong_shapes(name: SimilarityName) -> None:
    with pytest.raises(InputError, match="a has 4 dimensions and b has 5"):
        similarity(vectors(2, 4), vectors(2, 5), name)
    with pytest.raises(InputError, match="b has 3 dimensions, expected vectors as rows"):
        similarity(vectors(2, 4), vectors(2, 2, 4), name)
    with pytest.raises(InputError, match=r"a has the shape \[2, 4\] and b \[3, 4\]; pairs need the same"):
        similarity_pairwise(vectors(2, 4), vectors(3, 4), name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_torch(dtype: torch.dtype) -> None:
    a = torch.tensor(vectors(3, 8), requires_grad=True).to(dtype)
    same = a.detach().float().numpy()
    np.testing.assert_array_equal(similarity(a, a, "dot"), similarity(same, same, "dot"))
    assert semantic_search(a, a, 1, similarity_fn_name="euclidean").indices.tolist() == [[0], [1], [2]]
