"""Exact search: the vectors of a corpus that are closest to each query, in bounded memory and in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _csrc
from .batch import Float32, Int64
from .checkpoint.recipe import SIMILARITIES, SimilarityName
from .checks import is_count, one_of
from .errors import InputError
from .executors.threads import default_threads
from .executors.tiers import wanted_tier
from .pooling.precision import Precision, Ranges, Vectors, check_precision, to_precision, unpacked_bits
from .similarity import as_matrix, as_rows, scores

_QUERIES = 128  # queries that are compared with a block of the corpus at a time
_CELLS = 1 << 22  # scores that are held at a time
_NUMBERS = 1 << 24  # numbers of the corpus that are held at a time

Score = Callable[[Vectors, Vectors], Float32]
"""Scores [q, n] of queries with a block of the corpus."""


class Hits(NamedTuple):
    """The best of a corpus for each query, best first.

    Attributes:
        scores: [q, k] float32, larger is closer; distances are negative.
        indices: [q, k] int64, rows of the corpus.
    """

    scores: Float32
    indices: Int64


def semantic_search(
    query_embeddings: Any,
    corpus_embeddings: Any,
    top_k: int = 10,
    *,
    similarity_fn_name: SimilarityName = "cosine",
    corpus_precision: Precision = "float32",
    ranges: Ranges | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 4,
    rescore_embeddings: Any = None,
    threads: int | None = None,
) -> Hits:
    """The `top_k` vectors of a corpus that are closest to each query, by comparing all of them.

    The corpus may be a `numpy.memmap` larger than memory: it is read once, in blocks. Equal scores are ordered by
    index, and a score that is NaN comes behind every number. A score's bits depend on its two vectors alone.

    Args:
        query_embeddings: floats [q, d]; a single vector counts as one row.
        corpus_embeddings: floats [n, d], int8 or uint8 codes [n, d], or packed bits [n, ceil(d / 8)], as `encode`
            returns them in `corpus_precision`.
        top_k: how many; fewer are returned where the corpus has fewer.
        similarity_fn_name: what a score is: "cosine", "dot", "euclidean" or "manhattan".
        corpus_precision: "float32", "int8", "uint8", "binary" or "ubinary". Codes are compared as the floats that they
            stand for.
        ranges: what int8 and uint8 codes stand for; of an encoder, `encoder.ranges[d]`.
        rescore: bits are searched by Hamming distance, which the queries' bits have to the corpus's. The best
            `rescore_multiplier * top_k` are then scored again, by the float queries and the bits as ±1. Without it the
            scores are negated Hamming distances.
        rescore_multiplier: how many candidates are scored again, in units of `top_k`.
        rescore_embeddings: floats [n, d] of the same corpus, such as a memmap, of which only candidates are read: they
            are scored again by these instead. For every precision but float32.
        threads: CPU threads; by default one per physical core.

    Returns:
        Scores and indices, [q, min(top_k, n)] each.

    Raises:
        InputError: vectors do not fit each other or their precision, or an option is not usable.
    """
    if not is_count(top_k, 1):
        raise InputError(f"top_k is {top_k!r}, expected an integer of at least 1")
    if not is_count(rescore_multiplier, 1):
        raise InputError(f"rescore_multiplier is {rescore_multiplier!r}, expected an integer of at least 1")
    if threads is not None and not is_count(threads, 1):
        raise InputError(f"threads is {threads!r}, expected an integer of at least 1")
    name = one_of(similarity_fn_name, SIMILARITIES, "similarity_fn_name")
    precision = check_precision(corpus_precision)
    queries = _queries(query_embeddings)
    width = queries.shape[1]
    corpus = _corpus(corpus_embeddings, precision, width)
    ranges = _ranges(ranges, precision, width)
    floats = _rescoring_floats(rescore_embeddings, precision, corpus.shape[0], width, rescore)
    threads = default_threads() if threads is None else int(threads)

    bits = precision in ("binary", "ubinary")
    again = floats is not None or (bits and rescore)
    count = int(top_k) * (int(rescore_multiplier) if again else 1)
    if bits:
        asked = to_precision(queries, precision, None)
        hits = _best(asked, corpus, count, lambda some, block: _hamming(some, block, threads))
    else:
        hits = _best(queries, corpus, count, lambda some, block: scores(some, block, name, ranges, threads))
    if not again:
        return hits

    def exact(rows: Int64) -> Float32:
        return unpacked_bits(corpus[rows], precision, width) if floats is None else _plain(floats[rows])

    return _rescored(queries, hits.indices, exact, int(top_k), lambda some, block: scores(some, block, name))


# --- the arguments ---------------------------------------------------------------------------------------------------


def _queries(values: Any) -> Float32:
    kind = getattr(values, "dtype", None)
    if kind in (np.int8, np.uint8):
        raise InputError(f"query_embeddings is {kind}; only the corpus may be quantised, queries are floats")
    return np.ascontiguousarray(as_matrix(values, "query_embeddings"))


def _corpus(values: Any, precision: Precision, width: int) -> Vectors:
    """The corpus as it is, not read yet."""
    corpus = as_rows(values, "corpus_embeddings")
    if precision == "float32":
        _check_floats(corpus, "corpus_embeddings", f"corpus_precision {precision!r}")
        columns = width
    else:
        wanted = np.dtype(np.int8 if precision in ("int8", "binary") else np.uint8)
        if corpus.dtype != wanted:
            raise InputError(
                f"corpus_embeddings is {corpus.dtype}, expected {wanted} for corpus_precision {precision!r}"
            )
        columns = -(-width // 8) if precision in ("binary", "ubinary") else width
    if corpus.shape[1] != columns:
        raise InputError(
            f"corpus_embeddings has {corpus.shape[1]} columns, expected {columns} for queries of {width} components "
            f"and corpus_precision {precision!r}"
        )
    return corpus


def _check_floats(array: Vectors, name: str, purpose: str) -> None:
    if array.dtype.kind != "f":
        raise InputError(f"{name} is {array.dtype}, expected floats for {purpose}")


def _ranges(ranges: Ranges | None, precision: Precision, width: int) -> Ranges | None:
    if precision not in ("int8", "uint8"):
        if ranges is not None:
            raise InputError(f"ranges are for int8 and uint8, but corpus_precision is {precision!r}")
        return None
    if not isinstance(ranges, Ranges):
        given = "missing" if ranges is None else f"{type(ranges).__name__}, expected Ranges(low, high)"
        raise InputError(f"ranges is {given}: corpus_precision {precision!r} needs what the codes stand for")
    return ranges.checked(width)


def _rescoring_floats(
    values: Any, precision: Precision, count: int, width: int, rescore: bool
) -> npt.NDArray[np.floating[Any]] | None:
    if values is None:
        return None
    if precision == "float32" or not rescore:
        reason = "corpus_precision is 'float32'" if precision == "float32" else "rescore is False"
        raise InputError(f"rescore_embeddings is given, but {reason}")
    floats = as_rows(values, "rescore_embeddings")
    _check_floats(floats, "rescore_embeddings", "scoring again")
    if floats.shape != (count, width):
        raise InputError(f"rescore_embeddings has the shape {list(floats.shape)}, expected {[count, width]}")
    return floats


# --- the search ------------------------------------------------------------------------------------------------------


def _best(queries: Vectors, corpus: Vectors, top_k: int, score: Score) -> Hits:
    """The best of all rows, which are read once and in order."""
    k = min(top_k, len(corpus))
    starts = range(0, len(queries), _QUERIES)
    rankings = [_Ranking(len(queries[start : start + _QUERIES]), k) for start in starts]
    for first, block in _blocks(corpus, min(len(queries), _QUERIES)):
        for start, ranking in zip(starts, rankings, strict=True):
            ranking.add(score(queries[start : start + _QUERIES], block), first)
    none = Hits(np.empty((0, k), np.float32), np.empty((0, k), np.int64))
    parts = [none, *(ranking.hits for ranking in rankings)]
    return Hits(np.concatenate([part.scores for part in parts]), np.concatenate([part.indices for part in parts]))


def _blocks(corpus: Vectors, queries: int) -> Iterator[tuple[int, Vectors]]:
    rows = max(1, min(_CELLS // max(1, queries), _NUMBERS // corpus.shape[1]))
    for first in range(0, len(corpus), rows):
        yield first, _plain(corpus[first : first + rows])


class _Ranking:
    """The k best rows so far for each of some queries. Rows come in ascending order."""

    def __init__(self, queries: int, k: int) -> None:
        self.hits = Hits(np.empty((queries, k), np.float32), np.empty((queries, k), np.int64))
        self._filled = 0

    def add(self, found: Float32, first: int) -> None:
        """The scores [q, m] of the rows from `first` on."""
        filled, k = self._filled, self.hits.scores.shape[1]
        self._filled = min(k, filled + found.shape[1])
        # An equal score comes later and loses. Against a NaN, this is true of everything.
        better = ~(found <= self.hits.scores[:, -1:]) if filled == k else np.ones(found.shape, np.bool_)
        for query in np.flatnonzero(better.any(1)):
            rows = np.flatnonzero(better[query])
            values = np.concatenate([self.hits.scores[query, :filled], found[query, rows]])
            indices = np.concatenate([self.hits.indices[query, :filled], first + rows])
            order = _leading(values, self._filled)
            self.hits.scores[query, : self._filled] = values[order]
            self.hits.indices[query, : self._filled] = indices[order]


def _leading(values: Float32, k: int) -> Int64:
    """Where the k largest are, largest first, the earlier of equal ones first, NaN behind every number."""
    descending = -values
    kept = np.arange(len(values))
    if len(values) > 2 * k:
        kept = np.flatnonzero(~(descending > np.partition(descending, k - 1)[k - 1]))
    order: Int64 = kept[np.argsort(descending[kept], kind="stable")[:k]]
    return order


def _rescored(
    queries: Float32, candidates: Int64, vectors_of: Callable[[Int64], Float32], top_k: int, score: Score
) -> Hits:
    """The best of each query's candidates [q, m] by the vectors that `vectors_of` rows of the corpus gives."""
    k = min(top_k, candidates.shape[1])
    hits = Hits(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64))
    step = max(1, _NUMBERS // queries.shape[1])
    for query, mine in enumerate(candidates):
        rows = np.sort(mine)
        parts = [rows[start : start + step] for start in range(0, len(rows), step)]
        values = [score(queries[query : query + 1], vectors_of(part))[0] for part in parts]
        if values:
            order = _leading(np.concatenate(values), k)
            hits.scores[query], hits.indices[query] = np.concatenate(values)[order], rows[order]
    return hits


def _plain(block: Vectors) -> Vectors:
    """Floats as float32, codes as they are; contiguous."""
    return np.ascontiguousarray(block, np.float32 if block.dtype.kind == "f" else block.dtype)


def _hamming(queries: Vectors, block: Vectors, threads: int) -> Float32:
    return _csrc.hamming(queries.view(np.uint8), block.view(np.uint8), threads, wanted_tier())
