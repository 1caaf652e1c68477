"""Texts to vectors and documents to chunk vectors: slices of bounded size through the pipeline, in input order."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from . import _csrc
from .batch import Float32, Partials
from .checks import one_of
from .errors import InputError, LongTextWarning
from .pipeline import Pipeline, PromptedTokens
from .pooling.partials import document_partials, join, span_partials, token_partials
from .pooling.precision import Precision, Ranges, Vectors, empty_vectors, to_precision
from .prefetch import prefetched
from .progress import Progress
from .results import Chunks, DocumentEmbedding, Usage
from .text.chunkers import Chunker
from .text.chunks import Chunk
from .text.packing import Document, PackedTexts
from .text.separator import Separated
from .text.windows import LongText

_SLICE_TEXTS = 4096
_SLICE_CHARACTERS = 1 << 21


@dataclass(frozen=True, slots=True)
class Options:
    """How a call treats its texts.

    Attributes:
        prompt: put before every text.
        max_seq_length: tokens that the model sees at a time, specials and prompt included.
        long_text: what becomes of longer texts.
        dimension: of the vectors.
        unit: whether vectors have unit length.
        precision: of the vectors.
        ranges: for int8 and uint8, from calibration.
        window_overlap: tokens that neighbouring windows share; None means a quarter of a window.
        count_tokens: whether the length of a text that is cut is of interest.
        show_progress: as in `Progress`.
        what: how the caller names the inputs, for messages.
        separated: the texts as lists of chunks with a special token between them, where they are given so.
    """

    prompt: str
    max_seq_length: int
    long_text: LongText
    dimension: int
    unit: bool
    precision: Precision = "float32"
    ranges: Ranges | None = None
    window_overlap: int | None = None
    count_tokens: bool = False
    show_progress: bool | None = None
    what: str = "inputs"
    separated: Separated | None = None


def check_long_text(value: str) -> LongText:
    """The policy by name; raises as `one_of`."""
    policy: LongText = one_of(value, get_args(LongText), "long_text")
    return policy


@dataclass(slots=True)
class LongTexts:
    """How many of a call's texts did not fit. Counts alone: a stream may be long.

    Attributes:
        texts: how many there were.
        long: how many of them did not fit.
        longest: tokens of the longest of these.
    """

    texts: int = 0
    long: int = 0
    longest: int = 0

    def add(self, usages: Sequence[Usage]) -> LongTexts:
        """Count some more."""
        lengths = [usage.n_tokens for usage in usages if usage.n_windows > 1 or usage.n_used < usage.n_tokens]
        self.texts += len(usages)
        self.long += len(lengths)
        self.longest = max(self.longest, *lengths, 0)
        return self


def warn_long_texts(found: LongTexts, options: Options) -> None:
    """Say once what happened to how many texts, if any did not fit; the warning points at the caller of the library."""
    if found.long:
        done = "were cut" if options.long_text == "truncate" else "were embedded in overlapping windows"
        counted = options.count_tokens or options.long_text != "truncate"
        longest = f" (the longest has {found.longest})" if counted else ""
        message = (
            f"{found.long} of {found.texts} texts are longer than the {options.max_seq_length} tokens that the model "
            f"sees at a time{longest} and {done}; choose with long_text='window', 'truncate' or 'error'"
        )
        warnings.warn(LongTextWarning(message, found.long), stacklevel=_levels_to_caller())


def _levels_to_caller() -> int:
    """The `stacklevel` with which the function that calls this one warns about the first frame outside the package."""
    package = str(Path(__file__).parent)
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    return level


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of a call's texts, tokenised and packed.

    Attributes:
        start: the index of the first.
        texts, tokens, documents: one entry per text.
        packed: their windows.
    """

    start: int
    texts: Sequence[str]
    tokens: Sequence[PromptedTokens]
    documents: Sequence[Document]
    packed: PackedTexts

    @property
    def characters(self) -> int:
        """The length of the texts."""
        return sum(map(len, self.texts))

    @property
    def usages(self) -> list[Usage]:
        """What the model sees of each text."""
        return [
            Usage(len(tokens.ids), len(document.ids), len(document.windows))
            for tokens, document in zip(self.tokens, self.documents, strict=True)
        ]


