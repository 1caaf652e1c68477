"""Ways to say what the chunks of a document are. Each gives one list of chunks per level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..errors import InputError, InputTypeError
from .chunks import Chunk, Kept, before_cut, chunk_by_spans, chunk_by_tokens, is_pair
from .inputs import Input, Spans

Chunker = Callable[[int, Input, Kept], list[list[Chunk]]]
"""Takes a document's index, the document and its tokens; gives the chunks of each level."""


def by_tokens(sizes: Sequence[int], overlap: int) -> Chunker:
    """One level per size."""

    def chunk(index: int, document: Input, kept: Kept) -> list[list[Chunk]]:
        return [chunk_by_tokens(document.text, kept, size, overlap) for size in sizes]

    return chunk


def by_spans(where: str) -> Chunker:
    """The spans that each document comes with."""

    def chunk(index: int, document: Input, kept: Kept) -> list[list[Chunk]]:
        assert document.spans is not None
        return [_spans(f"{where}[{index}]", document.text, kept, document.spans)]

    return chunk


def by_splitter(splitter: Any, where: str) -> Chunker:
    """A callable, or an object with `split_text`, that cuts a text.

    It may return strings, pairs of code points, or objects with `start_index` and `end_index` (Chonkie's chunks) or
    with `page_content` (LangChain's documents). Strings have to occur in the text, in order; they may overlap.
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
        if not spans and text.strip():
            raise InputError(f"{at}: the splitter returned nothing for a text of {len(text)} characters")
        return [_spans(at, text, kept, before_cut(text, kept, spans))]

    return chunk


def find_pieces(text: str, pieces: Sequence[Any], where: str) -> list[tuple[int, int]]:
    """The spans of a splitter's pieces.

    Strings are looked for in the text. Where it repeats itself there may be several places: a piece is taken to follow
    the one before it, unless a later piece then has no place; in that case each is taken to lie as early as it can.

    Raises:
        InputError: a piece is not in the text, or not after the piece before it.
        InputTypeError: a piece is of no known kind.
    """
    known = [_known_span(piece) for piece in pieces]
    words = [
        "" if span is not None else _words(piece, number, where)
        for number, (piece, span) in enumerate(zip(pieces, known, strict=True))
    ]
    found = _places(text, words, known, following=True)
    if len(found) < len(pieces):
        found = _places(text, words, known, following=False)
    if len(found) < len(pieces):
        number = len(found)
        raise InputError(
            f"{where}: piece {number} of the splitter, {words[number][:40]!r}, does not follow in the text"
        )
    return found


def _words(piece: Any, number: int, where: str) -> str:
    words = piece if isinstance(piece, str) else getattr(piece, "page_content", getattr(piece, "text", None))
    if not isinstance(words, str):
        raise InputTypeError(f"{where}: piece {number} of the splitter is {type(piece).__name__}, not a text")
    if not words:
        raise InputError(f"{where}: piece {number} of the splitter is empty")
    return words


def _places(
    text: str, pieces: Sequence[str], known: Sequence[tuple[int, int] | None], *, following: bool
) -> list[tuple[int, int]]:
    """The spans of the pieces, up to the first that has none."""
    spans: list[tuple[int, int]] = []
    begin = end = 0
    for words, span in zip(pieces, known, strict=True):
        if span is None:
            start = _following(text, words, end) if following else -1
            start = text.find(words, begin) if start < 0 else start
            if start < 0:
                break
            span = (start, start + len(words))
            begin, end = start + 1, span[1]  # the next piece may overlap this one
        spans.append(span)
    return spans


def _following(text: str, words: str, end: int) -> int:
    """Where the words stand if that is at `end`, or after whitespace there; else -1."""
    if text.startswith(words, end):
        return end
    while text[end : end + 1].isspace():
        end += 1
    return end if text.startswith(words, end) else -1


def _known_span(piece: Any) -> tuple[int, int] | None:
    places: Any = (getattr(piece, "start_index", None), getattr(piece, "end_index", None))
    for pair in (places, piece):
        if is_pair(pair):
            return int(pair[0]), int(pair[1])
    return None


def join_pieces(pieces: Sequence[str], joiner: str) -> tuple[str, list[tuple[int, int]]]:
    """A document given as a list of chunks: its text, and where the chunks lie in it."""
    places, position = [], 0
    for piece in pieces:
        places.append((position, position + len(piece)))
        position += len(piece) + len(joiner)
    return joiner.join(pieces), places


def _spans(where: str, text: str, kept: Kept, spans: Spans) -> list[Chunk]:
    try:
        return chunk_by_spans(text, kept, spans)
    except InputError as error:
        raise type(error)(f"{where}: {error}") from None
