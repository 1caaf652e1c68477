"""The choice of a way: the quickest that fits, for every room from the least on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.batch import Int64
from longspan.executors.ways import Way, choose, head, least, need_of, weight_bytes

MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """A body of so many bytes a token, whose buffers of a pack lie in one arena."""

    stage_bytes: Sequence[int] = ()
    carried: int = 100
    scratch: int = 300

    def arena_bytes(self, cu_seqlens: Int64, way: Way) -> int:
        longest = int(np.diff(cu_seqlens).max(initial=0))
        pack = max(longest, min(way.pack_tokens or 384, int(cu_seqlens[-1])))
        own = 1 if way.schedule == "shared" else 2
        held = self.carried * (int(cu_seqlens[-1]) if way.staged else own * pack)
        return held + own * pack * self.scratch + 2 * way.tile_rows * 10


def offsets(lengths: Sequence[int]) -> Int64:
    return np.cumsum([0, *lengths], dtype=np.int64)


lengths = st.lists(st.integers(1, 3000), min_size=1, max_size=30)
stages = st.lists(st.integers(0, 50_000), max_size=8).map(tuple)


@given(lengths=lengths, stage_bytes=stages, more=st.integers(0, 10 * MIB))
def test_what_is_chosen_fits(lengths: list[int], stage_bytes: tuple[int, ...], more: int) -> None:
    sizes, batch = Sizes(stage_bytes), offsets(lengths)
    lowest = least(batch, sizes)
    chosen = choose(batch, sizes, lowest + more)
    assert chosen is not None
    assert chosen.need == need_of(head(batch, chosen.way.wave_tokens), sizes, chosen.way)
    assert chosen.need.total <= lowest + more
    assert choose(offsets([max(lengths)]), sizes, lowest - 1) is None


@given(lengths=lengths, stage_bytes=stages)
def test_with_room_nothing_is_given_up(lengths: list[int], stage_bytes: tuple[int, ...]) -> None:
    chosen = choose(offsets(lengths), Sizes(stage_bytes), 1 << 40)
    assert chosen is not None
    assert chosen.way == Way()


def test_what_is_given_up_first() -> None:
    """Packs get smaller, then all threads share them, before weights are read again and again."""
    sizes, batch = Sizes((50_000,) * 4), offsets([300] * 40)
    seen: list[str] = []
    for room in range(need_of(batch, sizes, Way()).total, least(batch, sizes) - 1, -1000):
        chosen = choose(batch, sizes, room)
        assert chosen is not None
        kind = "staged" if chosen.way.staged else chosen.way.schedule if chosen.way.pack_tokens else "usual"
        if kind not in seen[-1:]:
            seen.append(kind)
    assert seen == ["usual", "auto", "shared", "staged"]


def test_waves_against_kept_weights() -> None:
    """What is read is least: a wave of all texts where it fits, else as many stages as fit beside smaller ones."""
    sizes = Sizes((0, *[100_000] * 10, 0), carried=10, scratch=1)
    batch = offsets([100] * 100)
    need = need_of(batch, sizes, Way(kept=0, wave_tokens=10_000))
    chosen = choose(batch, sizes, need.total)
    assert chosen is not None
    assert (chosen.way.wave_tokens, chosen.way.kept) == (10_000, 1)  # the first stage has no weights
    dear = Sizes((0, *[100_000] * 10, 0), carried=20_000, scratch=1)
    chosen = choose(batch, dear, least(batch, dear) + 700_000)
    assert chosen is not None
    assert chosen.way.kept is not None
    assert chosen.way.kept > 5
    assert chosen.way.wave_tokens == 100


@pytest.mark.parametrize(
    ("sizes", "kept", "total"),
    [((), 0, 0), ((0, 5, 0), 0, 5), ((0, 5, 7, 3, 0), 0, 12), ((0, 5, 7, 3, 0), 2, 5 + 10), ((0, 5, 7, 3, 0), 4, 15)],
)
def test_weights_in_memory(sizes: tuple[int, ...], kept: int, total: int) -> None:
    assert weight_bytes(sizes, kept) == total


def test_head() -> None:
    batch = offsets([5, 3, 4])
    assert head(batch, 8).tolist() == [0, 5, 8]
    assert head(batch, 7).tolist() == [0, 5]
    assert head(batch, 1).tolist() == [0, 5]
    assert head(batch, None) is batch
    assert head(offsets([]), 9).tolist() == [0]