def slices(pipeline: Pipeline, texts: Iterable[str], options: Options, *, offsets: bool) -> Iterator[Slice]:
    """The texts in groups of bounded number and size, taken as they are needed; the next is tokenised meanwhile.

    Raises:
        InputError: a text is too long and the policy is "error", or the prompt leaves no room.
    """
    made = (_slice(pipeline, start, group, options, offsets) for start, group in _groups(texts))
    # A call with one slice, such as a single query, has nothing to overlap and needs no thread.
    single = isinstance(texts, list) and len(texts) <= _SLICE_TEXTS and sum(map(len, texts)) <= _SLICE_CHARACTERS
    return made if single else _trimmed(prefetched(made))


def _trimmed(parts: Iterator[Slice]) -> Iterator[Slice]:
    """The same slices; what each one leaves is given back to the system, so that many take no more than a few."""
    for part in parts:
        yield part
        del part
        _csrc.trim_memory()


def _slice(pipeline: Pipeline, start: int, group: list[str], options: Options, offsets: bool) -> Slice:
    # One token more than fits shows that a text is cut; how many there are is counted only for those who ask.
    limit = options.max_seq_length + 1 if options.long_text == "truncate" and not options.count_tokens else None
    if options.separated is None:
        tokens = pipeline.tokenize(group, options.prompt, offsets=offsets, limit=limit)
    else:
        mine = options.separated.documents[start : start + len(group)]
        tokens = pipeline.tokenize_separated(Separated(options.separated.separator, mine), options.prompt)
    _check_ids(pipeline, tokens, start, options)
    documents = [_document(pipeline, item, start + i, options) for i, item in enumerate(tokens)]
    return Slice(start, group, tokens, documents, pipeline.pack(documents))


