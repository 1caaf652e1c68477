"""From the arguments of `encode_chunks` and `stream` to documents and a chunker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from .checks import is_count
from .errors import InputError, InputTypeError
from .pooling.precision import Precision
from .text.chunkers import Chunker, by_spans, by_splitter, by_tokens, join_pieces
from .text.inputs import Input, Spans, check_text, check_texts
from .text.separator import Separator

DOCUMENTS, TEXTS = "documents", "texts"

_ONE_WAY = "give the chunks one way: by tokens, as spans, by a splitter, or as documents that are lists of chunks"


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
    task: str | None
    precision: Precision
    normalize_embeddings: bool
    truncate_dim: int | None
    long_text: str
    show_progress_bar: bool | None


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """What a call of `encode_chunks` wants.

    Attributes:
        inputs: the documents.
        single: whether there was one, not a list of them.
        chunker: says what the chunks of each are.
        sizes: the levels by their size in tokens, where sizes were asked for.
    """

    inputs: list[Input]
    single: bool
    chunker: Chunker
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Joiner:
    """How a document that is a list of chunks becomes a text: by `joiner`, else by the separator token or a space."""

    joiner: str | None
    separator: Separator | None

    def check(self) -> None:
        """Raise an InputError or InputTypeError if the joiner is no text."""
        if self.joiner is not None:
            check_text(self.joiner, "joiner")

    def join(self, pieces: Sequence[str], where: str) -> Input:
        """The document; raises an InputError if one of its chunks is blank."""
        for number, piece in enumerate(pieces):
            if not piece.strip():
                raise InputError(f"{where}[{number}] is blank; a chunk needs a token")
        if self.joiner is None and self.separator is not None:
            return Input(*join_pieces(pieces, self.separator.content), pieces)
        return Input(*join_pieces(pieces, " " if self.joiner is None else self.joiner))


def as_list(inputs: object, where: str = "inputs") -> tuple[list[Input], bool]:
    """The texts, and whether it was a single one."""
    if isinstance(inputs, str):
        return [Input(check_text(inputs, where))], True
    return [Input(text) for text in check_texts(inputs, where)], False


def plan_chunks(
    documents: Any, chunk_tokens: Any, spans: Any, splitter: Any, chunk_overlap: Any, joiner: Joiner
) -> ChunkPlan:
    """Check the arguments of `encode_chunks`, and choose the chunker that they ask for.

    Raises:
        InputError: an argument is not usable, or two of them say what the chunks are.
    """
    pieces = _pieces(documents)
    _check_one_way(spans, splitter, pieces)
    _check_no_overlap(chunk_overlap, any(way is not None for way in (spans, splitter, pieces)))
    joiner.check()
    if pieces is not None:
        joined = [joiner.join(chunks, f"{DOCUMENTS}[{index}]") for index, chunks in enumerate(pieces)]
        return ChunkPlan(joined, single=False, chunker=by_spans(DOCUMENTS))
    inputs, single = as_list(documents, DOCUMENTS)
    if spans is not None:
        spans = [spans] if single else spans
        _check_spans(spans, len(inputs))
        inputs = [Input(item.text, mine) for item, mine in zip(inputs, spans, strict=True)]
        return ChunkPlan(inputs, single, by_spans(DOCUMENTS))
    if splitter is not None:
        return ChunkPlan(inputs, single, by_splitter(splitter, DOCUMENTS))
    sizes = _sizes(chunk_tokens)
    return ChunkPlan(inputs, single, by_tokens(sizes, _overlap(chunk_overlap, sizes)), sizes)


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What a call of `stream` wants.

    Attributes:
        inputs: the texts, read as they are needed and checked when their turn comes.
        chunker: says what the chunks of each are; None for whole texts, and where texts come as lists of chunks.
        sizes: the levels by their size in tokens, where sizes were asked for.
    """

    inputs: Iterator[Input]
    chunker: Chunker | None
    sizes: tuple[int, ...] = ()


