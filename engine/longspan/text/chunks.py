"""Chunks: which spans of a document get a vector, and which tokens each one owns.

A token belongs where its first non-space code point lies. Byte-level tokens may start with a space, and several tokens
may share one code point (the bytes of an emoji); these always stay together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..batch import Int32, Int64
from ..checks import is_whole
from ..errors import InputError
from .boundaries import LIMIT, LINE, PARAGRAPH, SENTENCE, WORD, Int8, Places, find_places, rank_boundaries


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span [start, end) in code points of the document, which owns the tokens [first, last)."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Kept:
    """The tokens of a document that the model sees.

    Attributes:
        text: the document.
        starts, ends: [n] code points, ascending.
        cut: whether the document goes on beyond them.
    """

    text: str
    starts: Int32 | Int64
    ends: Int32 | Int64
    cut: bool = False

    @property
    def seen(self) -> str:
        """The text up to the cut: what follows may be huge, and has none of them."""
        return self.text[: int(self.ends[-1])] if self.cut else self.text

    @cached_property
    def places(self) -> Places:
        """Where they lie in the text."""
        return find_places(self.seen, self.starts, self.ends)

    @cached_property
    def ranks(self) -> Int8:
        """[n + 1] how good a place for a cut is before each of them, and behind the last."""
        return rank_boundaries(self.seen, self.places)


def chunk_by_tokens(kept: Kept, size: int, overlap: int = 0) -> list[Chunk]:
    """Cuts a document into chunks of at most `size` tokens that together own every token, in order.

    A chunk ends, by preference, at a blank line, the end of a sentence, the end of a line (each within the last half
    of `size`), between words (within the last quarter) or at `size` tokens. If less than a quarter would be left over
    at the end, the last two chunks are balanced instead. Spans increase, do not overlap and have no whitespace at
    their ends, unless a chunk is all whitespace. The tokens of one code point stay together, even if they are more
    than `size`.

    Args:
        kept: the document and its tokens.
        size: tokens of a chunk, at least 1.
        overlap: how many of them it repeats from the chunk before, at most; a repetition begins between words.

    Raises:
        InputError: `size` is below 1, or `overlap` is not in [0, size).
    """
    if size < 1:
        raise InputError(f"a chunk has {size} tokens, expected at least 1")
    if not 0 <= overlap < size:
        raise InputError(f"the chunk overlap is {overlap}, expected 0 to {size - 1} (a chunk has {size} tokens)")
    if len(kept.starts) == 0:
        return []
    bounds = np.array(_choose(kept.ranks, size - overlap), np.int64)
    first, last = bounds[:-1], bounds[1:]
    return _chunks(kept.places, _reach_back(kept.ranks, first, overlap) if overlap else first, last)


def chunk_by_spans(kept: Kept, spans: Sequence[Any], *, tokenless: bool = False) -> list[Chunk]:
    """The chunks of given spans, which may overlap and leave gaps.

    Args:
        kept: the document and its tokens.
        spans: pairs (start, end) of code points.
        tokenless: whether spans without a token are left out.

    Raises:
        InputError: a span is not a pair of whole numbers, is empty or backwards, leaves the document, owns no token or
            lies beyond the cut; the message gives its index.
    """
    pairs = [_check_span(index, span, len(kept.text)) for index, span in enumerate(spans)]
    if not pairs:
        return []
    first = kept.places.first
    edges = np.searchsorted(first, np.array(pairs, np.int64)).tolist()
    for index, (owned_first, owned_last) in enumerate(edges):
        if owned_first == len(first) and kept.cut:
            raise InputError(
                f"spans[{index}] {pairs[index]} lies beyond the cut: long_text='truncate' keeps the first {len(first)} "
                f"tokens, which end at {int(kept.ends[-1])}"
            )
        if owned_first == owned_last and not tokenless:
            raise InputError(f"spans[{index}] {pairs[index]} owns no token: no token starts inside it")
    return [Chunk(*pair, *owned) for pair, owned in zip(pairs, edges, strict=True) if owned[0] < owned[1]]


def before_cut(kept: Kept, spans: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """The spans that do not lie beyond the cut, if there is one."""
    if not kept.cut:
        return spans
    last = int(kept.places.first[-1])
    return [span for span in spans if span[0] <= last]


def _check_span(index: int, span: Any, length: int) -> tuple[int, int]:
    if not is_pair(span):
        raise InputError(f"spans[{index}] is {span!r}, expected a pair of whole numbers")
    start, end = map(int, span)
    if start >= end:
        raise InputError(f"spans[{index}] ({start}, {end}) is {'empty' if start == end else 'backwards'}")
    if start < 0 or end > length:
        raise InputError(f"spans[{index}] ({start}, {end}) leaves the document of {length} code points")
    return start, end


def is_pair(value: Any) -> bool:
    """Whether a value is an ordered pair of integers."""
    flat = value.ndim == 1 if isinstance(value, np.ndarray) else isinstance(value, tuple | list)
    return flat and len(value) == 2 and all(map(is_whole, value))


def _choose(ranks: Int8, size: int) -> list[int]:
    """Token positions where chunks begin, and the end: greedy, with the last two balanced."""
    count = len(ranks) - 1
    # For each kind, the last boundary at or before each token; memoryviews read single numbers fast.
    latest = {rank: _latest(ranks >= rank).data for rank in (LIMIT, WORD, LINE, SENTENCE, PARAGRAPH)}
    reach = {PARAGRAPH: size // 2, SENTENCE: size // 2, LINE: size // 2, WORD: size // 4}
    legal: Int64 | None = None
    bounds = [0]
    while count - bounds[-1] > size:
        start = bounds[-1]
        limit = start + size
        cut = next((latest[rank][limit] for rank in reach if latest[rank][limit] >= limit - reach[rank]), 0)
        if cut <= start:
            cut = latest[LIMIT][limit]
        if cut <= start:  # one code point has more than `size` tokens
            legal = np.flatnonzero(ranks >= LIMIT) if legal is None else legal
            cut = int(legal[np.searchsorted(legal, limit)])
        if count - cut < size / 4 and cut < count:
            cut = _balance(ranks, start, count, size) or cut
        bounds.append(cut)
    if bounds[-1] < count:
        bounds.append(count)
    return bounds


def _latest(allowed: Any) -> Int32:
    positions = np.where(allowed, np.arange(len(allowed), dtype=np.int32), np.int32(0))
    return np.maximum.accumulate(positions)


def _balance(ranks: Int8, start: int, count: int, size: int) -> int:
    """The best boundary that cuts tokens [start, count) into two chunks of similar length, or 0."""
    middle = (start + count) // 2
    low = max(count - size, middle - size // 4, start + 1)
    high = min(start + size, middle + size // 4, count - 1)
    near = ranks[low : high + 1].astype(np.int64)
    if not len(near) or near.max() < LIMIT:
        return 0
    distance = np.abs(np.arange(low, high + 1) - middle)
    return low + int(np.argmax(near * (2 * size + 2) - distance))


def _reach_back(ranks: Int8, first: Int64, overlap: int) -> Int64:
    """Where chunks begin if they repeat up to `overlap` tokens: at the earliest word, else at the earliest token."""
    earliest = first.copy()
    for rank in (LIMIT, WORD):
        places = np.flatnonzero(ranks >= rank)
        found = places[np.searchsorted(places, np.maximum(first - overlap, 0))]
        earliest = np.where(found < first, found, earliest)
    return earliest


def _chunks(places: Places, first: Int64, last: Int64) -> list[Chunk]:
    """Chunks of token ranges [first, last), with their spans trimmed."""
    # A chunk may begin or end with tokens that are all whitespace; its span leaves them out, if it has other tokens.
    after = np.searchsorted(places.solid, places.first[first])
    before = np.searchsorted(places.solid, places.tail[last - 1])
    filled = before > after
    start = np.where(filled, places.solid[after], places.first[first])
    end = np.where(filled, places.solid[before - 1] + 1, places.ends[last - 1])
    return [Chunk(*row) for row in np.stack([start, end, first, last], axis=1).tolist()]
