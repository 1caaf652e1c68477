"""Vectors of the same chunks, made in two ways: each chunk embedded alone, and all pooled late from one pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import unit_rows

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Tokens that a chunk embedded alone may have beyond its size: special tokens, and a title where there is one.
ROOM = 64


@dataclass(frozen=True)
class Setting:
    """How a late pass sees a document: tokens of a window, and how much neighbours share, in percent of a window."""

    window: int
    overlap: int

    def __str__(self) -> str:
        return f"windows of {self.window} tokens, overlap {self.overlap} %"


@dataclass(frozen=True)
class Cut:
    """All chunks of a collection, document after document.

    Attributes:
        starts, ends: [M] code points.
        first: [documents + 1], where each document's chunks begin, and M.
    """

    starts: Int64
    ends: Int64
    first: Int64

    def same(self, other: Cut) -> bool:
        """Whether both are the same chunks."""
        return all(
            np.array_equal(mine, theirs)
            for mine, theirs in (
                (self.starts, other.starts),
                (self.ends, other.ends),
                (self.first, other.first),
            )
        )


@dataclass(frozen=True)
class LatePass:
    """What one pass gives: by size the chunks and their vectors [M, d], and the documents' own vectors [n, d]."""

    cuts: Mapping[int, Cut]
    chunks: Mapping[int, Float32]
    documents: Float32


def late_pass(
    encoder: Any, documents: Sequence[str], sizes: Sequence[int], setting: Setting, titles: Sequence[str] | None = None
) -> LatePass:
    """Embeds the documents in windows and pools every size of chunk from the same token vectors.

    With `titles`, each window begins with its document's title, which no chunk pools.
    """
    encoder.max_seq_length = setting.window
    room = setting.window - len(encoder.tokenizer.encode("").ids)
    options = {"chunk_tokens": tuple(sizes), "window_overlap": room * setting.overlap // 100}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # windows are what is measured
        if titles is None:
            embedded = encoder.encode_chunks(list(documents), **options)
        else:
            embedded = [
                encoder.encode_chunks(text, prompt=_header(title), **options)
                for text, title in zip(documents, titles, strict=True)
            ]
    levels = {size: [document.levels[size] for document in embedded] for size in sizes}
    return LatePass(
        cuts={size: _cut(chunks) for size, chunks in levels.items()},
        chunks={
            size: unit_rows(np.concatenate([level.vectors for level in chunks])) for size, chunks in levels.items()
        },
        documents=unit_rows(np.stack([document.vector for document in embedded])),
    )


def alone(
    encoder: Any, documents: Sequence[str], cut: Cut, window: int, titles: Sequence[str] | None = None
) -> tuple[Float32, Float32]:
    """Each chunk as a text of its own, seen whole in a window of that many tokens.

    With `titles`, each begins with its document's title, unless that is what the chunk begins with.

    Returns:
        [M, d], pooled as the checkpoint pools texts, and [M, d] without the special tokens, which late chunks lack too.
    """
    encoder.max_seq_length = window
    texts = []
    for number, document in enumerate(documents):
        for place in range(int(cut.first[number]), int(cut.first[number + 1])):
            text = document[cut.starts[place] : cut.ends[place]]
            header = "" if titles is None or text.startswith(titles[number]) else _header(titles[number])
            texts.append(header + text)
    embedded = encoder.encode_chunks(texts, spans=[[(0, len(text))] for text in texts])
    return (
        unit_rows(np.stack([text.vector for text in embedded])),
        unit_rows(np.stack([text.vectors[0] for text in embedded])),
    )


def whole_documents(encoder: Any, documents: Sequence[str], window: int) -> Float32:
    """[n, d]: each document as one text that is cut at so many tokens, which is what most libraries do."""
    encoder.max_seq_length = window
    before, encoder.long_text = encoder.long_text, "truncate"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that texts are cut is what is measured
        vectors = encoder.encode_document(list(documents))
    encoder.long_text = before
    return unit_rows(np.asarray(vectors, dtype=np.float32))


def blend(left: Float32, right: Float32) -> Float32:
    """Unit vectors in the direction of the sums of two sets of vectors: halfway, where those are of unit length."""
    return unit_rows(left + right)


def per_chunk(documents: Float32, cut: Cut) -> Float32:
    """[M, d]: for each chunk its document's row."""
    return np.repeat(documents, np.diff(cut.first), axis=0)


def neighbours(chunks: Float32, cut: Cut) -> Float32:
    """[M, d]: for each chunk the mean of the one before and the one after in its document; zero if it is alone."""
    document = np.repeat(np.arange(len(cut.first) - 1), np.diff(cut.first))
    together = (document[1:] == document[:-1]).astype(np.float32)[:, None]
    total, count = np.zeros_like(chunks), np.zeros((len(chunks), 1), dtype=np.float32)
    total[1:] += together * chunks[:-1]
    total[:-1] += together * chunks[1:]
    count[1:] += together
    count[:-1] += together
    return np.asarray(total / np.maximum(count, 1), dtype=np.float32)


def likeness(chunks: Float32, cut: Cut) -> float:
    """The mean cosine between two chunks of one document, over the documents with two or more."""
    values = []
    for first, last in zip(cut.first[:-1].tolist(), cut.first[1:].tolist(), strict=True):
        count = last - first
        if count > 1:
            total = chunks[first:last].sum(axis=0, dtype=np.float64)
            values.append((float(total @ total) - count) / (count * (count - 1)))
    return float(np.mean(values)) if values else float("nan")


def _header(title: str) -> str:
    return f"{title}\n" if title else ""


def _cut(levels: Sequence[Any]) -> Cut:
    spans = np.array([span for level in levels for span in level.spans], dtype=np.int64).reshape(-1, 2)
    first = np.cumsum([0, *(len(level) for level in levels)], dtype=np.int64)
    return Cut(spans[:, 0], spans[:, 1], first)
