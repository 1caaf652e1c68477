"""What holds of late-chunked vectors for every text: sums, independence, code points. A random model, real tokens.

The model pools the mean and has no tail, so a vector times its tokens is the sum of its partials.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longspan import DocumentEmbedding, Encoder

pytestmark = pytest.mark.filterwarnings("ignore::longspan.LongTextWarning")

WORDS = ["the", "harbour", "Unbelievably", "3.7", "e.g.", "naïve", "x" * 30]
MARKS = [". ", "? ", ", ", " ", "  ", "\n", "\r\n", "\r\n\r\n", "\u2028", "\u2029", "\t", "\u00a0"]
SCRIPTS = [
    "👩‍👩‍👧",
    "🇩🇪🇫🇷",
    "👍🏽",
    "cafe\u0301",
    "A\u030a\u0301",
    "각각",
    "שלום עולם",
    "مرحبا",
    "\u202eabc\u202c",
    "漢字。",
    "हिन्दी।",
    "\u200b",
    "\ufeff",
    "\0",
    "😀",
]
fragments = st.lists(st.sampled_from([*WORDS, *MARKS, *SCRIPTS]), max_size=60)
texts = fragments.map("".join)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def encoder(small: Path) -> Encoder:
    return Encoder(small, device="cpu", threads=2)


@contextmanager
def window(encoder: Encoder, tokens: int) -> Iterator[None]:
    """A model that sees so few tokens that ordinary texts need windows."""
    before = encoder.max_seq_length
    encoder.max_seq_length = tokens
    try:
        yield
    finally:
        encoder.max_seq_length = before


def bits(vectors: Any) -> list[bytes]:
    return [vector.tobytes() for vector in vectors]


def tokens_of(encoder: Encoder, text: str) -> list[tuple[int, int]]:
    """Each token's first visible code point and its end, straight from the tokenizers library."""
    places = []
    for start, end in encoder.tokenizer.encode(text, add_special_tokens=False).offsets:
        blank = len(text[start:end]) - len(text[start:end].lstrip())
        places.append((start + (blank if text[start:end].strip() else 0), end))
    return places


# --- sums -----------------------------------------------------------------------------------------------------------


@quick
@given(text=texts, sizes=st.sets(st.integers(1, 20), min_size=1, max_size=3), seen=st.integers(10, 40))
@pytest.mark.parametrize("prompt", ["", "passage: "])
def test_chunks_and_specials_sum_to_the_document(
    encoder: Encoder, text: str, sizes: set[int], seen: int, prompt: str
) -> None:
    levels = tuple(sorted(sizes))
    with window(encoder, seen):
        result = encoder.encode_chunks(text, chunk_tokens=levels, prompt=prompt)
        # Every counted row: the specials and the prompt of the first window, the text's own, the last one's special.
        rows = encoder.encode(text, output_value="token_embeddings", prompt=prompt).astype(np.float64)
        whole = encoder.encode(text, prompt=prompt)
    lead = len(rows) - result.n_tokens - 1
    assert lead == 1 + len(encoder.tokenizer.encode(prompt, add_special_tokens=False).ids)
    specials = rows[:lead].sum(0) + rows[-1]
    for size in levels:
        level = result.levels[size]
        counts = [last - first for first, last in level.token_spans]
        assert sum(counts) == result.n_tokens
        total = specials + sum((n * v.astype(np.float64) for n, v in zip(counts, level.vectors, strict=True)), 0.0)
        np.testing.assert_allclose(total / len(rows), whole, atol=2e-6)
    assert result.vector.tobytes() == whole.tobytes()


# --- independence ---------------------------------------------------------------------------------------------------


@st.composite
def documents_with_spans(draw: st.DrawFn) -> list[tuple[str, list[tuple[int, int]]]]:
    """Texts, and for each some spans that own a token: from one word to another."""
    documents = []
    for _ in range(draw(st.integers(1, 4))):
        words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=50))
        ends = np.cumsum([len(word) + 1 for word in words]).tolist()
        starts = [0, *ends[:-1]]
        place = st.integers(0, len(words) - 1)
        pairs = draw(st.lists(st.tuples(place, place).map(sorted), max_size=6))
        documents.append((" ".join(words), [(starts[a], ends[b] - 1) for a, b in pairs]))
    return documents


@quick
@given(documents=documents_with_spans(), seen=st.integers(10, 40), threads=st.sampled_from([1, 3]))
def test_a_span_does_not_know_the_others(
    small: Path, encoder: Encoder, documents: list[tuple[str, list[tuple[int, int]]]], seen: int, threads: int
) -> None:
    other = Encoder(small, device="cpu", threads=threads, max_seq_length=seen)
    with window(encoder, seen):
        together = other.encode_chunks([text for text, _ in documents], spans=[spans for _, spans in documents])
        for (text, spans), result in zip(documents, together, strict=True):
            alone = [encoder.encode_chunks(text, spans=[span]) for span in spans]
            assert bits(result.vectors) == [one.vectors[0].tobytes() for one in alone]
            assert list(result.token_spans) == [one.token_spans[0] for one in alone]


