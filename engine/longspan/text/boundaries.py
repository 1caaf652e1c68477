"""Where a text may be cut between two tokens, and how good a place each one is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from ..batch import Int32, Int64

Bool = npt.NDArray[np.bool_]
Int8 = npt.NDArray[np.int8]
Codes = npt.NDArray[np.uint32]

ILLEGAL, LIMIT, WORD, LINE, SENTENCE, PARAGRAPH = -1, 0, 1, 2, 3, 4
"""Ranks of a boundary between two tokens. An illegal one lies inside a code point or at an empty token."""

_TABLE = 0x10000  # code points that the tables know; further ones are no space, no mark, no letter of a case
_BLOCK = 1 << 16  # tokens or code points looked at at a time, so that a huge document needs little memory
_NEWLINES = "\n\x0b\x0c\x85\u2028\u2029"
_STOPS = ".!?…؟۔।॥።։"  # end a sentence where whitespace follows
_WIDE_STOPS = "。！？｡"  # end a sentence by themselves
_CLOSERS = "\"')]}’”»›」』）】〉》〕］｝"  # may stand between a stop and the end
_OPENERS = "([{“‘«‹「『（【〈《〔［｛¿¡"
_WIDE_COMMAS = "，、；：､"
_IDEOGRAPHS = (
    (0x2E80, 0x2FE0),
    (0x3041, 0x3100),
    (0x31F0, 0x3200),
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
)
_ABBREVIATIONS = re.compile(
    r"\b(?:[A-Z]|[Mm]rs?|[Mm]s|[Dd]rs?|[Pp]rof|[Ss]r|[Jj]r|[Ss]t|[Gg]en|[Cc]ol|[Ll]t|[Cc]apt|[Rr]ev|[Hh]on|[Ee]d|[Ee]ds"
    r"|[Nn]o|[Nn]os|[Vv]ol|[Pp]p?|[Ff]igs?|[Ee]qs?|[Ss]ec|[Cc]h|[Aa]rt|[Ii]nc|[Ll]td|[Cc]o|[Cc]orp|[Dd]ept|[Uu]niv"
    r"|vs|cf|ca|al|viz|approx|[Ee]\.g|[Ii]\.e|[Uu]\.[Ss]|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\."
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of a text lie.

    Attributes:
        starts, ends: [n] the given ranges, clipped to the text.
        first: [n] where each token belongs: its first non-space code point, or its start if it has none; ascending.
        tail: [n] end of the last non-space code point of the tokens so far; ascending.
        solid: positions of the text's non-space code points.
        codes: [len(text) + 1] code points, then a zero.
    """

    starts: Int32
    ends: Int32
    first: Int32
    tail: Int32
    solid: Int32
    codes: Codes


def find_places(text: str, starts: Int32 | Int64, ends: Int32 | Int64) -> Places:
    """Where the tokens lie, without the whitespace around them."""
    codes = np.frombuffer((text + "\0").encode("utf-32-le"), np.uint32)
    begins = np.clip(starts, 0, len(text)).astype(np.int32)
    stops = np.maximum(np.clip(ends, 0, len(text)), begins).astype(np.int32)
    # The zero at the end counts as non-space, so that the searches below never leave the array.
    solid = _positions(~_lookup("space", codes))
    first, tail = begins.copy(), stops.copy()
    for low in range(0, len(begins), _BLOCK):
        block = slice(low, low + _BLOCK)
        following = np.searchsorted(solid, begins[block])
        preceding = np.searchsorted(solid, stops[block])
        filled = preceding > following
        np.copyto(first[block], solid[following], where=filled)
        np.copyto(tail[block], solid[preceding - 1] + 1, where=filled)
    np.maximum.accumulate(first, out=first)
    np.maximum.accumulate(tail, out=tail)
    return Places(begins, stops, first, tail, solid, codes)


def rank_boundaries(text: str, places: Places) -> Int8:
    """[n + 1] rank of the boundary before each token; both ends of the text are paragraphs."""
    count = len(places.first)
    ranks = np.full(count + 1, PARAGRAPH, np.int8)
    newlines = _find_newlines(places.codes)
    abbreviated = np.zeros(len(places.codes), bool)
    abbreviated[[match.end() - 1 for match in _ABBREVIATIONS.finditer(text)]] = True
    for low in range(1, count, _BLOCK):
        high = min(low + _BLOCK, count)
        ranks[low:high] = _rank_block(places, newlines, abbreviated, low, high)
    return ranks


