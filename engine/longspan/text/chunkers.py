"""Ways to say what the chunks of a document are. Each gives one list of chunks per level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import InputError, InputTypeError
from .chunks import Chunk, Kept, before_cut, chunk_by_spans, chunk_by_tokens
from .inputs import Input, Spans
from .placing import find_pieces

Chunker = Callable[[int, Input, Kept], list[list[Chunk]]]
"""Takes a document's index, the document and its tokens; gives the chunks of each level."""


def by_tokens(sizes: Sequence[int], overlap: int) -> Chunker:
    """One level per size."""

    def chunk(index: int, document: Input, kept: Kept) -> list[list[Chunk]]:
        return [chunk_by_tokens(kept, size, overlap) for size in sizes]

    return chunk


def by_spans(where: str) -> Chunker:
    """The spans that each document comes with."""

    def chunk(index: int, document: Input, kept: Kept) -> list[list[Chunk]]:
        assert document.spans is not None
        return [_spans(f"{where}[{index}]", kept, document.spans)]

    return chunk


def by_splitter(splitter: Any, where: str) -> Chunker:
    """A callable, or an object with `split_text`, that cuts a text.

    It may return strings, pairs of code points, or objects with `start_index` and `end_index` (Chonkie's chunks) or
    with `page_content` (LangChain's documents); see `find_pieces`. Pieces without any token are left out.
    """
    split = getattr(splitter, "split_text", splitter)
    if not callable(split):
        raise InputTypeError(f"splitter is {type(splitter).__name__}, expected a callable or an object with split_text")

    def chunk(index: int, document: Input, kept: Kept) -> list[list[Chunk]]:
        text = document.text
        at = f"{where}[{index}]"
        try:
            pieces = split(text)
            listed = None if isinstance(pieces, str) or not isinstance(pieces, Iterable) else list(pieces)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{at}: the splitter raised {reason}") from error
        if listed is None:
            raise InputTypeError(f"{at}: the splitter returned {type(pieces).__name__}, expected a list of pieces")
        spans = find_pieces(text, listed, at)
        chunks = _spans(at, kept, before_cut(kept, spans), tokenless=True)
        if not chunks and len(kept.starts):
            raise InputError(f"{at}: the splitter returned nothing for a text of {len(text)} characters")
        return [chunks]

    return chunk


def join_pieces(pieces: Sequence[str], joiner: str) -> tuple[str, list[tuple[int, int]]]:
    """A document given as a list of chunks: its text, and where the chunks lie in it."""
    places, position = [], 0
    for piece in pieces:
        places.append((position, position + len(piece)))
        position += len(piece) + len(joiner)
    return joiner.join(pieces), places


def _spans(where: str, kept: Kept, spans: Spans, *, tokenless: bool = False) -> list[Chunk]:
    try:
        return chunk_by_spans(kept, spans, tokenless=tokenless)
    except InputError as error:
        raise type(error)(f"{where}: {error}") from None
