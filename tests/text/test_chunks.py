"""Chunks cover every token once, end at good places, and own what lies in their spans."""

from __future__ import annotations

import pydoc_data.topics
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longspan.batch import Int64
from longspan.errors import InputError
from longspan.text.chunks import Chunk, Kept, chunk_by_spans, chunk_by_tokens
from longspan.text.tokenizer import Tokenizer


def words(text: str, pattern: str = r"\w+|[^\w\s]") -> tuple[Int64, Int64]:
    """Tokens like BERT's: whitespace belongs to none."""
    spans = [match.span() for match in re.finditer(pattern, text)]
    starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
    return starts, ends


def spaced(text: str) -> tuple[Int64, Int64]:
    """Tokens like byte-level ones: they cover the text, start with a space or are whitespace."""
    return words(text, r" ?\w+| ?[^\w\s]+|\s+(?!\S)|\s+")


def pieces(text: str, size: int, tokens: Any = words) -> list[str]:
    starts, ends = tokens(text)
    return [text[chunk.start : chunk.end] for chunk in chunk_by_tokens(Kept(text, starts, ends), size)]


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, Int64, Int64]:
    """A text with tokens of any kind: gaps, spaces inside, code points of several tokens, empty tokens."""
    part = st.sampled_from(
        ["word", "a", ".", "。", "! ", " ", "  ", "\n", "\n\n", "\r\n", "中", "😀", '."', "\u2029", "\0"]
    )
    text = draw(st.lists(part, max_size=60).map("".join))
    edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=40)))
    ranges = []
    for start, end in pairwise(edges):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            continue  # characters that the tokenizer drops
        ranges += [(start, end)] * (draw(st.integers(2, 4)) if kind == 1 and end == start + 1 else 1)
    starts, ends = np.array(ranges, np.int64).reshape(-1, 2).T
    return text, starts, ends


def tokens_per_place(text: str, starts: Int64, ends: Int64) -> int:
    """The most tokens that share a code point or are glued to one by being empty."""
    run = most = 1
    for i in range(1, len(starts)):
        glued = starts[i] == ends[i] or starts[i] < ends[i - 1] or starts[i] == starts[i - 1]
        run = run + 1 if glued else 1
        most = max(most, run)
    return most


@given(documents(), st.integers(1, 12))
@example(("", np.zeros(0, np.int64), np.zeros(0, np.int64)), 1)
@example(("  \n ", *spaced("  \n ")), 1)
@example(("😀", np.zeros(4, np.int64), np.ones(4, np.int64)), 2)
def test_chunks_partition_the_tokens(document: tuple[str, Int64, Int64], size: int) -> None:
    text, starts, ends = document
    chunks = chunk_by_tokens(Kept(text, starts, ends), size)
    assert [chunk.first for chunk in chunks] == [0, *[chunk.last for chunk in chunks]][: len(chunks)]
    assert (chunks[-1].last if chunks else 0) == len(starts)
    assert all(chunk.first < chunk.last for chunk in chunks)
    assert all(chunk.last - chunk.first <= max(size, tokens_per_place(*document)) for chunk in chunks)
    assert all(before.end <= after.start and before.start < after.start for before, after in pairwise(chunks))
    for chunk in chunks:
        assert 0 <= chunk.start <= chunk.end <= len(text)
        piece = text[chunk.start : chunk.end]
        assert piece == piece.strip() or piece.isspace()


@given(documents(), st.integers(1, 12))
def test_spans_of_chunks_own_the_same_tokens(document: tuple[str, Int64, Int64], size: int) -> None:
    text, starts, ends = document
    for chunk in chunk_by_tokens(Kept(text, starts, ends), size):
        solid = [i for i in range(chunk.first, chunk.last) if text[starts[i] : ends[i]].strip()]
        if solid:  # tokens that are all whitespace may lie between spans
            (owned,) = chunk_by_spans(Kept(text, starts, ends), [(chunk.start, chunk.end)])
            assert chunk.first <= owned.first <= solid[0]
            assert solid[-1] < owned.last <= chunk.last


