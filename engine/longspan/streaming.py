"""Texts that come one by one, vectors that leave as soon as they are final: bounded memory, in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from .chunk_plan import TEXTS, StreamPlan
from .encoding import chunk_levels, chunk_partials, chunk_vectors, text_vectors
from .errors import InputError, LongTextWarning
from .leaving import leaving
from .long_texts import LongTexts, warn_long_texts
from .options import Options
from .pipeline import Pipeline
from .pooling.partials import join
from .pooling.precision import Vectors
from .results import Chunks
from .slices import Slice, slices, streamed_groups
from .text.chunkers import Chunker, by_spans
from .text.chunks import Chunk


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


def stream(plan: StreamPlan, call: Callable[[bool], tuple[Pipeline, Options]]) -> Iterator[Any]:
    """One vector [d] per text, or the chunks of every document, level by level.

    Args:
        plan: the texts, and what the chunks are.
        call: the pipeline and the options, by whether there are chunks.
    """
    first = list(islice(plan.inputs, 1))
    listed = any(item.spans is not None for item in first)
    chunker = by_spans(TEXTS) if listed else plan.chunker
    (pipeline, options), found = call(chunker is not None), LongTexts()
    groups = streamed_groups(chain(first, plan.inputs), pipeline.memory)
    try:
        for part in slices(pipeline, groups, options, offsets=chunker is not None):
            found.add(part.usages)
            if chunker is None:
                # Copies, so that keeping one vector does not keep the whole slice's.
                yield from (vector.copy() for vector in text_vectors(pipeline, part, options))
            else:
                yield from _chunks(pipeline, part, options, chunker, plan.sizes)
            del part  # before the next is waited for
    except Exception:
        with contextlib.suppress(LongTextWarning):  # which may be an error, and must not stand in for the other one
            warn_long_texts(found, options)
        raise
    except GeneratorExit:  # the caller takes no more
        warn_long_texts(found, options)
        raise
    warn_long_texts(found, options)


def _chunks(
    pipeline: Pipeline, part: Slice, options: Options, chunker: Chunker, sizes: Sequence[int]
) -> Iterator[StreamedChunk | SizedChunk]:
    levels: list[list[list[Chunk]]] = []
    failure: InputError | None = None
    try:
        for i in range(len(part.documents)):
            levels.append(chunk_levels(part, i, chunker))
    except InputError as error:  # which comes after the documents before it
        failure, part = error, part.head(pipeline, len(levels))
    if len(sizes) > 1:
        for index, document in enumerate(chunk_vectors(pipeline, part, levels, options, sizes), part.start):
            for size, level in document.levels.items():
                yield from (SizedChunk(*row, size) for row in _rows(index, level))
    elif levels:
        yield from _leaving(pipeline, part, levels, options)
    if failure is not None:
        raise failure


def _leaving(
    pipeline: Pipeline, part: Slice, levels: Sequence[list[list[Chunk]]], options: Options
) -> Iterator[StreamedChunk]:
    """Chunks of one level, those of a long document before it is done."""
    partials = tuple(
        join([chunk_partials(part, i, mine, mode) for i, mine in enumerate(levels)]) for mode in pipeline.modes
    )
    vectors = (vector.copy() for some in leaving(pipeline, part.packed, partials, options) for vector in some)
    for index, (chunks,) in enumerate(levels, part.start):
        for number, chunk in enumerate(chunks):
            yield StreamedChunk(index, number, (chunk.start, chunk.end), next(vectors))


def _rows(index: int, chunks: Chunks) -> Iterator[tuple[int, int, tuple[int, int], Vectors]]:
    for number, (span, vector) in enumerate(zip(chunks.spans, chunks.vectors, strict=True)):
        yield index, number, span, vector.copy()
