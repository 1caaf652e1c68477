"""Texts that come one by one, vectors that leave as soon as they are final: bounded memory, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .encoding import LongTexts, Options, chunk_vectors, slices, text_vectors, warn_long_texts
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
    for part in slices(pipeline, _checked(texts, options.what), options, offsets=False):
        yield from text_vectors(pipeline, part, options)
        found.add(part.usages)
    warn_long_texts(found, options)


def stream_chunks(
    pipeline: Pipeline, texts: Iterable[object], options: Options, chunker: Chunker
) -> Iterator[StreamedChunk]:
    """The chunks of every document, in order."""
    index = 0
    for part in slices(pipeline, _checked(texts, options.what), options, offsets=True):
        for document in chunk_vectors(pipeline, part, options, chunker, ()):
            for number, (span, vector) in enumerate(zip(document.spans, document.vectors, strict=True)):
                yield StreamedChunk(index, number, span, vector)
            index += 1


def _checked(texts: Iterable[object], what: str) -> Iterator[str]:
    for index, text in enumerate(texts):
        yield check_text(text, f"{what}[{index}]")
