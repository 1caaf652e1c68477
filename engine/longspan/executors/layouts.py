"""Where a body's buffers lie for packs of any size, and to the byte what a batch then takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import _csrc
from ..batch import Int64
from ..program.arena import Extents, place
from ..program.operands import Rows
from ..program.program import Program
from .caches import near_cache_bytes
from .schedule import Packs

LEAST_TILE_ROWS = 96
"""Tiles are cut to stay in the near cache, but not below this: their weights would stream past too often."""

Layout = tuple[Int64, int, int]
"""Byte offsets by buffer index, bytes of the arena, rows it was laid out for."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What a pack keeps from stage to stage where packs go through the body stage by stage.

    Attributes:
        places: by buffer index, bytes of a row before it; -1 for what it does not keep.
        row_bytes: of all of it.
    """

    places: Int64
    row_bytes: int

    def bytes(self, tokens: Int64) -> int:
        """Of packs of so many tokens."""
        return int((-(-tokens // 64) * 64).sum()) * self.row_bytes


class BodyLayouts:
    """The layouts of one body; those that were asked for are kept.

    Args:
        body: the program.
        near_cache: bytes of a core's second-level cache; by default this machine's.
    """

    def __init__(self, body: Program, near_cache: int | None = None) -> None:
        self._body = body
        self._near_rows = _near_rows(body, near_cache_bytes() if near_cache is None else near_cache)
        self._tokens: dict[tuple[int, bool], Layout] = {}
        self._tiles: dict[int, Layout] = {}
        self.carried = _carried(body)

    def tokens(self, tokens: int, *, staged: bool) -> Layout:
        """Of the token buffers of a pack; where it goes stage by stage, without those that it carries."""
        rows = -(-tokens // 64) * 64
        key = rows, staged
        if key not in self._tokens:
            without = self._body.carried if staged else frozenset[str]()
            self._tokens[key] = layout(self._body, Extents(tokens=rows, tile=0, vectors=0), rows, without)
        return self._tokens[key]

    def tile(self, rows: int) -> Layout:
        """Of the tile buffers, for so many rows at most: where they would fill the near cache, for fewer."""
        rows = min(rows, self._near_rows)
        if rows not in self._tiles:
            self._tiles[rows] = layout(self._body, Extents(tokens=0, tile=rows, vectors=0), rows)
        return self._tiles[rows]

    def arena_bytes(
        self, program: _csrc.Program, cu_seqlens: Int64, packs: Packs, threads: int, tile_rows: int, *, staged: bool
    ) -> int:
        """The arena of a batch that is cut into these packs."""
        own, shared = packs.largest(cu_seqlens)
        tile = self.tile(tile_rows)
        return program.needed_bytes(
            packs=len(packs.order),
            shared_packs=packs.shared,
            pack=self.tokens(own, staged=staged)[1],
            shared=self.tokens(shared, staged=staged)[1],
            tile=tile[1],
            tile_rows=tile[2],
            threads=threads,
            carried=self.carried.bytes(np.diff(cu_seqlens[packs.segments])) if staged else 0,
        )


def layout(program: Program, extents: Extents, rows: int, without: frozenset[str] = frozenset()) -> Layout:
    """A place for every buffer but some, in the form that `_csrc` takes."""
    arena = place(program, extents, without=without)
    offsets = [arena.offsets.get(buffer.name, 0) for buffer in program.buffers]
    return np.array(offsets, np.int64), arena.size, rows


def _near_rows(body: Program, near_cache: int) -> int:
    """Rows of tiles whose buffers take half of the near cache; the other half is for weights and what they multiply."""
    row_bytes = sum(buffer.row_bytes for buffer in body.buffers if buffer.rows is Rows.TILE)
    return max(near_cache // 2 // max(row_bytes, 1) // 32 * 32, LEAST_TILE_ROWS)


def _carried(body: Program) -> Carried:
    places, row_bytes = [], 0
    for buffer in body.buffers:
        kept = buffer.name in body.carried and buffer.rows is Rows.TOKENS
        places.append(row_bytes if kept else -1)
        row_bytes += buffer.row_bytes if kept else 0
    return Carried(np.array(places, np.int64), row_bytes)
