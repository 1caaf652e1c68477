"""Packs partition the segments, and the schedule keeps its promises about who works on what."""

from __future__ import annotations

import heapq
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.batch import Int64
from longspan.executors.schedule import (
    BALANCED,
    LONG_SEGMENT,
    PACK_TOKENS,
    SHARED_TOKENS,
    Packs,
    Schedule,
    make_packs,
)

short_lengths = st.lists(st.integers(0, 600), max_size=40)
all_lengths = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 600), st.integers(900, 5000)), max_size=40)
threads_counts = st.integers(1, 9)
schedules: st.SearchStrategy[Schedule] = st.sampled_from(("auto", "packs", "shared"))
budgets = st.one_of(st.none(), st.sampled_from([1, 13, 384, 100_000]))


def offsets(lengths: list[int]) -> Int64:
    return np.cumsum([0, *lengths], dtype=np.int64)


def sizes(packs: Packs, cu_seqlens: Int64) -> list[int]:
    return [int(cu_seqlens[b] - cu_seqlens[a]) for a, b in pairwise(packs.segments.tolist())]


def finish_times(tokens: list[int], threads: int) -> list[int]:
    """When each thread is done if packs are taken in this order by the first free one."""
    busy = [0] * threads
    for size in tokens:
        heapq.heapreplace(busy, busy[0] + size)
    return busy


@given(all_lengths, threads_counts, schedules, budgets)
def test_packs_partition_the_segments(lengths: list[int], threads: int, schedule: Schedule, budget: int | None) -> None:
    cu_seqlens = offsets(lengths)
    packs = make_packs(cu_seqlens, threads, schedule, budget)
    bounds = packs.segments.tolist()
    assert bounds[0] == 0
    assert bounds[-1] == len(lengths)
    assert all(first < last for first, last in pairwise(bounds))
    assert sorted(packs.order.tolist()) == list(range(len(bounds) - 1))
    assert packs.segments.dtype == packs.order.dtype == np.int64
    assert 0 <= packs.shared <= len(packs.order)
    tokens = sizes(packs, cu_seqlens)
    own, shared = packs.largest(cu_seqlens)
    in_order = [tokens[i] for i in packs.order]
    assert shared == max(in_order[: packs.shared], default=0)
    assert own == max(in_order[packs.shared :], default=0)
    for part in (in_order[: packs.shared], in_order[packs.shared :]):
        assert part == sorted(part, reverse=True)  # large ones first


@given(all_lengths, threads_counts, schedules, budgets)
def test_budget(lengths: list[int], threads: int, schedule: Schedule, budget: int | None) -> None:
    """A pack is over the budget only if it is one segment (beside empty ones)."""
    cu_seqlens = offsets(lengths)
    packs = make_packs(cu_seqlens, threads, schedule, budget)
    limit = budget or (SHARED_TOKENS if packs.shared == len(packs.order) else PACK_TOKENS)
    for first, last in pairwise(packs.segments.tolist()):
        filled = [length for length in lengths[first:last] if length]
        assert sum(filled) <= limit or len(filled) == 1


@given(all_lengths, threads_counts, budgets)
def test_forced(lengths: list[int], threads: int, budget: int | None) -> None:
    cu_seqlens = offsets(lengths)
    assert make_packs(cu_seqlens, threads, "packs", budget).shared == 0
    shared = make_packs(cu_seqlens, threads, "shared", budget)
    assert shared.shared == len(shared.order)


@given(all_lengths, threads_counts)
def test_auto_shares_long_segments(lengths: list[int], threads: int) -> None:
    cu_seqlens = offsets(lengths)
    packs = make_packs(cu_seqlens, threads)
    if threads == 1:
        assert packs.shared == 0
        return
    shared = set(packs.order[: packs.shared].tolist())
    for pack, (first, last) in enumerate(pairwise(packs.segments.tolist())):
        if max(lengths[first:last]) >= LONG_SEGMENT:
            assert pack in shared


@given(short_lengths, st.integers(2, 9))
def test_auto_keeps_threads_busy(lengths: list[int], threads: int) -> None:
    """Packs are each thread's own only where all threads then work for most of the time."""
    cu_seqlens = offsets(lengths)
    packs = make_packs(cu_seqlens, threads)
    assert packs.shared in (0, len(packs.order))
    total = int(cu_seqlens[-1])
    if packs.shared == 0 and total and len(packs.order) < 8 * threads:
        tokens = sizes(packs, cu_seqlens)
        times = finish_times([tokens[i] for i in packs.order], threads)
        assert sum(times) == total
        assert total >= BALANCED * threads * max(times)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_examples(threads: int) -> None:
    many = make_packs(offsets([20] * 4000), threads)
    assert many.shared == 0
    one = make_packs(offsets([500]), threads)
    assert one.shared == 1
    assert make_packs(offsets([32_000]), threads).shared == 1
    mixed = make_packs(offsets([*[100] * 60, 8000]), threads)
    assert mixed.shared > 0
    assert mixed.order[0] == len(mixed.order) - 1  # the long one comes first


def test_nothing() -> None:
    for schedule in ("auto", "packs", "shared"):
        packs = make_packs(offsets([]), 2, schedule)
        assert (packs.segments.tolist(), packs.order.tolist(), packs.shared) == ([0], [], 0)
        assert packs.largest(offsets([])) == (0, 0)
    assert len(make_packs(offsets([0, 0, 0]), 2).order) == 1
