"""Windows: how a text that is longer than the model's maximum is seen in parts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ..errors import InputError

LongText = Literal["window", "truncate", "error"]
"""What becomes of a text that is longer than the model's maximum."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text, in token positions: it sees [start, end) and owns [owned_start, owned_end)."""

    start: int
    end: int
    owned_start: int
    owned_end: int


def split_windows(tokens: int, capacity: int, overlap: int) -> tuple[Window, ...]:
    """The windows of a text: as few as possible, all full, neighbours sharing at least `overlap` tokens.

    Every token is owned by one window, the one where the lesser of its left and right context is greatest (an end of
    the text counts as unlimited context). For neighbours that share [a, b) this is the window on the side of the
    middle (a + b) / 2 where the token lies; as windows advance, so do the middles, so each window owns one run.

    Args:
        tokens: the length of the text. A text that fits, even one of 0 tokens, is one window.
        capacity: tokens of the text that a window sees.
        overlap: tokens that neighbours share at least; the last window is moved back to be full and may share more.

    Raises:
        InputError: `capacity` is below 1, or `overlap` is not in [0, capacity).
    """
    _check(capacity, overlap)
    if tokens <= capacity:
        return (Window(0, tokens, 0, tokens),)
    starts = [*range(0, tokens - capacity, capacity - overlap), tokens - capacity]
    middles = [(after + before + capacity) // 2 for before, after in pairwise(starts)]
    bounds = [0, *middles, tokens]
    return tuple(
        Window(start, start + capacity, first, last)
        for start, (first, last) in zip(starts, pairwise(bounds), strict=True)
    )


def count_windows(tokens: int, capacity: int, overlap: int) -> int:
    """How many windows `split_windows` makes, without making them; raises as it does."""
    _check(capacity, overlap)
    return 1 + len(range(0, tokens - capacity, capacity - overlap))


def _check(capacity: int, overlap: int) -> None:
    if capacity < 1:
        raise InputError(f"a window holds {capacity} tokens of the text, expected at least 1")
    if not 0 <= overlap < capacity:
        raise InputError(f"the window overlap is {overlap}, expected 0 to {capacity - 1} (a window holds {capacity})")
