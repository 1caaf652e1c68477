"""Where the pieces that a splitter returns lie in the text.

Splitters mostly return strings. Where a text repeats itself, such as a form or a log, a string has several places, and
looking for it once is not enough: all places are kept that leave no gap behind the pieces before, and the last pieces
say which of these it was.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from ..errors import InputError, InputTypeError
from .chunks import is_pair

_MOST_PLACES = 256  # of one piece that are kept


def find_pieces(text: str, pieces: Sequence[Any], where: str) -> list[tuple[int, int]]:
    """The spans of a splitter's pieces; strings of whitespace are left out.

    Args:
        text: the document.
        pieces: strings, pairs of code points, or objects with `start_index` and `end_index`, with `page_content` (and
            `metadata["start_index"]`) or with `text`. Strings have to occur in the text, in order; they may overlap.
        where: the document, for messages.

    Raises:
        InputError: a piece is not in the text, or not after the piece before it.
        InputTypeError: a piece is of no known kind.
    """
    spans = [_known_span(piece) for piece in pieces]
    words = {
        number: _words(piece, number, where)
        for number, (piece, span) in enumerate(zip(pieces, spans, strict=True))
        if span is None
    }
    searched = [number for number, piece in words.items() if piece.strip()]
    starts = _find_in_order(text, [words[number] for number in searched])
    if len(starts) < len(searched):
        number = searched[len(starts)]
        raise InputError(
            f"{where}: piece {number} of the splitter, {words[number][:40]!r}, does not follow in the text"
        )
    for number, start in zip(searched, starts, strict=True):
        spans[number] = start, start + len(words[number])
    return [span for span in spans if span is not None]


def _known_span(piece: Any) -> tuple[int, int] | None:
    places: Any = (getattr(piece, "start_index", None), getattr(piece, "end_index", None))
    for pair in (places, piece):
        if is_pair(pair):
            return int(pair[0]), int(pair[1])
    metadata, content = getattr(piece, "metadata", None), getattr(piece, "page_content", None)
    start = metadata.get("start_index") if isinstance(metadata, dict) else None
    if isinstance(start, int) and start >= 0 and isinstance(content, str):  # LangChain has -1 where it found no place
        return start, start + len(content)
    return None


def _words(piece: Any, number: int, where: str) -> str:
    words = piece if isinstance(piece, str) else getattr(piece, "page_content", getattr(piece, "text", None))
    if not isinstance(words, str):
        raise InputTypeError(f"{where}: piece {number} of the splitter is {type(piece).__name__}, not a text")
    return words


def _find_in_order(text: str, pieces: Sequence[str]) -> list[int]:
    """Where each piece begins, each after the one before; up to the first that has no place."""
    places: list[list[int]] = []
    for number, piece in enumerate(pieces):
        found = _after(text, piece, places[-1], len(pieces[number - 1])) if places else [text.find(piece)]
        if found[0] < 0:
            break
        places.append(found)
    return _choose(text, pieces, places)


def _after(text: str, piece: str, before: Sequence[int], length: int) -> list[int]:
    """The places of a piece that leave no gap behind some place of the one before, else its next place, else -1."""
    reach = before[-1] + length
    while text[reach : reach + 1].isspace():
        reach += 1
    found: list[int] = []
    at = text.find(piece, before[0] + 1, reach + len(piece))
    while at >= 0:
        if _adjoins(text, before[bisect_left(before, at) - 1] + length, at):
            found.append(at)
        at = text.find(piece, at + 1, reach + len(piece))
    if len(found) > _MOST_PLACES:
        found = [*found[:: len(found) // _MOST_PLACES], found[-1]]
    if found:
        return found
    beyond = text.find(piece, reach)
    return [beyond if beyond >= 0 else text.find(piece, before[0] + 1)]


def _adjoins(text: str, end: int, start: int) -> bool:
    """Whether nothing but whitespace lies between two pieces."""
    return start <= end or not text[end:start].strip()


def _choose(text: str, pieces: Sequence[str], places: Sequence[Sequence[int]]) -> list[int]:
    """One place for each piece: from the last one back, evenly between those that have only one."""
    if not places:
        return []
    sure = [0] * len(places)  # the last piece so far with one place
    for number in range(1, len(places)):
        sure[number] = number if len(places[number]) == 1 else sure[number - 1]
    chosen = [places[-1][-1]]
    for number in range(len(places) - 2, -1, -1):
        following, anchor = chosen[-1], sure[number]
        earlier = [at for at in places[number] if at < following]
        fitting = [at for at in earlier if _adjoins(text, at + len(pieces[number]), following)] or earlier
        steps = number + 1 - anchor
        even = places[anchor][0] + (following - places[anchor][0]) * (number - anchor) / steps
        chosen.append(min(fitting, key=lambda at: abs(at - even)))
    return chosen[::-1]
