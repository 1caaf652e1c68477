"""Fits batches into the memory that there is: asks what is left, chooses a way, and says what would do if none does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import _csrc
from ..batch import Int64
from ..byte_sizes import in_mib
from ..errors import MemoryCeilingError
from ..weights import Format
from .ceiling import AVAILABLE_SHARE, UNCOUNTED, Ceiling, available, whole_mib
from .layouts import BodyLayouts
from .schedule import make_packs
from .ways import Chosen, Way, choose, least, need_of

NO_CEILING = 1 << 62

LONG = 512
"""Tokens from which on a text could as well be cut into windows."""


@dataclass(frozen=True, slots=True)
class BodySizes:
    """What a bound body takes; see `ways.Sizes`.

    Attributes:
        program: the body.
        layouts: its buffers.
        threads: how many run it.
        stage_bytes: of weights that are read stage by stage.
        held: what is in memory now of all that is counted here.
    """

    program: _csrc.Program
    layouts: BodyLayouts
    threads: int
    stage_bytes: Sequence[int]
    held: int

    def arena_bytes(self, cu_seqlens: Int64, way: Way) -> int:
        """Bytes of the arena for a batch of these segments."""
        packs = make_packs(cu_seqlens, self.threads, way.schedule, way.pack_tokens)
        return self.layouts.arena_bytes(self.program, cu_seqlens, packs, self.threads, way.tile_rows, staged=way.staged)


class Fitting:
    """Chooses how batches run.

    Args:
        ceiling: on the process, if one is set.
        weights: the format of the matrices, for messages.
        stored: whether they are in a file that they are read from, stage by stage.
    """

    def __init__(self, ceiling: Ceiling | None, weights: Format, *, stored: bool) -> None:
        self.ceiling = ceiling
        self._weights, self._stored = weights, stored

    def choose(self, cu_seqlens: Int64, sizes: BodySizes, results: int, most: int | None) -> Chosen:
        """How to run a batch, or its first wave.

        Args:
            cu_seqlens: the batch's segments.
            sizes: of the body.
            results: bytes that the batch's results will take beside that.
            most: bytes of what `sizes` counts, if less is to be had than it seems.

        Raises:
            MemoryCeilingError: no way stays below the ceiling.
        """
        usual = need_of(cu_seqlens, sizes, Way())
        if most is None and usual.total <= sizes.held and results <= UNCOUNTED:  # all of it is there already
            return Chosen(Way(), usual)
        lowest = least(cu_seqlens, sizes)
        room = self._below_ceiling(cu_seqlens, lowest, sizes.held, results)
        left = available()
        for limit in (most, None if left is None else sizes.held + int(AVAILABLE_SHARE * left) - results):
            if limit is not None:  # no promise: where the least is more, that is tried all the same
                room = min(room, max(limit, lowest))
        chosen = choose(cu_seqlens, sizes, room)
        assert chosen is not None
        return chosen

    def less_than(self, chosen: Chosen, sizes: BodySizes, cu_seqlens: Int64) -> int:
        """The bytes to try after what was chosen could not be had: its arena half as large.

        Raises:
            MemoryError: no way takes less.
        """
        lowest = least(cu_seqlens, sizes)
        if chosen.need.total <= lowest:
            tokens = int(np.diff(cu_seqlens).max(initial=0))
            raise MemoryError(f"a text of {tokens:,} tokens takes {in_mib(lowest)} MiB, which the system refuses")
        return chosen.need.total - chosen.need.arena // 2

    def _below_ceiling(self, cu_seqlens: Int64, lowest: int, held: int, results: int) -> int:
        if self.ceiling is None:
            return NO_CEILING
        room = self.ceiling.room(held) - results
        if lowest > room:
            smallest = self.ceiling.smallest(held, lowest + results)
            raise self.too_low(smallest, int(np.diff(cu_seqlens).max(initial=0)))
        return room

    def too_low(self, smallest: int, tokens: int) -> MemoryCeilingError:
        """The error for a ceiling below what a text of so many tokens takes."""
        assert self.ceiling is not None
        means = []
        if not self._stored:
            means.append("a model folder that `save` wrote")
        if self._weights == "float32":
            means.append("weights='bfloat16' or 'int8'")
        elif self._weights == "bfloat16":
            means.append("weights='int8'")
        if tokens > LONG:
            means.append("a smaller max_seq_length, which cuts long texts into windows")
        hint = f"; less is taken by {', or '.join(means)}" if means else ""
        return MemoryCeilingError(
            f"memory is {in_mib(self.ceiling.memory)} MiB, but this process needs {whole_mib(smallest)} MiB for a "
            f"text of {tokens:,} tokens: give memory='{whole_mib(smallest)}MiB' or more{hint}",
            smallest,
        )
