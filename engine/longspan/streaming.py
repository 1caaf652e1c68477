"""Texts that come one by one, vectors that leave as soon as they are final: bounded memory, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from .chunk_plan import TEXTS, StreamPlan
from .encoding import chunk_vectors, text_vectors
from .errors import InputError
from .long_texts import LongTexts, warn_long_texts
from .options import Options
from .pipeline import Pipeline
from .pooling.precision import Vectors
from .results import Chunks
from .slices import Slice, make_slice, slices, streamed_groups
from .text.chunkers import Chunker, by_spans


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


class SizedChunk(NamedTuple):
    """One chunk of a stream of documents that are chunked in several sizes.

    Attributes:
        document, chunk, span, vector: as in `StreamedChunk`; `chunk` counts those of this size.
        size: the most tokens of its level.
    """

    document: int
    chunk: int
    span: tuple[int, int]
    vector: Vectors
    size: int


def stream(pipeline: Pipeline, plan: StreamPlan, options_for: Callable[[bool], Options]) -> Iterator[Any]:
    """One vector [d] per text, or the chunks of every document, level by level.

    Args:
        pipeline: the checkpoint.
        plan: the texts, and what the chunks are.
        options_for: the options of the call, by whether there are chunks.
    """
    first = list(islice(plan.inputs, 1))
    listed = any(item.spans is not None for item in first)
    chunker = by_spans(TEXTS) if listed else plan.chunker
    options, found = options_for(chunker is not None), LongTexts()
    groups = streamed_groups(chain(first, plan.inputs))
    try:
        for part in slices(pipeline, groups, options, offsets=chunker is not None):
            found.add(part.usages)
            if chunker is None:
                # Copies, so that keeping one vector does not keep the whole slice's.
                yield from (vector.copy() for vector in text_vectors(pipeline, part, options))
            else:
                yield from _chunks(pipeline, part, options, chunker, plan.sizes)
            del part  # before the next is waited for
    finally:  # also where the caller takes no more
        warn_long_texts(found, options)


def _chunks(
    pipeline: Pipeline, part: Slice, options: Options, chunker: Chunker, sizes: Sequence[int]
) -> Iterator[StreamedChunk | SizedChunk]:
    try:
        documents = list(chunk_vectors(pipeline, part, options, chunker, sizes))
    except InputError:
        if len(part.documents) == 1:
            raise
        for one in part.group.one_by_one():  # those before the bad one come first
            yield from _chunks(pipeline, make_slice(pipeline, one, options, offsets=True), options, chunker, sizes)
        return
    for index, document in enumerate(documents, part.start):
        if len(sizes) > 1:
            for size, level in document.levels.items():
                yield from (SizedChunk(*row, size) for row in _rows(index, level))
        else:
            yield from (StreamedChunk(*row) for row in _rows(index, document.chunks))


def _rows(index: int, chunks: Chunks) -> Iterator[tuple[int, int, tuple[int, int], Vectors]]:
    for number, (span, vector) in enumerate(zip(chunks.spans, chunks.vectors, strict=True)):
        yield index, number, span, vector.copy()
