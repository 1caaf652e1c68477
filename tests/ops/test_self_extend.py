"""`attention` that turns queries and keys by itself, by relative positions that far keys share (SelfExtend)."""

from __future__ import annotations

import pytest

from longspan.program.positions import SelfExtend
from longspan.program.rope import Frequencies, Rope, inverse_frequencies

from .harness import every_tier
from .test_attention import check_attention


def rope(size: int, *, interleaved: bool = False) -> Rope:
    return Rope(size, Frequencies(inverse_frequencies(1000.0, size)), interleaved)


@every_tier
@pytest.mark.parametrize(
    ("extend", "left", "right"),
    [
        (SelfExtend(40, 3, 10), None, None),
        (SelfExtend(40, 3, 10), None, 0),
        (SelfExtend(40, 3, 10), 100, 7),
        (SelfExtend(300, 9, 64), None, None),
        (SelfExtend(20, 2, 1), None, None),
        (SelfExtend(8, 50, 2), 5, 5),
        (SelfExtend(8, 50, 2), 1, 1),
    ],
    ids=str,
)
def test_distances(isa: str, extend: SelfExtend, left: int | None, right: int | None) -> None:
    """Segments up to the original length and beyond; borders inside and at the edges of key blocks."""
    segments = [[0], [8, 9, 0, 40, 41], [1, 20, 21, 129, 300], [301], [5, 600, 1]]
    check_attention(isa, 4, 2, 24, segments, rope=rope(16), self_extend=extend, left=left, right=right)


@every_tier
def test_more_queries_at_once(isa: str) -> None:
    check_attention(isa, 1, 1, 8, [[4100]], rope=rope(8), self_extend=SelfExtend(40, 3, 10), left=100, right=7)


@every_tier
@pytest.mark.parametrize("size", [8, 128, 512])
def test_interleaved_pairs_of_whole_heads(isa: str, size: int) -> None:
    extend = SelfExtend(64, 4, 16)
    check_attention(isa, 2, 1, size, [[257], [64, 65]], rope=rope(size, interleaved=True), self_extend=extend)


@every_tier
def test_with_sinks_and_a_cap(isa: str) -> None:
    check_attention(
        isa,
        4,
        2,
        32,
        [[300], [1, 65]],
        spread=30.0,
        weights={"sinks": (4,)},
        rope=rope(32),
        self_extend=SelfExtend(64, 4, 16),
        soft_cap=5.0,
    )


def test_groups_that_there_cannot_be() -> None:
    for original, group, near in ((40, 1, 10), (40, 3, 0), (40, 3, 11)):
        with pytest.raises(ValueError, match="are no groups"):
            SelfExtend(original, group, near)