@quick
@given(text=texts, others=st.lists(texts, max_size=2), levels=st.permutations([3, 5, 16]), seen=st.integers(10, 40))
def test_a_level_does_not_know_the_others(
    encoder: Encoder, text: str, others: list[str], levels: list[int], seen: int
) -> None:
    with window(encoder, seen):
        together = encoder.encode_chunks([*others, text, *others], chunk_tokens=tuple(levels))[len(others)]
        for size in levels:
            alone = encoder.encode_chunks(text, chunk_tokens=size)
            assert same(together.levels[size], alone)
            if not any(token_is_blank(encoder, text, token) for token in range(alone.n_tokens)):
                assert same(encoder.encode_chunks(text, spans=list(alone.spans)), alone)


def same(found: Any, alone: DocumentEmbedding) -> bool:
    return (list(found.spans), list(found.token_spans), bits(found.vectors)) == (
        list(alone.spans),
        list(alone.token_spans),
        bits(alone.vectors),
    )


def token_is_blank(encoder: Encoder, text: str, token: int) -> bool:
    """A token without a visible code point lies between spans."""
    start, end = encoder.tokenizer.encode(text, add_special_tokens=False).offsets[token]
    return not text[start:end].strip()


# --- code points ----------------------------------------------------------------------------------------------------


@quick
@given(parts=fragments, cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)), prompt=st.sampled_from(["", "p: "]))
def test_spans_are_code_points(encoder: Encoder, parts: list[str], cuts: tuple[int, int], prompt: str) -> None:
    first, last = sorted(min(cut, len(parts)) for cut in cuts)
    text = "".join(parts)
    start, end = len("".join(parts[:first])), len("".join(parts[:last]))
    owned = [i for i, (place, _) in enumerate(tokens_of(encoder, text)) if start <= place < end]
    if not owned:
        return
    result = encoder.encode_chunks(text, spans=[(start, end)], prompt=prompt)
    assert result.text(0) == "".join(parts[first:last])
    assert result.token_spans == [(owned[0], owned[-1] + 1)]
    assert len(owned) == owned[-1] + 1 - owned[0]


@quick
@given(text=texts, size=st.integers(1, 12))
def test_chunks_are_code_points(encoder: Encoder, text: str, size: int) -> None:
    """Each chunk's span holds the visible code points of its tokens, and nothing visible is left out."""
    result = encoder.encode_chunks(text, chunk_tokens=size)
    places = tokens_of(encoder, text)
    for index, ((start, end), (first, last)) in enumerate(zip(result.spans, result.token_spans, strict=True)):
        assert 0 <= start < end <= len(text)
        assert result.text(index) == text[start:end]
        assert all(start <= place < end for place, _ in places[first:last] if text[place].strip())
    assert all(before[1] <= after[0] for before, after in pairwise(result.spans))
    inside = {place for start, end in result.spans for place in range(start, end)}
    assert all(place in inside for place, _ in places if text[place].strip())


# --- lists of chunks ------------------------------------------------------------------------------------------------


@quick
@given(
    documents=st.lists(st.lists(st.sampled_from([*WORDS, *SCRIPTS[:11], "two words"]), max_size=8), max_size=4),
    joiner=st.sampled_from([None, " ", "", "\n\n", " — "]),
    seen=st.integers(10, 40),
)
def test_lists_of_chunks_are_spans_of_the_joined_text(
    encoder: Encoder, documents: list[list[str]], joiner: str | None, seen: int
) -> None:
    between = " " if joiner is None else joiner
    spans = []
    for chunks in documents:
        ends = [len(between.join(chunks[: i + 1])) for i in range(len(chunks))]
        spans.append([(end - len(chunk), end) for chunk, end in zip(chunks, ends, strict=True)])
    joined = [between.join(chunks) for chunks in documents]
    for text, wanted in zip(joined, spans, strict=True):  # a chunk may be without a token, if its first is shared
        places = [place for place, _ in tokens_of(encoder, text)]
        if not all(any(start <= place < end for place in places) for start, end in wanted):
            return
    with window(encoder, seen):
        given_lists = encoder.encode_chunks(documents, joiner=joiner)
        given_spans = encoder.encode_chunks(joined, spans=spans)
    for left, right in zip(given_lists, given_spans, strict=True):
        assert same(left, right)
        assert left.vector.tobytes() == right.vector.tobytes()
    for chunks, result in zip(documents, given_lists, strict=True):
        assert [result.text(i) for i in range(len(result))] == chunks
