"""`semantic_search`, against brute force in float64 and sentence-transformers."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import util
from sentence_transformers.util.quantization import quantize_embeddings

from longspan import Encoder, Hits, InputError, Ranges, semantic_search
from longspan.checkpoint.recipe import SIMILARITIES, SimilarityName
from longspan.pooling.precision import Precision, to_precision

every_name = pytest.mark.parametrize("name", SIMILARITIES)
BITS: tuple[Precision, ...] = ("binary", "ubinary")
CODES: tuple[Precision, ...] = ("int8", "uint8")


def vectors(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def brute(queries: Any, corpus: Any, name: SimilarityName) -> Any:
    """Scores in float64: [q, n]."""
    q, x = np.asarray(queries, np.float64), np.asarray(corpus, np.float64)
    if name == "cosine":
        q, x = (item / np.maximum(np.linalg.norm(item, axis=1, keepdims=True), 1e-12) for item in (q, x))
    if name in ("cosine", "dot"):
        return q @ x.T
    gaps = np.abs(q[:, None] - x[None])
    return -(gaps.sum(2) if name == "manhattan" else np.sqrt((gaps * gaps).sum(2)))


def ranked(scores: Any, k: int) -> Any:
    """The best first, then the lower index, NaN last: [q, k]."""
    return np.array([sorted(range(len(row)), key=lambda i: (row[i] != row[i], -row[i], i))[:k] for row in scores])


def check(hits: Hits, expected: Any, k: int) -> None:
    indices = ranked(expected, k)
    assert [part.dtype.name for part in hits] == ["float32", "int64"]
    np.testing.assert_array_equal(hits.indices, indices.reshape(hits.indices.shape))
    np.testing.assert_allclose(hits.scores, np.take_along_axis(expected, hits.indices, 1), rtol=2e-6)


# --- floats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dot", "euclidean", "manhattan"])
@given(
    queries=st.integers(1, 5),
    rows=st.integers(1, 60),
    width=st.integers(1, 9),
    top_k=st.integers(1, 70),
    block=st.integers(1, 50),
    nans=st.lists(st.integers(0, 59), max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_equals_brute_force_with_many_ties(
    name: SimilarityName, queries: int, rows: int, width: int, top_k: int, block: int, nans: list[int], seed: int
) -> None:
    """Small integers, of which all scores are exact; blocks of the corpus and of the queries end anywhere."""
    random = np.random.default_rng(seed)
    q, x = (random.integers(-2, 3, (count, width)).astype(np.float32) for count in (queries, rows))
    x[[row for row in nans if row < rows]] = np.nan
    with mock.patch.multiple("longspan.search", _QUERIES=2, _CELLS=2 * block, _NUMBERS=block * width):
        hits = semantic_search(q, x, top_k, similarity_fn_name=name)
    k = min(top_k, rows)
    assert hits.scores.shape == hits.indices.shape == (queries, k)
    check(hits, brute(q, x, name), k)


@every_name
@pytest.mark.parametrize(("rows", "width", "top_k"), [(5, 3, 5), (3000, 384, 10), (700, 33, 300)])
def test_equals_brute_force(name: SimilarityName, rows: int, width: int, top_k: int) -> None:
    q, x = vectors(7, width), vectors(rows, width, seed=1)
    hits, exact = semantic_search(q, x, top_k, similarity_fn_name=name), brute(q, x, name)
    best = np.take_along_axis(exact, ranked(exact, top_k), 1)
    np.testing.assert_allclose(np.take_along_axis(exact, hits.indices, 1), best, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(hits.scores, best, rtol=1e-5, atol=1e-6)
    assert all(len(set(row)) == top_k for row in hits.indices.tolist())


def test_equals_sentence_transformers() -> None:
    q, x = vectors(150, 64), vectors(2000, 64, seed=1)
    theirs = util.semantic_search(torch.tensor(q), torch.tensor(x), top_k=7)
    ours = semantic_search(q, x, 7)
    np.testing.assert_array_equal(ours.indices, [[hit["corpus_id"] for hit in row] for row in theirs])
    np.testing.assert_allclose(ours.scores, [[hit["score"] for hit in row] for row in theirs], atol=1e-6)


@every_name
def test_duplicates_are_in_order_wherever_they_lie(name: SimilarityName) -> None:
    x = vectors(1000, 100)
    places = [3, 4, 90, 511, 512, 999]
    x[places] = x[3]
    hits = semantic_search(x[3] + 0.01, x, 6, similarity_fn_name=name)
    assert hits.indices.tolist() == [places]
    assert len(set(hits.scores[0].tolist())) == 1


@every_name
def test_same_bits_whatever_the_call(name: SimilarityName) -> None:
    q, x = vectors(5, 50), vectors(3000, 50, seed=1)
    together = semantic_search(q, x, 20, similarity_fn_name=name, threads=2)
    for i in range(5):
        for corpus in (x, x.astype(np.float64), torch.tensor(x), np.asfortranarray(x)):
            alone = semantic_search(q[i], corpus, 20, similarity_fn_name=name, threads=1)
            np.testing.assert_array_equal(alone.indices[0], together.indices[i])
            np.testing.assert_array_equal(alone.scores[0], together.scores[i])


def test_nan_and_infinity() -> None:
    x = np.array([[np.nan], [1], [np.inf], [-np.inf], [np.nan], [2]], np.float32)
    hits = semantic_search(np.ones((1, 1), np.float32), x, 6, similarity_fn_name="dot")
    assert hits.indices.tolist() == [[2, 5, 1, 3, 0, 4]]
    assert semantic_search(np.ones((1, 1)), x, 4, similarity_fn_name="dot").indices.tolist() == [[2, 5, 1, 3]]
    lost = semantic_search(np.full((1, 1), np.nan, np.float32), x, 3)
    assert lost.indices.tolist() == [[0, 1, 2]]
    assert np.isnan(lost.scores).all()


def test_nothing_to_find_and_nothing_asked() -> None:
    x = vectors(4, 8)
    for precision in ("float32", "binary", "uint8"):
        ranges = Ranges(x.min(0), x.max(0)) if precision == "uint8" else None
        options: dict[str, Any] = {"corpus_precision": precision, "ranges": ranges}
        corpus = to_precision(x, precision, ranges)
        hits = semantic_search(x, corpus[:0], 3, **options)
        assert hits.scores.shape == hits.indices.shape == (4, 0)
        hits = semantic_search(x[:0], corpus, 3, **options)
        assert hits.scores.shape == hits.indices.shape == (0, 3)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A memmap is read in blocks, also where these have to be converted."""
    x = np.memmap(tmp_path / "corpus", np.float16, "w+", shape=(100_000, 64))
    x[:] = vectors(100_000, 64)
    with mock.patch.multiple("longspan.search", _NUMBERS=1 << 16):
        tracemalloc.start()
        hits = semantic_search(x[77_777], x, 5)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert hits.indices[0, 0] == 77_777
    assert peak < 1 << 20  # the corpus has 12.8 MB


