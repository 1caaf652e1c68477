"""The ways to run a batch, what memory each takes, and the quickest of those that fit.

No way changes a bit of a result: `choose` is free to take any. It is a pure function of sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from ..batch import Int64
from .schedule import Schedule

TILE_ROWS = 192
"""Rows of one `mlp` tile at most: with more of them weights stream past less often, see also `BodyLayouts.tile`."""

SMALL_TILE_ROWS = 32
"""The same where memory is short: a product still has whole blocks of rows."""

SMALL_PACK_TOKENS = 128
"""Tokens of a pack that one thread runs where memory is short; weights stream past three times as often."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a batch is run.

    Attributes:
        schedule, pack_tokens: see `make_packs`.
        tile_rows: rows of a tile of `mlp` and the like, at most.
        wave_tokens: how many tokens go through the stages together, at least one segment; None for all of a batch.
        kept: the stages, from the first on, whose weights stay in memory; None for all: then packs go through the
            whole program one by one. Else each stage is run on all packs of a wave, while the next one's weights are
            read.
    """

    schedule: Schedule = "auto"
    pack_tokens: int | None = None
    tile_rows: int = TILE_ROWS
    wave_tokens: int | None = None
    kept: int | None = None

    @property
    def staged(self) -> bool:
        """Whether packs go stage by stage."""
        return self.kept is not None


@dataclass(frozen=True, slots=True)
class Need:
    """What a way takes, in bytes.

    Attributes:
        arena: buffers and scratch.
        weights: what is in memory of those that a file holds stage by stage, at most.
    """

    arena: int
    weights: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.arena + self.weights


class Sizes(Protocol):
    """What `choose` asks an executor for."""

    @property
    def stage_bytes(self) -> Sequence[int]:
        """Bytes of each stage's weights, where a file holds them; else nothing."""

    def arena_bytes(self, cu_seqlens: Int64, way: Way) -> int:
        """Bytes of the arena for a batch of these segments."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A way, and what it needs."""

    way: Way
    need: Need


def weight_bytes(stages: Sequence[int], kept: int) -> int:
    """Bytes in memory where the first stages stay: these, and of the others the one in use and the next."""
    passing = [size for size in stages[kept:] if size]
    together = max((a + b for a, b in pairwise(passing)), default=sum(passing))
    return sum(stages[:kept]) + together


def choose(cu_seqlens: Int64, sizes: Sizes, room: int) -> Chosen | None:
    """The quickest way to run a batch, or its first wave, within so many bytes; None if there is none."""
    for way in _frugal(cu_seqlens):
        need = need_of(cu_seqlens, sizes, way)
        if need.total <= room:
            return Chosen(way, need)
    return _staged(cu_seqlens, sizes, room) if any(sizes.stage_bytes) else None


def least(cu_seqlens: Int64, sizes: Sizes) -> int:
    """The fewest bytes that some way takes for a batch: `choose` finds one from there on."""
    longest = _longest(cu_seqlens)
    *_, smallest = _frugal(longest)
    ways = [smallest, replace(smallest, kept=0)] if any(sizes.stage_bytes) else [smallest]
    return min(need_of(longest, sizes, way).total for way in ways)


def need_of(cu_seqlens: Int64, sizes: Sizes, way: Way) -> Need:
    """What a way takes for a batch of these segments, or for a wave of them."""
    stages = sizes.stage_bytes
    return Need(
        arena=sizes.arena_bytes(cu_seqlens, way),
        weights=sum(stages) if way.kept is None else weight_bytes(stages, way.kept),
    )


def _longest(cu_seqlens: Int64) -> Int64:
    """The longest segment as a batch of its own."""
    return np.array([0, np.diff(cu_seqlens).max(initial=0)], np.int64)


def _frugal(cu_seqlens: Int64) -> Iterator[Way]:
    """Ways to cut a batch into packs that take less and less memory."""
    own = max(int(_longest(cu_seqlens)[-1]), 1)
    yield Way()
    yield Way(pack_tokens=SMALL_PACK_TOKENS)
    yield Way(schedule="shared", pack_tokens=own)
    yield Way(schedule="shared", pack_tokens=own, tile_rows=SMALL_TILE_ROWS)


def _staged(cu_seqlens: Int64, sizes: Sizes, room: int) -> Chosen | None:
    """The way that reads least: larger waves read weights less often, more kept weights are not read again."""
    stages, total = sizes.stage_bytes, int(cu_seqlens[-1])
    for cut in _frugal(cu_seqlens):
        best: tuple[int, Chosen] | None = None
        for wave in _waves(cu_seqlens):
            segments = head(cu_seqlens, wave)
            tokens = max(int(segments[-1]), 1)
            way = replace(cut, wave_tokens=tokens, kept=0)
            least_need = need_of(segments, sizes, way)
            kept = _most_kept(stages, room - least_need.total + least_need.weights)
            if kept is None:
                continue
            reads = -(-total // tokens) * sum(stages[kept:])
            if best is None or reads < best[0]:
                way = replace(way, kept=kept)
                best = reads, Chosen(way, replace(least_need, weights=weight_bytes(stages, kept)))
        if best is not None:
            return best[1]
    return None


def _most_kept(stages: Sequence[int], room: int) -> int | None:
    """How many of the first stages may stay so that all that is in memory fits; None where not even two stages do."""
    fitting = (kept for kept in range(len(stages), -1, -1) if weight_bytes(stages, kept) <= room)
    return next(fitting, None)


def _waves(cu_seqlens: Int64) -> Iterator[int]:
    """Tokens of waves to try: all, and again and again half of that, down to the longest segment."""
    longest, wave = int(_longest(cu_seqlens)[-1]), int(cu_seqlens[-1])
    while wave > longest:
        yield wave
        wave //= 2
    yield max(longest, 1)


def head(cu_seqlens: Int64, tokens: int | None) -> Int64:
    """The segments of a batch that have so many tokens together, at least one of them; all for None."""
    if tokens is None:
        return cu_seqlens
    count = int(np.searchsorted(cu_seqlens, tokens, side="right")) - 1
    return cu_seqlens[: max(count, min(1, len(cu_seqlens) - 1)) + 1]