def _rank_block(places: Places, newlines: Int32, abbreviated: Bool, low: int, high: int) -> Int8:
    """Ranks of the boundaries before the tokens low .. high; 1 <= low."""
    codes = places.codes
    here = places.first[low:high]
    index = np.searchsorted(places.solid, here)
    before = np.where(index > 0, places.solid[index - 1], np.int32(-1))  # the last non-space code point, or the zero
    gap = before + 1 < here  # whitespace in between
    lines = np.searchsorted(newlines, here) - np.searchsorted(newlines, before + 1)
    wide = _lookup("ideograph", codes[before]) | _lookup("ideograph", codes[here]) | _lookup("comma", codes[before])
    torn = _lookup("clings", codes[here]) | _lookup("opener", codes[before])
    ranks = np.where(gap | (wide & ~torn), WORD, LIMIT).astype(np.int8)
    ranks[gap & (lines > 0)] = LINE
    ranks[_ends_sentence(codes, abbreviated, before, here, gap)] = SENTENCE
    ranks[gap & (lines > 1)] = PARAGRAPH
    ranks[_lookup("space", codes[here])] = LIMIT  # a token that is all whitespace stays with what precedes it
    empty = places.starts[low:high] == places.ends[low:high]
    inside = (here < places.tail[low - 1 : high - 1]) | (here == places.first[low - 1 : high - 1])
    ranks[inside | empty] = ILLEGAL
    return ranks


def _ends_sentence(codes: Codes, abbreviated: Bool, before: Int32, here: Int32, gap: Bool) -> Bool:
    last = before.copy()
    for _ in range(3):
        last -= _lookup("closer", codes[last]) & (last > 0)
    # A stop within a sentence is followed by lower case ("e.g. this") or part of an abbreviation ("Dr. No").
    within = (codes[last] == ord(".")) & (abbreviated[last] | _lookup("lower", codes[here]))
    narrow = _lookup("stop", codes[last]) & gap & ~within
    ends: Bool = narrow | (_lookup("wide stop", codes[last]) & ~_lookup("clings", codes[here]))
    return ends


def _find_newlines(codes: Codes) -> Int32:
    """Ascending positions of line ends; \\r\\n is one, a paragraph separator is there twice."""
    breaks = _lookup("newline", codes)
    breaks[:-1] |= (codes[:-1] == ord("\r")) & (codes[1:] != ord("\n"))
    return np.sort(np.concatenate([_positions(breaks), _positions(codes == 0x2029)]))


def _lookup(name: str, codes: Codes) -> Bool:
    table, found = _table(name), np.empty(len(codes), bool)
    for low in range(0, len(codes), _BLOCK):  # `take` makes wide integers of its indices
        found[low : low + _BLOCK] = table.take(codes[low : low + _BLOCK], mode="clip")
    return found


def _positions(flags: Bool) -> Int32:
    """Ascending positions where it is so."""
    found = np.empty(np.count_nonzero(flags), np.int32)
    count = 0
    for low in range(0, len(flags), _BLOCK):
        places = np.flatnonzero(flags[low : low + _BLOCK])
        found[count : count + len(places)] = places + low
        count += len(places)
    return found


@cache
def _table(name: str) -> Bool:
    """[_TABLE + 1] whether a code point is of a kind; made once."""
    tests: dict[str, Callable[[str], bool]] = {"space": str.isspace, "lower": str.islower}
    kinds = {
        "newline": _NEWLINES,
        "stop": _STOPS + _WIDE_STOPS,
        "wide stop": _WIDE_STOPS,
        "closer": _CLOSERS,
        "opener": _OPENERS,
        "comma": _WIDE_COMMAS,
        "clings": _CLOSERS + _STOPS + _WIDE_STOPS + _WIDE_COMMAS + ",;:",
    }
    table = np.zeros(_TABLE + 1, bool)
    if name in tests:
        table[:-1] = [tests[name](chr(code)) for code in range(_TABLE)]
    elif name in kinds:
        table[[ord(char) for char in kinds[name]]] = True
    else:
        for start, end in _IDEOGRAPHS:
            table[start:end] = True
    return table
