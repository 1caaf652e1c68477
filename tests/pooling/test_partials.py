"""Which rows make which vector: weights counted by brute force, token by token."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling

from longspan.batch import Int64, Partials
from longspan.checkpoint.recipe import PoolingMode
from longspan.pooling.modes import MODES, Mode
from longspan.pooling.partials import document_partials, join, span_partials, token_partials
from longspan.text.packing import Document, PackedTexts, pack
from longspan.text.windows import split_windows

MEAN, WEIGHTED = MODES["mean"], MODES["weightedmean"]
PREFIX, SUFFIX = np.array([101, 7], np.int32), np.array([102], np.int32)

Weights = dict[int, float]  # by row


def document(length: int, capacity: int, overlap: int, prompt: int = 0) -> Document:
    """A text with ids 1000, 1001, … behind a prompt with ids 500, 501, …"""
    ids = np.arange(1000, 1000 + length, dtype=np.int32)
    return Document(np.arange(500, 500 + prompt, dtype=np.int32), ids, split_windows(length, capacity, overlap))


def weights_of(partials: Partials) -> list[Weights]:
    """The row weights of every vector."""
    vectors = []
    for first, last in pairwise(partials.cu_vectors.tolist()):
        rows: Weights = {}
        for p in range(first, last):
            for place, row in enumerate(range(int(partials.starts[p]), int(partials.ends[p]))):
                assert row not in rows
                rows[row] = float(partials.first_weight[p] + place * partials.weight_step[p])
        vectors.append(rows)
    return vectors


def check_invariants(partials: Partials, texts: PackedTexts) -> None:
    """What executors rely on: types, no empty partial, each within one segment."""
    assert partials.starts.dtype == partials.ends.dtype == partials.cu_vectors.dtype == np.int64
    assert partials.first_weight.dtype == partials.weight_step.dtype == np.float32
    assert (partials.ends > partials.starts).all()
    segment = np.searchsorted(texts.cu_seqlens, partials.starts, side="right")
    assert (partials.ends <= texts.cu_seqlens[segment]).all()
    assert partials.cu_vectors[0] == 0
    assert partials.cu_vectors[-1] == partials.count
    assert (np.diff(partials.cu_vectors) >= 0).all()


def owner_rows(texts: PackedTexts, index: int) -> Int64:
    """The row of each token of a document in the window that owns it, found by looking."""
    rows = []
    for segment in range(int(texts.document_segments[index]), int(texts.document_segments[index + 1])):
        for token in range(int(texts.owned_start[segment]), int(texts.owned_end[segment])):
            begin, end = texts.cu_seqlens[segment : segment + 2]
            (place,) = np.flatnonzero(texts.ids[begin:end] == 1000 + token)
            rows.append(begin + place)
    return np.array(rows, np.int64)


@st.composite
def batches(draw: st.DrawFn) -> PackedTexts:
    capacity = draw(st.integers(1, 9))
    overlap = draw(st.integers(0, capacity - 1))
    lengths = draw(st.lists(st.integers(0, 30), min_size=1, max_size=4))
    return pack([document(n, capacity, overlap, draw(st.integers(0, 2))) for n in lengths], PREFIX, SUFFIX)


@given(batches(), st.booleans(), st.booleans())
def test_documents_by_all_tokens(texts: PackedTexts, include_prompt: bool, by_position: bool) -> None:
    partials = document_partials(texts, WEIGHTED if by_position else MEAN, include_prompt=include_prompt)
    check_invariants(partials, texts)
    for index, weights in enumerate(weights_of(partials)):
        first, last = int(texts.first[index]), int(texts.last[index])
        leading = int(texts.lead[first]) if include_prompt or not texts.prompt[first] else 0
        begin, end = int(texts.cu_seqlens[first]), int(texts.cu_seqlens[last + 1])
        own = owner_rows(texts, index).tolist()
        counted = [*range(begin + int(texts.lead[first]) - leading, begin + int(texts.lead[first])), *own, end - 1]
        assert list(weights) == counted
        if by_position and leading == int(texts.lead[first]):
            assert list(weights.values()) == list(range(1, len(counted) + 1))
        elif not by_position:
            assert set(weights.values()) == {1.0}


@given(batches(), st.booleans())
def test_documents_by_their_own_tokens(texts: PackedTexts, by_position: bool) -> None:
    """Nothing before them counts, prompt or no prompt, and positions begin with them."""
    mode = replace(WEIGHTED if by_position else MEAN, own=True)
    for index, weights in enumerate(weights_of(document_partials(texts, mode, include_prompt=True))):
        rows = [*owner_rows(texts, index).tolist(), int(texts.cu_seqlens[texts.last[index] + 1]) - 1]
        assert weights == {row: float(place if by_position else 1) for place, row in enumerate(rows, 1)}


@given(batches(), st.integers(0, 5), st.booleans())
def test_documents_by_the_ends_of_windows(texts: PackedTexts, last: int, include_prompt: bool) -> None:
    """The first row of each window, or its last ones: together they weigh what the window owns."""
    mode = replace(MODES["lasttoken"], last=last) if last else MODES["cls"]
    partials = document_partials(texts, mode, include_prompt=include_prompt)
    check_invariants(partials, texts)
    for index, weights in enumerate(weights_of(partials)):
        expected: Weights = {}
        for s in range(int(texts.first[index]), int(texts.last[index]) + 1):
            begin, end = texts.cu_seqlens[s : s + 2].tolist()
            counted = range(begin if include_prompt or not texts.prompt[s] else begin + int(texts.lead[s]), end)
            rows = counted[-last:] if last else counted[:1]
            owned = max(int(texts.owned_end[s] - texts.owned_start[s]), 1)
            expected |= dict.fromkeys(rows, float(np.float32(owned / len(rows))))
        assert weights == expected


@given(batches(), st.integers(0, 31))
def test_documents_by_a_token(texts: PackedTexts, token: int) -> None:
    """It counts in the window that owns it; special tokens count in the first window or the last."""
    for index in range(len(texts.first)):
        own = owner_rows(texts, index)
        rows = [int(own[token])] if token < len(own) else []
        mode = replace(MODES["token"], token=1000 + token)
        assert list(weights_of(document_partials(texts, mode, include_prompt=True))[index]) == rows
        ends = {101: texts.cu_seqlens[texts.first[index]], 102: texts.cu_seqlens[texts.last[index] + 1] - 1}
        for special, row in ends.items():
            partials = document_partials(texts, replace(mode, token=special), include_prompt=True)
            check_invariants(partials, texts)
            assert weights_of(partials)[index] == {int(row): 1.0}


@given(batches(), st.data())
def test_spans(texts: PackedTexts, data: st.DataObject) -> None:
    for index in range(len(texts.first)):
        own = owner_rows(texts, index)
        if not len(own):
            continue
        pairs = st.tuples(st.integers(0, len(own) - 1), st.integers(1, len(own))).map(lambda p: (min(p), max(p)))
        spans = data.draw(st.lists(pairs.filter(lambda p: p[0] < p[1]), max_size=4))
        firsts, lasts = np.array(spans, np.int64).reshape(-1, 2).T
        token = data.draw(st.integers(0, len(own)))
        last, chosen = replace(MODES["lasttoken"], last=3), replace(MODES["token"], token=1000 + token)
        for mode in (MEAN, WEIGHTED, MODES["cls"], MODES["lasttoken"], MODES["max"], last, chosen):
            partials = span_partials(texts, index, firsts, lasts, mode)
            check_invariants(partials, texts)
            found = weights_of(partials)
            assert len(found) == len(spans)
            for (first, end), weights in zip(spans, found, strict=True):
                tokens = range(first, end)
                if mode.rows == "last":
                    tokens = tokens[-mode.last :]
                if mode.rows == "token" and token in tokens:
                    tokens = range(token, token + 1)
                expected = {int(own[t]): float(t + 1) if mode.by_position else 1.0 for t in tokens}
                assert weights == expected


@given(batches())
def test_spans_that_cover_the_document(texts: PackedTexts) -> None:
    """Chunks and special tokens together count what the document counts, each once."""
    for index, whole in enumerate(weights_of(document_partials(texts, MEAN, include_prompt=False))):
        own = owner_rows(texts, index)
        bounds = np.array(sorted({0, len(own) // 3, len(own) // 2, len(own)}), np.int64)
        chunks = weights_of(span_partials(texts, index, bounds[:-1], bounds[1:], MEAN))
        covered = [row for chunk in chunks for row in chunk]
        assert covered == own.tolist()
        assert set(covered) <= set(whole)


@given(batches())
def test_tokens(texts: PackedTexts) -> None:
    partials, counts = token_partials(texts)
    check_invariants(partials, texts)
    assert partials.vectors == partials.count == counts.sum()
    rows = [row for weights in weights_of(partials) for row in weights]
    expected = [list(weights) for weights in weights_of(document_partials(texts, MEAN, include_prompt=True))]
    assert rows == [row for document in expected for row in document]
    assert counts.tolist() == [len(document) for document in expected]


def test_join() -> None:
    texts = pack([document(5, 8, 2), document(12, 8, 2)], PREFIX, SUFFIX)
    whole = document_partials(texts, MEAN, include_prompt=True)
    spans = span_partials(texts, 1, np.array([0, 3]), np.array([4, 12]), WEIGHTED)
    none = span_partials(texts, 0, np.zeros(0, np.int64), np.zeros(0, np.int64), MEAN)
    joined = join([whole, none, spans])
    check_invariants(joined, texts)
    assert weights_of(joined) == weights_of(whole) + weights_of(spans)
    assert (none.count, none.vectors) == (0, 0)
    assert join([whole]) is whole


def test_nothing() -> None:
    texts = pack([], PREFIX, SUFFIX)
    assert document_partials(texts, MEAN, include_prompt=True).vectors == 0
    partials, counts = token_partials(texts)
    assert (partials.vectors, len(counts)) == (0, 0)


# --- against sentence-transformers ------------------------------------------------------------------------------------


def pooled(partials: Partials, rows: torch.Tensor, mode: Mode) -> torch.Tensor:
    """What the executors make of partials, in float64."""
    vectors = []
    for weights in weights_of(partials):
        chosen = rows[list(weights)]
        column = torch.tensor(list(weights.values()), dtype=torch.float64)[:, None]
        if mode.combine == "maximum":
            vectors.append(chosen.amax(0))
        else:
            total = column.sum()
            vectors.append((chosen * column).sum(0) / (total if mode.combine == "mean" else total.sqrt()))
    return torch.stack(vectors)


@pytest.mark.parametrize("prompt", [0, 3])
@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("name", get_args(PoolingMode))
def test_modes_equal_sentence_transformers(name: PoolingMode, include_prompt: bool, prompt: int) -> None:
    lengths = [0, 1, 5, 12, 2]
    texts = pack([document(n, 50, 0, prompt) for n in lengths], PREFIX[:1], SUFFIX)
    width = 16
    rows = torch.randn(len(texts.ids), width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parts = [rows[a:b] for a, b in pairwise(texts.cu_seqlens.tolist())]
    features = {
        "token_embeddings": torch.nn.utils.rnn.pad_sequence(parts, batch_first=True),
        "attention_mask": torch.nn.utils.rnn.pad_sequence(
            [torch.ones(len(part), dtype=torch.int64) for part in parts], batch_first=True
        ),
        "prompt_length": 1 + prompt if prompt else None,
    }
    if not prompt:
        del features["prompt_length"]
    theirs = Pooling(width, name, include_prompt=include_prompt)(features)["sentence_embedding"]
    ours = pooled(document_partials(texts, MODES[name], include_prompt=include_prompt), rows, MODES[name])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", [*MODES.values(), replace(MODES["lasttoken"], last=2)])
@pytest.mark.parametrize("empty_first", [True, False])
def test_an_empty_text_without_special_tokens_has_no_rows(mode: Mode, empty_first: bool) -> None:
    """It must not take its neighbour's; its vector is zero."""
    nothing = np.zeros(0, np.int32)
    documents = [document(0, 8, 2), document(3, 8, 2)]
    texts = pack(documents if empty_first else documents[::-1], nothing, nothing)
    mode = replace(mode, token=1001)
    found = weights_of(document_partials(texts, mode, include_prompt=True))
    assert found[0 if empty_first else 1] == {}
    assert set(found[1 if empty_first else 0]) <= {0, 1, 2}
    assert found[1 if empty_first else 0]
