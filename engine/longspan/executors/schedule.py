"""Cuts a packed batch into packs and decides who runs each: one thread alone, or all threads together.

Short texts: every thread runs the whole program on its own pack of whole segments, without barriers. Long texts: all
threads share each instruction. The choice moves work between threads and never changes a bit of the result.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..batch import Int64

Schedule = Literal["auto", "packs", "shared"]

PACK_TOKENS = 384
"""Tokens of a pack that one thread runs: enough rows to pay for streaming each weight once."""

SHARED_TOKENS = 2048
"""Tokens of a pack of short segments that all threads share: enough to make barriers rare."""

LONG_SEGMENT = 1024
"""Segments from here on are worth sharing among all threads."""

BALANCED = 0.8
"""Packs are each thread's own unless that would leave the threads busy for less than this share of the time."""


@dataclass(frozen=True, slots=True)
class Packs:
    """Packs of whole segments, and the order in which they are taken.

    Attributes:
        segments: [packs + 1] segment offsets.
        order: [packs] a permutation; the first `shared` are run by all threads together.
        shared: how many.
    """

    segments: Int64
    order: Int64
    shared: int

    def largest(self, cu_seqlens: Int64) -> tuple[int, int]:
        """The most tokens of a pack that is one thread's own, and of one that all threads share."""
        tokens = np.diff(cu_seqlens[self.segments])
        own, shared = tokens[self.order[self.shared :]], tokens[self.order[: self.shared]]
        return int(own.max(initial=0)), int(shared.max(initial=0))


def make_packs(cu_seqlens: Int64, threads: int, schedule: Schedule = "auto", pack_tokens: int | None = None) -> Packs:
    """Cut a batch into packs.

    Args:
        cu_seqlens: [B + 1] segment offsets.
        threads: how many will work.
        schedule: "packs" and "shared" force one of the two; "auto" decides by the lengths.
        pack_tokens: the token budget of a pack; a longer segment is a pack of its own.
    """
    lengths = np.diff(cu_seqlens)
    budget = pack_tokens or (SHARED_TOKENS if schedule == "shared" else PACK_TOKENS)
    if schedule == "auto":
        if threads > 1 and pack_tokens is None:
            fair = -(-int(cu_seqlens[-1]) // threads)
            budget = max(min(budget, fair), 1)
        is_long = (lengths >= LONG_SEGMENT) & (threads > 1)
    else:
        is_long = np.full(len(lengths), schedule == "shared")
    bounds, long_packs = _cut(lengths.tolist(), is_long.tolist(), budget)
    tokens = np.diff(cu_seqlens[bounds])
    if schedule == "auto" and threads > 1 and not _balanced(tokens[~long_packs], threads):
        return make_packs(cu_seqlens, threads, "shared", pack_tokens)
    order = np.lexsort((-tokens, ~long_packs))
    return Packs(bounds, order.astype(np.int64), int(long_packs.sum()))


def _cut(
    lengths: list[int], is_long: list[bool], budget: int
) -> tuple[Int64, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Greedy packs of neighbours: [packs + 1] bounds, and which packs hold long segments."""
    bounds = [0]
    flags: list[bool] = []
    tokens = 0
    for index, (length, flag) in enumerate(zip(lengths, is_long, strict=True)):
        if index > bounds[-1] and (tokens + length > budget or flag != flags[-1]):
            bounds.append(index)
            tokens = 0
        if index == bounds[-1]:
            flags.append(flag)
        tokens += length
    if lengths:
        bounds.append(len(lengths))
    return np.array(bounds, np.int64), np.array(flags, np.bool_)


def _balanced(tokens: Int64, threads: int) -> bool:
    """Whether packs of these sizes, each taken by the first free thread, largest first, keep all threads busy."""
    total = int(tokens.sum())
    if total == 0 or len(tokens) >= 8 * threads:
        return True
    busy = [0] * threads
    for size in sorted(tokens.tolist(), reverse=True):
        heapq.heapreplace(busy, busy[0] + size)
    return total >= BALANCED * threads * max(busy)