@given(documents(), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=5))
def test_spans_own_what_lies_inside(document: tuple[str, Int64, Int64], spans: list[tuple[int, int]]) -> None:
    text, starts, ends = document
    first = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        token = text[start:end]
        first.append(start + (len(token) - len(token.lstrip()) if token.strip() else 0))
    for span in spans:
        inside = [i for i, place in enumerate(first) if span[0] <= place < span[1]]
        if span[1] > len(text) or not inside:
            with pytest.raises(InputError, match=re.escape("spans[0]")):
                chunk_by_spans(Kept(text, starts, ends), [span])
        else:
            assert chunk_by_spans(Kept(text, starts, ends), [span]) == [Chunk(*span, inside[0], inside[-1] + 1)]


@given(documents(), st.integers(1, 12), st.data())
def test_overlapping_chunks_repeat_no_more_than_that(
    document: tuple[str, Int64, Int64], size: int, data: st.DataObject
) -> None:
    text, starts, ends = document
    overlap = data.draw(st.integers(0, size - 1))
    chunks = chunk_by_tokens(Kept(text, starts, ends), size, overlap)
    together = tokens_per_place(*document)
    assert [chunk.last for chunk in chunks] == sorted({chunk.last for chunk in chunks})
    assert sorted({i for chunk in chunks for i in range(chunk.first, chunk.last)}) == list(range(len(starts)))
    assert all(chunk.last - chunk.first <= max(size, together + overlap) for chunk in chunks)
    for before, after in pairwise(chunks):
        assert 0 <= before.last - after.first <= overlap
        assert before.first < after.first or overlap  # a chunk may repeat all of the one before it
    if overlap == 0:
        assert chunks == chunk_by_tokens(Kept(text, starts, ends), size)


def test_preferences() -> None:
    assert pieces("a b c d. e f.\n\ng h i j k l m n o p", 10) == ["a b c d. e f.", "g h i j k l m n o p"]
    assert pieces("a b c d. E f\ng h i j k l m n o p q r", 10)[0] == "a b c d."
    assert pieces("a b c d e f\ng h i j k l m n o p q r", 10)[0] == "a b c d e f"
    assert pieces("a b c d e f g-h-i-j-k l m n o p q r s t", 8)[0] == "a b c d e f"
    assert pieces("a b c d e f g h i j k-l-m n o p q r s t u v", 12)[0] == "a b c d e f g h i j"
    assert pieces("a.b.c.d.e.f.g.h.i.j", 8) == ["a.b.c.d.", "e.f.g.h.", "i.j"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ('one two "three four." Five six seven eight nine', 'one two "three four."'),
        ("one two (three four!) Five six seven eight nine", "one two (three four!)"),
        ("one two three four? five six seven eight nine ten", "one two three four?"),
        ("one two three four five Dr. Six seven eight nine ten", "one two three four five Dr. Six"),
        ("one two three four five vs. Six seven eight nine ten", "one two three four five vs. Six"),
        ("one two three four five J. Six seven eight nine ten", "one two three four five J. Six"),
        ("one two three four etc. six seven eight nine ten", "one two three four etc. six seven"),
        ("one two three four 3.14 six seven eight nine ten", "one two three four 3.14 six"),
        ("一二三四五六。七八九十一二三四五", "一二三四五六。"),
        ("一二三四「六。」七八九十一二三四五", "一二三四「六。」"),
        ("一二三四五六「七、八九十一二三四五", "一二三四五六"),
        ("एक दो तीन चार। पाँच छह सात आठ नौ दस", "एक दो तीन चार।"),
    ],
)
def test_sentences(text: str, first: str) -> None:
    tokens = words(text, r"[\u4e00-\u9fff]|[\w\u0900-\u0963]+|[^\w\s]")
    chunk = chunk_by_tokens(Kept(text, *tokens), 9 if "(" in text or '"' in text else 8)[0]
    assert text[chunk.start : chunk.end] == first


@pytest.mark.parametrize("newline", ["\n\n", "\r\n\r\n", "\n \t\n", "\u2029", "\r\r", "\u2028\u2028"])
@pytest.mark.parametrize("tokens", [words, spaced])
def test_blank_lines(newline: str, tokens: Any) -> None:
    text = f"a b c d e f{newline}g h. i j k l m n o p q r s"
    assert pieces(text, 12, tokens)[0] == "a b c d e f"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\u2028", "\x0c"])