def plan_stream(
    texts: Any, chunk_tokens: Any, spans: Any, splitter: Any, chunk_overlap: Any, joiner: Joiner
) -> StreamPlan:
    """Check the arguments of `stream`, and choose the chunker that they ask for; nothing is read.

    Raises:
        InputError: an argument is not usable, or two of them say what the chunks are.
    """
    _check_iterable(texts, TEXTS, "str")
    _check_one_way(spans, splitter, chunk_tokens, None)
    _check_no_overlap(chunk_overlap, chunk_tokens is None)
    joiner.check()
    if spans is not None:
        _check_iterable(spans, "spans", "lists of (start, end) pairs")
        return StreamPlan(_with_spans(texts, spans), by_spans(TEXTS))
    if splitter is not None:
        return StreamPlan(_texts(texts), by_splitter(splitter, TEXTS))
    if chunk_tokens is not None:
        sizes = _sizes(chunk_tokens)
        return StreamPlan(_texts(texts), by_tokens(sizes, _overlap(chunk_overlap, sizes)), sizes)
    return StreamPlan(_texts_or_pieces(texts, joiner), None)


def _texts(texts: Iterable[Any]) -> Iterator[Input]:
    for index, text in enumerate(texts):
        if isinstance(text, list | tuple):
            raise InputError(f"{TEXTS}[{index}] is a list of chunks; {_ONE_WAY}")
        yield Input(check_text(text, f"{TEXTS}[{index}]"))


def _texts_or_pieces(texts: Iterable[Any], joiner: Joiner) -> Iterator[Input]:
    """Lists of chunks if the first is one."""
    listed = False
    for index, text in enumerate(texts):
        where, mine = f"{TEXTS}[{index}]", isinstance(text, list | tuple)
        if index and mine != listed:
            before = "lists of chunks" if listed else "texts"
            raise InputTypeError(f"{where} is {type(text).__name__}, but those before it are {before}")
        listed = mine
        yield joiner.join(check_texts(text, where), where) if mine else Input(check_text(text, where))


def _with_spans(texts: Iterable[Any], spans: Iterable[Any]) -> Iterator[Input]:
    mine, index = iter(spans), -1
    for index, given in enumerate(_texts(texts)):
        try:
            chunks = next(mine)
        except StopIteration:
            raise InputError(f"spans ended after {index}, but there is {TEXTS}[{index}]") from None
        _check_listed(chunks)
        yield Input(given.text, chunks)
    if next(mine, None) is not None:
        raise InputError(f"{TEXTS} ended after {index + 1}, but there are more spans")


def _check_iterable(value: Any, name: str, expected: str) -> None:
    if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
        raise InputTypeError(f"{name} is {type(value).__name__}, expected an iterable of {expected}")


def _check_one_way(*ways: Any) -> None:
    if sum(way is not None for way in ways) > 1:
        raise InputError(_ONE_WAY)


def _check_no_overlap(chunk_overlap: Any, otherwise: bool) -> None:
    if otherwise and chunk_overlap:
        raise InputError(f"chunk_overlap is {chunk_overlap!r}, but it goes with chunk_tokens only")


def _check_spans(spans: Any, documents: int) -> None:
    """Raise unless there is one list of spans per document."""
    for value in (spans, *spans) if isinstance(spans, Sequence) else (spans,):
        _check_listed(value)
    if len(spans) != documents:
        raise InputError(f"spans has {len(spans)} lists for {documents} documents")


def _check_listed(value: Any) -> None:
    listed = value.ndim > 0 if isinstance(value, np.ndarray) else isinstance(value, Sequence)
    if isinstance(value, str | bytes) or not listed:
        raise InputTypeError(f"spans has a {type(value).__name__} where a list of (start, end) pairs is expected")


def _overlap(chunk_overlap: Any, sizes: Sequence[int]) -> int:
    if not is_count(chunk_overlap, 0) or chunk_overlap >= min(sizes):
        raise InputError(f"chunk_overlap is {chunk_overlap!r}, expected an integer from 0 to {min(sizes) - 1}")
    return int(chunk_overlap)


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
            raise InputTypeError(f"{DOCUMENTS}[{index}] is {kind}, but other documents are lists of chunks")
    return [check_texts(document, f"{DOCUMENTS}[{index}]") for index, document in enumerate(documents)]
