"""Packing: every window between its special tokens, and the way back to the documents."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longspan.batch import Int32
from longspan.text.packing import Document, pack
from longspan.text.windows import split_windows


def int32(*values: int) -> Int32:
    return np.array(values, np.int32)


@st.composite
def documents(draw: st.DrawFn) -> list[Document]:
    capacity = draw(st.integers(1, 12))
    overlap = draw(st.integers(0, capacity - 1))
    made = []
    for _ in range(draw(st.integers(0, 5))):
        ids = int32(*draw(st.lists(st.integers(1000, 2000), max_size=40)))
        made.append(
            Document(int32(*range(500, 500 + draw(st.integers(0, 3)))), ids, split_windows(len(ids), capacity, overlap))
        )
    return made


specials = st.lists(st.integers(0, 9), max_size=2).map(lambda ids: int32(*ids))


@given(documents(), specials, specials, st.integers(1000, 1010))
def test_positions(given_documents: list[Document], prefix: Int32, suffix: Int32, padding: int) -> None:
    usual, packed = (pack(given_documents, prefix, suffix, token) for token in (None, padding))
    for a, b in pairwise(packed.cu_seqlens.tolist()):
        ids, positions = packed.ids[a:b], packed.positions[a:b]
        assert usual.positions[a:b].tolist() == list(range(b - a))
        assert (positions == -1).tolist() == (ids == padding).tolist()
        assert positions[ids != padding].tolist() == list(range(int((ids != padding).sum())))


@given(documents(), specials, specials)
def test_segments(given_documents: list[Document], prefix: Int32, suffix: Int32) -> None:
    packed = pack(given_documents, prefix, suffix)
    expected = [
        [*prefix, *document.prompt, *document.ids[window.start : window.end], *suffix]
        for document in given_documents
        for window in document.windows
    ]
    found = [packed.ids[a:b].tolist() for a, b in pairwise(packed.cu_seqlens.tolist())]
    assert found == expected
    assert packed.positions.tolist() == [place for segment in expected for place in range(len(segment))]
    assert packed.cu_seqlens.tolist()[-1] == len(packed.ids)
    assert np.diff(packed.document_segments).tolist() == [len(document.windows) for document in given_documents]
    assert packed.suffix == len(suffix)


@given(documents(), specials, specials)
def test_rows_of_tokens(given_documents: list[Document], prefix: Int32, suffix: Int32) -> None:
    packed = pack(given_documents, prefix, suffix)
    for index, document in enumerate(given_documents):
        first, last = int(packed.first[index]), int(packed.last[index])
        assert last - first + 1 == len(document.windows)
        owned: list[int] = []
        for segment, window in zip(range(first, last + 1), document.windows, strict=True):
            owned += range(int(packed.owned_start[segment]), int(packed.owned_end[segment]))
            seen = np.arange(window.start, window.end)
            rows = packed.row_of(np.full(len(seen), segment), seen)
            assert packed.ids[rows].tolist() == document.ids[seen].tolist()
            assert int(packed.lead[segment]) == len(prefix) + len(document.prompt)
            assert int(packed.prompt[segment]) == len(document.prompt)
        assert owned == list(range(len(document.ids)))


@given(documents(), st.randoms())
def test_documents_do_not_depend_on_each_other(given_documents: list[Document], random: Random) -> None:
    def segments(some: list[Document]) -> list[list[int]]:
        packed = pack(some, int32(1), int32(2))
        rows = [packed.ids[a:b].tolist() for a, b in pairwise(packed.cu_seqlens.tolist())]
        return [
            [row for segment in rows[a:b] for row in segment] for a, b in pairwise(packed.document_segments.tolist())
        ]

    order = list(range(len(given_documents)))
    random.shuffle(order)
    assert segments([given_documents[i] for i in order]) == [segments([given_documents[i]])[0] for i in order]


def test_types_and_nothing() -> None:
    for packed in (
        pack([], int32(1), int32(2)),
        pack([Document(int32(), int32(7), split_windows(1, 4, 1))], int32(), int32()),
    ):
        assert packed.ids.dtype == packed.positions.dtype == np.int32
        assert packed.cu_seqlens.dtype == packed.document_segments.dtype == packed.lead.dtype == np.int64
        assert all(array.flags.c_contiguous for array in (packed.ids, packed.cu_seqlens, packed.lead, packed.owned_end))
    nothing = pack([], int32(1), int32(2))
    assert (len(nothing.ids), nothing.cu_seqlens.tolist(), nothing.document_segments.tolist()) == (0, [0], [0])


def test_empty_document_is_its_specials() -> None:
    packed = pack([Document(int32(), int32(), split_windows(0, 4, 1))], int32(101), int32(102))
    assert packed.ids.tolist() == [101, 102]
    assert packed.row_of(np.array([0]), np.array([0])).tolist() == [1]
