"""From the arguments of `encode_chunks` to texts and a chunker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from .checks import is_count
from .errors import InputError, InputTypeError
from .pooling.precision import Precision
from .text.chunkers import Chunker, Spans, by_spans, by_splitter, by_tokens, join_pieces
from .text.inputs import check_text, check_texts
from .text.separator import Separated, Separator

WHERE = "documents"


class ChunkOptions(TypedDict, total=False):
    """The keyword arguments of `Encoder.encode_chunks`, for type checkers."""

    chunk_tokens: int | Sequence[int]
    spans: Spans | Sequence[Spans] | None
    splitter: Any
    joiner: str | None
    chunk_overlap: int
    window_overlap: int | None
    prompt_name: str | None
    prompt: str | None
    precision: Precision
    normalize_embeddings: bool
    truncate_dim: int | None
    long_text: str
    show_progress_bar: bool | None


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """What a call wants.

    Attributes:
        texts: the documents.
        single: whether there was one, not a list of them.
        chunker: says what the chunks of each are.
        sizes: the levels by their size in tokens, where sizes were asked for.
        separated: the documents as lists of chunks, if a special token stands between these.
    """

    texts: list[str]
    single: bool
    chunker: Chunker
    sizes: tuple[int, ...] = ()
    separated: Separated | None = None


def as_list(inputs: object, where: str = "inputs") -> tuple[list[str], bool]:
    """The texts, and whether it was a single one."""
    if isinstance(inputs, str):
        return [check_text(inputs, where)], True
    return check_texts(inputs, where), False


def plan_chunks(
    documents: Any,
    chunk_tokens: Any,
    spans: Any,
    splitter: Any,
    chunk_overlap: Any,
    *,
    joiner: str | None = None,
    separator: Separator | None = None,
) -> ChunkPlan:
    """Check the arguments, and choose the chunker that they ask for.

    Documents that are lists of chunks are joined by `joiner`; without one by the separator token, else by a space.

    Raises:
        InputError: an argument is not usable, or two of them say what the chunks are.
    """
    pieces = _pieces(documents)
    if joiner is not None:
        check_text(joiner, "joiner")
    if sum(way is not None for way in (spans, splitter, pieces)) > 1:
        raise InputError("give the chunks one way: as spans, by a splitter, or as documents that are lists of chunks")
    if any(way is not None for way in (spans, splitter, pieces)) and chunk_overlap:
        raise InputError(f"chunk_overlap is {chunk_overlap!r}, but it goes with chunk_tokens only")
    if pieces is not None:
        between = " " if separator is None else separator.content
        texts, places = join_pieces(pieces, between if joiner is None else joiner)
        separated = None if joiner is not None or separator is None else Separated(separator, pieces)
        return ChunkPlan(texts, single=False, chunker=by_spans(places, WHERE), separated=separated)
    texts, single = as_list(documents, WHERE)
    if spans is not None:
        spans = [spans] if single else spans
        _check_spans(spans, len(texts))
        return ChunkPlan(texts, single, by_spans(spans, WHERE))
    if splitter is not None:
        return ChunkPlan(texts, single, by_splitter(splitter, WHERE))
    sizes = _sizes(chunk_tokens)
    if not is_count(chunk_overlap, 0) or chunk_overlap >= min(sizes):
        raise InputError(f"chunk_overlap is {chunk_overlap!r}, expected an integer from 0 to {min(sizes) - 1}")
    return ChunkPlan(texts, single, by_tokens(sizes, int(chunk_overlap)), sizes)


def _check_spans(spans: Any, documents: int) -> None:
    """Raise unless there is one list of spans per document."""
    for value in (spans, *spans) if isinstance(spans, Sequence) else (spans,):
        listed = value.ndim > 0 if isinstance(value, np.ndarray) else isinstance(value, Sequence)
        if isinstance(value, str | bytes) or not listed:
            raise InputTypeError(f"spans has a {type(value).__name__} where a list of (start, end) pairs is expected")
    if len(spans) != documents:
        raise InputError(f"spans has {len(spans)} lists for {documents} documents")


def _sizes(chunk_tokens: Any) -> tuple[int, ...]:
    sizes = (chunk_tokens,) if isinstance(chunk_tokens, int | np.integer) else chunk_tokens
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or not sizes or not all(is_count(n, 1) for n in sizes):
        raise InputError(f"chunk_tokens is {chunk_tokens!r}, expected an integer of at least 1, or several of them")
    if len(set(sizes)) < len(sizes):
        raise InputError(f"chunk_tokens is {chunk_tokens!r}; every size is needed once")
    return tuple(int(size) for size in sizes)


def _pieces(documents: Any) -> list[list[str]] | None:
    """The documents as lists of chunks, if that is how they are given."""
    if isinstance(documents, str) or not isinstance(documents, Sequence) or not documents:
        return None
    if not any(isinstance(document, list | tuple) for document in documents):
        return None
    for index, document in enumerate(documents):
        if not isinstance(document, list | tuple):
            kind = type(document).__name__
            raise InputTypeError(f"{WHERE}[{index}] is {kind}, but other documents are lists of chunks")
    return [check_texts(document, f"{WHERE}[{index}]") for index, document in enumerate(documents)]
