"""Texts to vectors and documents to chunk vectors: slices of bounded size through the pipeline, in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from .batch import Float32, Partials
from .options import Options
from .pipeline import Pipeline
from .pooling.modes import Mode
from .pooling.partials import document_partials, join, span_partials, token_partials
from .pooling.precision import Vectors, empty_vectors, to_precision
from .progress import Progress
from .results import Chunks, DocumentEmbedding, Usage
from .slices import Slice, listed_groups, slices
from .text.chunkers import Chunker
from .text.chunks import Chunk, Kept
from .text.inputs import Input


def embed_texts(pipeline: Pipeline, inputs: Sequence[Input], options: Options) -> tuple[Vectors, list[Usage]]:
    """One vector per text, [n, dimension] in the precision of the call, and what was used of each."""
    vectors = empty_vectors(len(inputs), options.dimension, options.precision)
    usages: list[Usage] = []
    with _call(pipeline, inputs, options) as progress:
        if pipeline.ceiling is not None:
            vectors.fill(0)  # which takes the memory now, before others measure what is left
        for part in _slices(pipeline, inputs, options, offsets=False):
            progress.begin(len(part.packed.ids), part.group.characters)
            vectors[part.start : part.start + len(part.documents)] = text_vectors(
                pipeline, part, options, progress.reach
            )
            usages += part.usages
    return vectors, usages


def embed_tokens(pipeline: Pipeline, inputs: Sequence[Input], options: Options) -> tuple[list[Float32], list[Usage]]:
    """The vectors of every token of each text, specials included: [n_i, D] float32 each, as the body leaves them."""
    matrices: list[Float32] = []
    usages: list[Usage] = []
    with _call(pipeline, inputs, options) as progress:
        for part in _slices(pipeline, inputs, options, offsets=False):
            progress.begin(len(part.packed.ids), part.group.characters)
            partials, counts = token_partials(part.packed)
            pooled = pipeline.run_body(part.packed, (partials,) * len(pipeline.modes), progress.reach)
            # Copies, so that keeping one text's matrix does not keep the whole slice's.
            matrices += [matrix.copy() for matrix in np.split(pooled[0], np.cumsum(counts)[:-1])]
            usages += part.usages
    return matrices, usages


def embed_chunks(
    pipeline: Pipeline, inputs: Sequence[Input], options: Options, chunker: Chunker, sizes: Sequence[int]
) -> tuple[list[DocumentEmbedding], list[Usage]]:
    """Late-chunked vectors of documents: one pass over each one's windows.

    Args:
        pipeline: the checkpoint.
        inputs: the documents.
        options: how they are treated.
        chunker: says what the chunks are.
        sizes: the chunker's levels by name, or nothing.

    Raises:
        InputError: a span is not usable.
    """
    results: list[DocumentEmbedding] = []
    usages: list[Usage] = []
    with _call(pipeline, inputs, options) as progress:
        for part in _slices(pipeline, inputs, options, offsets=True):
            progress.begin(len(part.packed.ids), part.group.characters)
            levels = [chunk_levels(part, i, chunker) for i in range(len(part.documents))]
            results += chunk_vectors(pipeline, part, levels, options, sizes, progress.reach)
            usages += part.usages
    return results, usages


@contextmanager
def _call(pipeline: Pipeline, inputs: Sequence[Input], options: Options) -> Iterator[Progress]:
    """A turn of the pipeline, and a progress bar over the texts."""
    with (
        pipeline.call(len(inputs), options.dimension, options.unit),
        Progress(options.show_progress, sum(len(item.text) for item in inputs)) as progress,
    ):
        yield progress


def _slices(pipeline: Pipeline, inputs: Sequence[Input], options: Options, *, offsets: bool) -> Iterator[Slice]:
    """Those of a list of texts; nothing is computed of one with a text that is not usable."""
    for part in slices(pipeline, listed_groups(inputs, pipeline.memory), options, offsets=offsets):
        if part.failure is not None:
            raise part.failure
        yield part
        del part  # before the next is waited for


Poll = Callable[[int], None]
"""What is told now and then how many tokens of a slice are done."""


def text_vectors(pipeline: Pipeline, part: Slice, options: Options, poll: Poll | None = None) -> Vectors:
    """One vector per text of a slice."""
    include_prompt = pipeline.recipe.include_prompt
    partials = tuple(document_partials(part.packed, mode, include_prompt=include_prompt) for mode in pipeline.modes)
    return finish(pipeline, pipeline.run_body(part.packed, partials, poll), partials, options)


def chunk_vectors(
    pipeline: Pipeline,
    part: Slice,
    levels: Sequence[list[list[Chunk]]],
    options: Options,
    sizes: Sequence[int],
    poll: Poll | None = None,
) -> Iterator[DocumentEmbedding]:
    """The documents of a slice with their chunks; `levels` are those of each document."""
    partials = tuple(_all_partials(pipeline, part, levels, index) for index in range(len(pipeline.modes)))
    vectors = finish(pipeline, pipeline.run_body(part.packed, partials, poll), partials, options)
    return _results(part, levels, vectors, sizes)


def finish(
    pipeline: Pipeline, pooled: tuple[Float32, ...], partials: tuple[Partials, ...], options: Options
) -> Vectors:
    """Partials to vectors in the precision of the call."""
    vectors = pipeline.run_tail(pooled, partials, options.dimension, options.unit)
    return to_precision(vectors, options.precision, options.ranges)


def chunk_levels(part: Slice, i: int, chunker: Chunker) -> list[list[Chunk]]:
    """The chunks of one of a slice's documents, level by level; raises an InputError if they are not usable."""
    tokens = part.tokens[i]
    count = len(part.documents[i].ids)
    assert tokens.starts is not None
    assert tokens.ends is not None
    document = part.group.inputs[i]
    kept = Kept(document.text, tokens.starts[:count], tokens.ends[:count], cut=count < len(tokens.ids))
    return chunker(part.start + i, document, kept)


