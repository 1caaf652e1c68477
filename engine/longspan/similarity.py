"""Scores between vectors, with sentence-transformers' names and signs: larger is closer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _csrc
from .batch import Float32
from .checkpoint.recipe import SimilarityName
from .errors import InputError
from .executors.threads import default_threads
from .executors.tiers import wanted_tier
from .pooling.precision import Ranges, Vectors

_ALONE = 1 << 23  # multiply-adds that one thread does sooner than several are found and woken


def plain(values: Any) -> Any:
    """What numpy reads: tensors of torch without their graph and their device; bfloat16, which numpy lacks, widened."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        return values.float() if str(values.dtype) == "torch.bfloat16" else values
    return values


def as_rows(values: Any, name: str, dtype: type[np.float32] | None = None) -> Vectors:
    """[n, d], in the numbers' own type or in another; a single vector counts as one row. Torch tensors are taken too.

    Raises:
        InputError: they are no matrix.
    """
    try:
        array = np.asarray(plain(values), dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be read as vectors of one length: {error}") from error
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        raise InputError(f"{name} has {array.ndim} dimensions, expected vectors as rows: [n, d]")
    return array


def as_matrix(values: Any, name: str) -> Float32:
    """The same as float32, of one component at least.

    Raises:
        InputError: they are no matrix of numbers.
    """
    array = as_rows(values, name, np.float32)
    if not array.shape[1]:
        raise InputError(f"{name} has vectors without components")
    return array


def similarity(a: Any, b: Any, name: SimilarityName) -> Float32:
    """Scores of every row of `a` [n, d] with every row of `b` [m, d]: [n, m] float32."""
    left, right = as_matrix(a, "a"), as_matrix(b, "b")
    if left.shape[1] != right.shape[1]:
        raise InputError(f"a has {left.shape[1]} dimensions and b has {right.shape[1]}")
    return scores(left, right, name)


def scores(
    queries: Float32, vectors: Vectors, name: SimilarityName, ranges: Ranges | None = None, threads: int | None = None
) -> Float32:
    """Scores of queries [q, d] with vectors [n, d]: [q, n] float32. A score's bits depend on its two vectors alone.

    Args:
        queries: float32.
        vectors: float32; or int8 or uint8 codes, of which `ranges` says what they stand for.
        name: what is computed.
        ranges: of the codes.
        threads: by default one per physical core, and one where there is little to do.
    """
    if threads is None:
        threads = default_threads() if queries.size * len(vectors) > _ALONE else 1
    if ranges is None:
        return _csrc.scores(queries, vectors, name, threads, wanted_tier())
    codes, signed = vectors.view(np.uint8), vectors.dtype == np.int8
    return _csrc.scores_of_codes(queries, codes, signed, ranges.low, ranges.step, name, threads, wanted_tier())


def _unit(x: Float32) -> Float32:
    unit: Float32 = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))
    return unit


_ROW_PAIRS: Mapping[SimilarityName, Callable[[Float32, Float32], npt.NDArray[Any]]] = {
    "cosine": lambda a, b: (_unit(a) * _unit(b)).sum(-1),
    "dot": lambda a, b: (a * b).sum(-1),
    "euclidean": lambda a, b: -np.sqrt(np.square(a - b).sum(-1)),
    "manhattan": lambda a, b: -np.abs(a - b).sum(-1),
}


def similarity_pairwise(a: Any, b: Any, name: SimilarityName) -> Float32:
    """Scores of row i of `a` [n, d] with row i of `b` [n, d]: [n] float32."""
    left, right = as_matrix(a, "a"), as_matrix(b, "b")
    if left.shape != right.shape:
        raise InputError(f"a has the shape {list(left.shape)} and b {list(right.shape)}; pairs need the same")
    return _ROW_PAIRS[name](left, right).astype(np.float32, copy=False)
