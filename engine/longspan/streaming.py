"""Texts that come one by one, vectors that leave as soon as they are final: bounded memory, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .encoding import LongTexts, Options, Slice, chunk_vectors, slices, text_vectors, warn_long_texts
from .pipeline import Pipeline
from .pooling.precision import Vectors
from .text.chunkers import Chunker
from .text.inputs import check_text


class StreamedChunk(NamedTuple):
    """One chunk of a stream of documents.

    Attributes:
        document: the index of its document in the stream.
        chunk: its index in the document.
        span: [start, end) in code points of the document.
        vector: [d].
    """

    document: int
    chunk: int
    span: tuple[int, int]
    vector: Vectors


def stream_texts(pipeline: Pipeline, texts: Iterable[object], options: Options) -> Iterator[Vectors]:
    """One vector [d] per text."""
    found = LongTexts()
    try:
        for part in slices(pipeline, _checked(texts, options.what), options, offsets=False):
            found.add(part.usages)
            # Copies, so that keeping one vector does not keep the whole slice's.
            yield from (vector.copy() for vector in text_vectors(pipeline, part, options))
            del part  # before the next is waited for
    finally:  # also where the caller takes no more
        warn_long_texts(found, options)


def stream_chunks(
    pipeline: Pipeline, texts: Iterable[object], options: Options, chunker: Chunker
) -> Iterator[StreamedChunk]:
    """The chunks of every document, in order."""
    for part in slices(pipeline, _checked(texts, options.what), options, offsets=True):
        yield from _chunks(pipeline, part, options, chunker)
        del part  # before the next is waited for


def _chunks(pipeline: Pipeline, part: Slice, options: Options, chunker: Chunker) -> Iterator[StreamedChunk]:
    for index, document in enumerate(chunk_vectors(pipeline, part, options, chunker, ()), part.start):
        for number, (span, vector) in enumerate(zip(document.spans, document.vectors, strict=True)):
            yield StreamedChunk(index, number, span, vector.copy())


def _checked(texts: Iterable[object], what: str) -> Iterator[str]:
    for index, text in enumerate(texts):
        yield check_text(text, f"{what}[{index}]")
