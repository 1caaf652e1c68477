"""Where the pieces that a splitter returns lie in the text.

Splitters mostly return strings. They are looked for without whitespace, which many splitters strip, join or unify.
Where a text repeats itself, such as a form or a log, a string has many places: each piece then lies between the
earliest and the latest place that it can have, pieces for which these are one are sure, and the others lie evenly
between them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import InputError, InputTypeError
from .chunks import is_pair


def find_pieces(text: str, pieces: Sequence[Any], where: str) -> list[tuple[int, int]]:
    """The spans of a splitter's pieces; strings of whitespace are left out.

    Args:
        text: the document.
        pieces: strings, pairs of code points, or objects with `start_index` and `end_index`, with `page_content` (and
            `metadata["start_index"]`) or with `text`. Strings have to occur in the text, but for whitespace, in order;
            they may overlap. Where an object's place has other text than the object, it is looked for.
        where: the document, for messages.

    Raises:
        InputError: a piece is not in the text, or not after the piece before it.
        InputTypeError: a piece is of no known kind.
    """
    words = [_words(piece, number, where) for number, piece in enumerate(pieces)]
    spans = [_known_span(text, piece, content) for piece, content in zip(pieces, words, strict=True)]
    searched = [number for number, span in enumerate(spans) if span is None and (words[number] or "").strip()]
    if searched:
        solid = _Solid(text)
        contents = ["".join((words[number] or "").split()) for number in searched]
        starts = _find_in_order(solid.text, contents)
        if len(starts) < len(searched):
            number = searched[len(starts)]
            shown = repr((words[number] or "")[:40])
            raise InputError(f"{where}: piece {number} of the splitter, {shown}, does not follow in the text")
        for number, start, content in zip(searched, starts, contents, strict=True):
            spans[number] = _with_whitespace(text, words[number] or "", *solid.span(start, start + len(content)))
    return [span for span in spans if span is not None]


def _words(piece: Any, number: int, where: str) -> str | None:
    """A piece's text; None for a pair."""
    if is_pair(piece):
        return None
    words = piece if isinstance(piece, str) else getattr(piece, "page_content", getattr(piece, "text", None))
    places = (getattr(piece, "start_index", None), getattr(piece, "end_index", None))
    if not isinstance(words, str) and not is_pair(places):
        raise InputTypeError(f"{where}: piece {number} of the splitter is {type(piece).__name__}, not a text")
    return words if isinstance(words, str) else None


def _known_span(text: str, piece: Any, words: str | None) -> tuple[int, int] | None:
    """The place that a piece comes with, unless the text has other words there."""
    metadata = getattr(piece, "metadata", None)
    start = metadata.get("start_index") if isinstance(metadata, dict) else None
    places: Any = (getattr(piece, "start_index", None), getattr(piece, "end_index", None))
    ends = (start, start + len(words)) if isinstance(start, int) and words is not None else None
    for pair in (piece, places, ends):
        if pair is not None and is_pair(pair):
            first, last = int(pair[0]), int(pair[1])
            return (first, last) if words is None or text[first:last] == words else None
    return None


def _with_whitespace(text: str, words: str, start: int, end: int) -> tuple[int, int]:
    """The span with the whitespace around the piece, where the text has the same there."""
    lead, trail = len(words) - len(words.lstrip()), len(words) - len(words.rstrip())
    first = max(start - lead, 0)
    return (first, end + trail) if text[first : end + trail] == words else (start, end)


class _Solid:
    """A text without its whitespace."""

    def __init__(self, text: str) -> None:
        self.text = "".join(text.split())
        self._source = text

    @cached_property
    def _parts(self) -> tuple[list[int], list[int]]:
        """Where each stretch without whitespace begins, here and in the text."""
        here, there, count = [], [], 0
        for match in re.finditer(r"\S+", self._source):
            here.append(count)
            there.append(match.start())
            count += match.end() - match.start()
        return here, there

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span [start, end) of it, not empty, in the text."""
        here, there = self._parts
        first, last = (bisect_right(here, at) - 1 for at in (start, end - 1))
        return there[first] + start - here[first], there[last] + end - here[last]


@dataclass(slots=True)
class _Place:
    """The earliest and the latest place that a piece can have."""

    low: int
    high: int


def _find_in_order(text: str, pieces: Sequence[str]) -> list[int]:
    """Where each piece begins, each after the one before; up to the first that has no place."""
    places: list[_Place] = []
    for number, piece in enumerate(pieces):
        place = _after(text, piece, places[-1], len(pieces[number - 1])) if places else _first(text, piece)
        if place is None:
            break
        places.append(place)
    if not places:
        return []
    places[-1].low = places[-1].high  # the last one ends as near to the end as it can
    for number in range(len(places) - 2, -1, -1):
        _narrow(text, pieces[number], places[number], places[number + 1])
    starts = [places[0].low]
    sure = 0
    for number, place in enumerate(places):
        if number and place.low == place.high:
            starts += _between(text, pieces, places, sure, number, starts[-1])
            starts.append(place.low)
            sure = number
    return starts


def _first(text: str, piece: str) -> _Place | None:
    at = text.find(piece)
    return None if at < 0 else _Place(at, at)


def _after(text: str, piece: str, before: _Place, length: int) -> _Place | None:
    """Behind the piece before, without a gap if that can be; None if there is no place."""
    reach = before.high + length
    low = text.find(piece, before.low + 1)
    if low < 0:
        return None
    if low > reach:  # something was left out
        return _Place(low, low)
    return _Place(low, text.rfind(piece, low, reach + len(piece)))


def _narrow(text: str, piece: str, place: _Place, following: _Place) -> None:
    """Before the piece that follows, and without a gap to it if that can be."""
    place.high = text.rfind(piece, place.low, min(place.high, following.high - 1) + len(piece))
    low = text.find(piece, max(place.low, following.low - len(piece)), place.high + len(piece))
    if low >= 0:
        place.low = low


def _between(
    text: str, pieces: Sequence[str], places: Sequence[_Place], first: int, last: int, start: int
) -> list[int]:
    """Places of the pieces between two that are sure, all sharing as much with the next one as the others."""
    count = last - first
    shared = (start + sum(map(len, pieces[first:last])) - places[last].low) / count
    found: list[int] = []
    before, even = start, float(start)
    for number in range(first + 1, last):
        even += len(pieces[number - 1]) - shared
        piece, place = pieces[number], places[number]
        low = max(before + 1, place.low)
        reach = max(min(before + len(pieces[number - 1]), place.high), low)
        wanted = min(max(round(even), low), reach)
        later = text.find(piece, wanted, reach + len(piece))
        earlier = text.rfind(piece, low, wanted + len(piece))
        near = [at for at in (earlier, later) if at >= 0]
        before = min(near, key=lambda at: abs(at - even)) if near else text.find(piece, low)
        found.append(before)
    return found