def _all_partials(pipeline: Pipeline, part: Slice, levels: Sequence[list[list[Chunk]]], index: int) -> Partials:
    """The documents themselves, then the chunks of each document, level by level."""
    mode = pipeline.modes[index]
    parts = [document_partials(part.packed, mode, include_prompt=pipeline.recipe.include_prompt)]
    return join([*parts, *(chunk_partials(part, i, mine, mode) for i, mine in enumerate(levels))])


def chunk_partials(part: Slice, i: int, levels: list[list[Chunk]], mode: Mode) -> Partials:
    """The chunks of one of a slice's documents, level by level."""
    chunks = [chunk for level in levels for chunk in level]
    firsts = np.array([chunk.first for chunk in chunks], np.int64)
    lasts = np.array([chunk.last for chunk in chunks], np.int64)
    return span_partials(part.packed, i, firsts, lasts, mode)


def _results(
    part: Slice, levels: Sequence[list[list[Chunk]]], vectors: Vectors, sizes: Sequence[int]
) -> Iterator[DocumentEmbedding]:
    row = len(part.documents)
    for i, mine in enumerate(levels):
        cut: list[Chunks] = []
        for level in mine:
            cut.append(_named(part.group.inputs[i].text, level, vectors[row : row + len(level)]))
            row += len(level)
        yield DocumentEmbedding(
            chunks=cut[0],
            levels=dict(zip(sizes, cut, strict=False)),
            vector=vectors[i],
            windows=part.documents[i].windows,
            n_tokens=len(part.documents[i].ids),
            cut=len(part.documents[i].ids) < len(part.tokens[i].ids),
        )


def _named(text: str, chunks: Sequence[Chunk], vectors: Vectors) -> Chunks:
    return Chunks(
        vectors=vectors,
        spans=[(chunk.start, chunk.end) for chunk in chunks],
        token_spans=[(chunk.first, chunk.last) for chunk in chunks],
        _document=text,
    )