def _groups(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """(index of the first, texts)."""
    start, characters = 0, 0
    group: list[str] = []
    for text in texts:
        if group and (len(group) == _SLICE_TEXTS or characters + len(text) > _SLICE_CHARACTERS):
            yield start, group
            start, characters, group = start + len(group), 0, []
        group.append(text)
        characters += len(text)
    if group:
        yield start, group


def _check_ids(pipeline: Pipeline, group: Sequence[PromptedTokens], start: int, options: Options) -> None:
    known = pipeline.vocabulary
    for i, tokens in enumerate(group):
        for ids in (tokens.prompt, tokens.ids):
            if len(ids) and int(ids.max()) >= known:
                token = pipeline.tokenizer.raw.id_to_token(int(ids.max()))
                raise InputError(
                    f"{options.what}[{start + i}] has the token {token!r} of id {int(ids.max())}, but the checkpoint "
                    f"embeds {known} ids only: {pipeline.recipe.transformer} holds another model's tokenizer"
                )


def _document(pipeline: Pipeline, tokens: PromptedTokens, index: int, options: Options) -> Document:
    truncate = options.long_text == "truncate"
    document = pipeline.windowed(tokens, options.max_seq_length, overlap=options.window_overlap, truncate=truncate)
    if options.long_text == "error" and len(document.windows) > 1:
        room = pipeline.capacity(len(tokens.prompt), options.max_seq_length)
        raise InputError(f"{options.what}[{index}] has {len(tokens.ids)} tokens, but only {room} fit the model at once")
    return document


def embed_texts(pipeline: Pipeline, texts: Sequence[str], options: Options) -> tuple[Vectors, list[Usage]]:
    """One vector per text, [n, dimension] in the precision of the call, and what was used of each."""
    vectors = empty_vectors(len(texts), options.dimension, options.precision)
    usages: list[Usage] = []
    with Progress(options.show_progress, sum(map(len, texts))) as progress:
        for part in slices(pipeline, texts, options, offsets=False):
            progress.begin(len(part.packed.ids), part.characters)
            vectors[part.start : part.start + len(part.texts)] = text_vectors(pipeline, part, options, progress.reach)
            usages += part.usages
    return vectors, usages


def embed_tokens(pipeline: Pipeline, texts: Sequence[str], options: Options) -> tuple[list[Float32], list[Usage]]:
    """The vectors of every token of each text, specials included: [n_i, D] float32 each, as the body leaves them."""
    matrices: list[Float32] = []
    usages: list[Usage] = []
    with Progress(options.show_progress, sum(map(len, texts))) as progress:
        for part in slices(pipeline, texts, options, offsets=False):
            progress.begin(len(part.packed.ids), part.characters)
            partials, counts = token_partials(part.packed)
            pooled = pipeline.run_body(part.packed, (partials,) * len(pipeline.modes), progress.reach)
            # Copies, so that keeping one text's matrix does not keep the whole slice's.
            matrices += [matrix.copy() for matrix in np.split(pooled[0], np.cumsum(counts)[:-1])]
            usages += part.usages
    return matrices, usages


def embed_chunks(
    pipeline: Pipeline, texts: Sequence[str], options: Options, chunker: Chunker, sizes: Sequence[int]
) -> tuple[list[DocumentEmbedding], list[Usage]]:
    """Late-chunked vectors of documents: one pass over each one's windows.

    Args:
        pipeline: the checkpoint.
        texts: the documents.
        options: how they are treated.
        chunker: says what the chunks are.
        sizes: the chunker's levels by name, or nothing.

    Raises:
        InputError: a span is not usable.
    """
    results: list[DocumentEmbedding] = []
    usages: list[Usage] = []
    with Progress(options.show_progress, sum(map(len, texts))) as progress:
        for part in slices(pipeline, texts, options, offsets=True):
            progress.begin(len(part.packed.ids), part.characters)
            results += chunk_vectors(pipeline, part, options, chunker, sizes, progress.reach)
            usages += part.usages
    return results, usages


Poll = Callable[[int], None]
"""What is told now and then how many tokens of a slice are done."""


def text_vectors(pipeline: Pipeline, part: Slice, options: Options, poll: Poll | None = None) -> Vectors:
    """One vector per text of a slice."""
    include_prompt = pipeline.recipe.include_prompt
    partials = tuple(document_partials(part.packed, mode, include_prompt=include_prompt) for mode in pipeline.modes)
    return finish(pipeline, pipeline.run_body(part.packed, partials, poll), partials, options)


def chunk_vectors(
    pipeline: Pipeline, part: Slice, options: Options, chunker: Chunker, sizes: Sequence[int], poll: Poll | None = None
) -> Iterator[DocumentEmbedding]:
    """The documents of a slice with their chunks."""
    levels = [_levels(part, i, chunker) for i in range(len(part.texts))]
    partials = tuple(_all_partials(pipeline, part, levels, index) for index in range(len(pipeline.modes)))
    vectors = finish(pipeline, pipeline.run_body(part.packed, partials, poll), partials, options)
    return _results(part, levels, vectors, sizes)


def finish(
    pipeline: Pipeline, pooled: tuple[Float32, ...], partials: tuple[Partials, ...], options: Options
) -> Vectors:
    """Partials to vectors in the precision of the call."""
    vectors = pipeline.run_tail(pooled, partials, options.dimension, options.unit)
    return to_precision(vectors, options.precision, options.ranges)


def _levels(part: Slice, i: int, chunker: Chunker) -> list[list[Chunk]]:
    tokens = part.tokens[i]
    kept = len(part.documents[i].ids)  # fewer than there are if the text was cut
    assert tokens.starts is not None
    assert tokens.ends is not None
    return chunker(part.start + i, part.texts[i], tokens.starts[:kept], tokens.ends[:kept])


def _all_partials(pipeline: Pipeline, part: Slice, levels: Sequence[list[list[Chunk]]], index: int) -> Partials:
    """The documents themselves, then the chunks of each document, level by level."""
    mode = pipeline.modes[index]
    parts = [document_partials(part.packed, mode, include_prompt=pipeline.recipe.include_prompt)]
    for i, mine in enumerate(levels):
        chunks = [chunk for level in mine for chunk in level]
        firsts = np.array([chunk.first for chunk in chunks], np.int64)
        lasts = np.array([chunk.last for chunk in chunks], np.int64)
        parts.append(span_partials(part.packed, i, firsts, lasts, mode))
    return join(parts)


def _results(
    part: Slice, levels: Sequence[list[list[Chunk]]], vectors: Vectors, sizes: Sequence[int]
) -> Iterator[DocumentEmbedding]:
    row = len(part.texts)
    for i, mine in enumerate(levels):
        cut: list[Chunks] = []
        for level in mine:
            cut.append(_named(part.texts[i], level, vectors[row : row + len(level)]))
            row += len(level)
        yield DocumentEmbedding(
            chunks=cut[0],
            levels=dict(zip(sizes, cut, strict=False)),
            vector=vectors[i],
            windows=part.documents[i].windows,
            n_tokens=len(part.tokens[i].ids),
        )


def _named(text: str, chunks: Sequence[Chunk], vectors: Vectors) -> Chunks:
    return Chunks(
        vectors=vectors,
        spans=[(chunk.start, chunk.end) for chunk in chunks],
        token_spans=[(chunk.first, chunk.last) for chunk in chunks],
        _document=text,
    )