def test_single_line_ends(newline: str) -> None:
    text = f"a b c d e f{newline}g h. I j k l m n o p q r s"
    assert pieces(text, 10)[0] == f"a b c d e f{newline}g h."
    assert pieces(text.replace(".", ""), 10)[0] == "a b c d e f"


def test_last_two_are_balanced() -> None:
    text = " ".join("x" * 105)
    assert [len(piece.split()) for piece in pieces(text, 100)] == [52, 53]
    assert [len(piece.split()) for piece in pieces(" ".join("x" * 130), 100)] == [100, 30]
    assert [len(piece.split()) for piece in pieces(" ".join("x" * 205), 100)] == [100, 52, 53]


def test_emoji_stay_whole() -> None:
    text = "😀😀😀"
    starts = np.repeat(np.arange(3), 4)
    chunks = chunk_by_tokens(Kept(text, starts, starts + 1), 6)
    assert chunks == [Chunk(0, 1, 0, 4), Chunk(1, 2, 4, 8), Chunk(2, 3, 8, 12)]
    assert chunk_by_tokens(Kept(text, starts, starts + 1), 3) == chunks


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ((1,), "expected a pair of whole numbers"),
        ((1, 2, 3), "expected a pair of whole numbers"),
        (3, "expected a pair of whole numbers"),
        (("0", "1"), "expected a pair of whole numbers"),
        ((0, 1.5), "expected a pair of whole numbers"),
        ((False, 5), "expected a pair of whole numbers"),
        ({0, 5}, "expected a pair of whole numbers"),
        ({0: 1, 5: 2}, "expected a pair of whole numbers"),
        (b"\0\5", "expected a pair of whole numbers"),
        ([[0, 5], [1]], "expected a pair of whole numbers"),
        (np.array([[0, 5]]), "expected a pair of whole numbers"),
        (np.array([0.0, 5.0]), "expected a pair of whole numbers"),
        ((0, 10**30), "leaves the document of 11 code points"),
        ((3, 3), "is empty"),
        ((5, 3), "is backwards"),
        ((-1, 3), "leaves the document of 11 code points"),
        ((0, 12), "leaves the document of 11 code points"),
        ((5, 6), "owns no token"),
        ((1, 5), "owns no token"),
    ],
)
def test_span_errors(span: Any, message: str) -> None:
    text = "hello world"
    with pytest.raises(InputError, match=re.escape("spans[1]") + f".*{message}"):
        chunk_by_spans(Kept(text, *words(text)), [(0, 5), span])


def test_spans_may_overlap() -> None:
    text = "one two three"
    spans = [(4, 13), (0, 7), (np.int64(0), np.int32(13)), [0, 1], np.array([4, 7], np.uint8)]
    chunks = chunk_by_spans(Kept(text, *words(text)), spans)
    assert chunks == [Chunk(4, 13, 1, 3), Chunk(0, 7, 0, 2), Chunk(0, 13, 0, 3), Chunk(0, 1, 0, 1), Chunk(4, 7, 1, 2)]
    assert chunk_by_spans(Kept(text, *words(text)), []) == []


@pytest.mark.parametrize("size", [0, -1])
def test_size_error(size: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        chunk_by_tokens(Kept("a", *words("a")), size)


def test_real_text(minilm: Path) -> None:
    text = "\n\n".join(pydoc_data.topics.topics.values())
    tokens = Tokenizer.load(minilm).encode([text], offsets=True)[0]
    assert tokens.starts is not None
    assert tokens.ends is not None
    for size in (1, 7, 64, 256, 10**9):
        started = time.perf_counter()
        chunks = chunk_by_tokens(Kept(text, tokens.starts, tokens.ends), size)
        assert time.perf_counter() - started < 30
        assert all(chunk.last - chunk.first <= size for chunk in chunks)
        assert all(2 * (chunk.last - chunk.first) >= size for chunk in chunks[:-2])
        spans = [(chunk.start, chunk.end) for chunk in chunks]
        assert chunk_by_spans(Kept(text, tokens.starts, tokens.ends), spans) == chunks
