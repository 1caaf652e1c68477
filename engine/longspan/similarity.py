"""Scores between vectors, with sentence-transformers' names and signs: larger is closer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .batch import Float32
from .checkpoint.recipe import SimilarityName
from .errors import InputError

_CELLS = 1 << 22  # numbers that the distances hold at a time


def _matrix(values: Any, name: str) -> Float32:
    """[n, d]; a single vector counts as one row. Torch tensors on the CPU are taken as they are."""
    array = np.asarray(values, dtype=np.float32)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        raise InputError(f"{name} has {array.ndim} dimensions, expected vectors as rows: [n, d]")
    return array


def _unit(x: Float32) -> Float32:
    unit: Float32 = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))
    return unit


def _distances(a: Float32, b: Float32, power: int) -> Float32:
    result = np.empty((len(a), len(b)), np.float32)
    step = max(1, _CELLS // max(1, b.size))
    columns = max(1, _CELLS // max(1, a.shape[1]))
    for row in range(0, len(a), step):
        for column in range(0, len(b), columns):
            gap = np.abs(a[row : row + step, None] - b[None, column : column + columns])
            cells = gap.sum(-1) if power == 1 else np.sqrt((gap * gap).sum(-1))
            result[row : row + step, column : column + columns] = cells
    return result


_ALL_PAIRS: Mapping[SimilarityName, Callable[[Float32, Float32], npt.NDArray[Any]]] = {
    "cosine": lambda a, b: _unit(a) @ _unit(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -_distances(a, b, 2),
    "manhattan": lambda a, b: -_distances(a, b, 1),
}
_ROW_PAIRS: Mapping[SimilarityName, Callable[[Float32, Float32], npt.NDArray[Any]]] = {
    "cosine": lambda a, b: (_unit(a) * _unit(b)).sum(-1),
    "dot": lambda a, b: (a * b).sum(-1),
    "euclidean": lambda a, b: -np.sqrt(np.square(a - b).sum(-1)),
    "manhattan": lambda a, b: -np.abs(a - b).sum(-1),
}


def similarity(a: Any, b: Any, name: SimilarityName) -> Float32:
    """Scores of every row of `a` [n, d] with every row of `b` [m, d]: [n, m] float32."""
    left, right = _matrix(a, "a"), _matrix(b, "b")
    if left.shape[1] != right.shape[1]:
        raise InputError(f"a has {left.shape[1]} dimensions and b has {right.shape[1]}")
    return _ALL_PAIRS[name](left, right).astype(np.float32, copy=False)


def similarity_pairwise(a: Any, b: Any, name: SimilarityName) -> Float32:
    """Scores of row i of `a` [n, d] with row i of `b` [n, d]: [n] float32."""
    left, right = _matrix(a, "a"), _matrix(b, "b")
    if left.shape != right.shape:
        raise InputError(f"a has the shape {list(left.shape)} and b {list(right.shape)}; pairs need the same")
    return _ROW_PAIRS[name](left, right).astype(np.float32, copy=False)