# --- codes -----------------------------------------------------------------------------------------------------------


@every_name
@pytest.mark.parametrize("precision", CODES)
def test_codes_are_compared_as_what_they_stand_for(name: SimilarityName, precision: Precision) -> None:
    q, x = vectors(5, 40), vectors(500, 40, seed=1)
    x[:, 7] = 0.25  # a component that never changes
    ranges = Ranges.of(x)
    codes = quantize_embeddings(x, precision, ranges=np.stack([ranges.low, ranges.high]))
    levels = codes.astype(np.float32) + (128 if precision == "int8" else 0)
    expected = semantic_search(q, ranges.low + levels * ranges.step, 20, similarity_fn_name=name)
    hits = semantic_search(q, codes, 20, similarity_fn_name=name, corpus_precision=precision, ranges=ranges)
    np.testing.assert_array_equal(hits.indices, expected.indices)
    np.testing.assert_array_equal(hits.scores, expected.scores)


# --- bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", BITS)
@given(rows=st.integers(1, 50), width=st.integers(1, 40), top_k=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_hamming_order(precision: Precision, rows: int, width: int, top_k: int, seed: int) -> None:
    q, x = vectors(3, width, seed=seed), vectors(rows, width, seed=seed + 1)
    corpus = to_precision(x, precision, None)
    hits = semantic_search(q, corpus, top_k, corpus_precision=precision, rescore=False)
    distances = ((q > 0)[:, None] != (x > 0)[None]).sum(2).astype(np.float64)
    check(hits, -distances, min(top_k, rows))


@every_name
@pytest.mark.parametrize("precision", BITS)
def test_rescoring_bits(name: SimilarityName, precision: Precision) -> None:
    q, x = vectors(6, 100), vectors(2000, 100, seed=1)
    corpus = to_precision(x, precision, None)
    options: dict[str, Any] = {"similarity_fn_name": name, "corpus_precision": precision}
    hits = semantic_search(q, corpus, 10, rescore_multiplier=3, **options)
    candidates = semantic_search(q, corpus, 30, rescore=False, **options).indices
    signs = np.where(x > 0, 1, -1)
    for query in range(6):
        mine = np.sort(candidates[query])
        exact = brute(q[query : query + 1], signs[mine], name)
        order = ranked(np.round(exact, 9), 10)[0]
        np.testing.assert_allclose(hits.scores[query], exact[0, order], rtol=1e-5)
        assert set(hits.indices[query].tolist()) <= set(mine.tolist())
    every = semantic_search(q, corpus, 10, rescore_multiplier=200, **options)
    plain = semantic_search(q, signs.astype(np.float32), 10, similarity_fn_name=name)
    np.testing.assert_array_equal(every.indices, plain.indices)
    np.testing.assert_array_equal(every.scores, plain.scores)


@pytest.mark.parametrize("precision", [*BITS, *CODES])
def test_rescoring_by_floats(precision: Precision, tmp_path: Path) -> None:
    q, x = vectors(6, 100), vectors(2000, 100, seed=1)
    ranges = Ranges.of(x) if precision in CODES else None
    floats = np.memmap(tmp_path / "floats", np.float32, "w+", shape=x.shape)
    floats[:] = x
    plain = semantic_search(q, x, 2000)
    corpus = to_precision(x, precision, ranges)
    options: dict[str, Any] = {"corpus_precision": precision, "ranges": ranges}
    for multiplier in (4, 200):
        first = semantic_search(q, corpus, 10 * multiplier, rescore=precision in CODES, **options)
        hits = semantic_search(q, corpus, 10, rescore_multiplier=multiplier, rescore_embeddings=floats, **options)
        for query, candidates in enumerate(first.indices):
            places = np.flatnonzero(np.isin(plain.indices[query], candidates))[:10]
            np.testing.assert_array_equal(hits.indices[query], plain.indices[query, places])
            np.testing.assert_array_equal(hits.scores[query], plain.scores[query, places])


# --- an encoder's vectors --------------------------------------------------------------------------------------------


def test_vectors_of_an_encoder(minilm: Path) -> None:
    encoder = Encoder(minilm)
    texts = [f"{animal} {verb}" for animal in ("cats", "dogs", "trains", "rivers") for verb in ("sleep", "run", "stop")]
    encoder.calibrate(texts)
    query = encoder.encode_query("Where do trains stop?")
    for precision in ("float32", *CODES, *BITS):
        ranges = encoder.ranges[384] if precision in CODES else None
        corpus = encoder.encode_document(texts, precision=precision)
        hits = semantic_search(query, corpus, 2, corpus_precision=precision, ranges=ranges)
        assert texts[hits.indices[0, 0]] == "trains stop", precision
        assert abs(hits.scores[0, 0] - encoder.similarity(query, encoder.encode("trains stop"))[0, 0]) < 0.3


# --- bad input -------------------------------------------------------------------------------------------------------

FLOATS = vectors(3, 16)
LEVELS = np.zeros((3, 16), np.int8)
RANGES = Ranges(np.zeros(16, np.float32), np.ones(16, np.float32))


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (FLOATS, {"top_k": 0}, "top_k is 0, expected an integer of at least 1"),
        (FLOATS, {"top_k": 2.0}, "top_k is 2.0"),
        (FLOATS, {"rescore_multiplier": 0}, "rescore_multiplier is 0"),
        (FLOATS, {"threads": 0}, "threads is 0"),
        (FLOATS, {"similarity_fn_name": "closeness"}, "similarity_fn_name is 'closeness', expected one of cosine, dot"),
        (FLOATS, {"corpus_precision": "int4"}, "precision is 'int4', expected one of float32, int8"),
        (FLOATS[:, :15], {}, "has 15 columns, expected 16 for queries of 16 components and corpus_precision 'float32'"),
        (FLOATS[None], {}, "corpus_embeddings has 3 dimensions, expected vectors as rows"),
        ([[1.0], [1.0, 2.0]], {}, "corpus_embeddings cannot be read as vectors of one length"),
        (LEVELS, {}, "corpus_embeddings is int8, expected floats for corpus_precision 'float32'"),
        (FLOATS, {"ranges": RANGES}, "ranges are for int8 and uint8, but corpus_precision is 'float32'"),
        (FLOATS, {"corpus_precision": "int8", "ranges": RANGES}, "corpus_embeddings is float32, expected int8"),
        (LEVELS, {"corpus_precision": "uint8", "ranges": RANGES}, "corpus_embeddings is int8, expected uint8"),
        (LEVELS, {"corpus_precision": "int8"}, "ranges is missing: corpus_precision 'int8' needs"),
        (LEVELS, {"corpus_precision": "int8", "ranges": [[0], [1]]}, "ranges is list, expected Ranges(low, high)"),
        (LEVELS, {"corpus_precision": "int8", "ranges": Ranges(RANGES.low[:4], RANGES.high)}, "low has the shape [4]"),
        (LEVELS, {"corpus_precision": "int8", "ranges": Ranges(RANGES.high, RANGES.low)}, "below ranges.low at compo"),
        (LEVELS, {"corpus_precision": "int8", "ranges": Ranges(RANGES.low, RANGES.low * np.nan)}, "is not finite"),
        (LEVELS, {"corpus_precision": "binary"}, "has 16 columns, expected 2 for queries of 16 components"),
        (LEVELS[:, :2], {"corpus_precision": "ubinary"}, "corpus_embeddings is int8, expected uint8"),
        (FLOATS, {"rescore_embeddings": FLOATS}, "rescore_embeddings is given, but corpus_precision is 'float32'"),
        (
            LEVELS[:, :2],
            {"corpus_precision": "binary", "rescore_embeddings": FLOATS, "rescore": False},
            "rescore_embeddings is given, but rescore is False",
        ),
        (
            LEVELS[:, :2],
            {"corpus_precision": "binary", "rescore_embeddings": FLOATS[:2]},
            "rescore_embeddings has the shape [2, 16], expected [3, 16]",
        ),
        (
            LEVELS[:, :2],
            {"corpus_precision": "binary", "rescore_embeddings": LEVELS},
            "rescore_embeddings is int8, expected floats",
        ),
    ],
)
def test_what_does_not_fit(corpus: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        semantic_search(FLOATS, corpus, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (LEVELS, "query_embeddings is int8; only the corpus may be quantised"),
        (FLOATS[None], "query_embeddings has 3 dimensions"),
        ([], "query_embeddings has vectors without components"),
        (["a"], "query_embeddings cannot be read as vectors"),
    ],
)
def test_queries_that_are_none(queries: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        semantic_search(queries, FLOATS)
    assert message in str(caught.value)
