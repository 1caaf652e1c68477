"""Batches put together and cut apart between segments, which changes no bit of what a segment pools to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np

from ..batch import Float32, Int64, PackedBatch, Partials

Poll = Callable[[int], None]

Pooled = tuple[Float32, ...]
"""What a body returns: one array [P, D] per pooling."""


def joined(batches: Sequence[PackedBatch]) -> PackedBatch:
    """One batch of the segments of all, in their order; they are for the same program and task."""
    rows = [0, *accumulate(batch.tokens for batch in batches)]
    offsets = [batch.cu_seqlens[1:] + row for batch, row in zip(batches, rows, strict=False)]
    return PackedBatch(
        ids=np.concatenate([batch.ids for batch in batches]),
        positions=np.concatenate([batch.positions for batch in batches]),
        cu_seqlens=np.concatenate([np.zeros(1, np.int64), *offsets]),
        partials=tuple(_joined(parts, rows) for parts in zip(*(batch.partials for batch in batches), strict=True)),
        task=batches[0].task,
    )


def shares(pooled: Pooled, batches: Sequence[PackedBatch]) -> Iterator[Pooled]:
    """What belongs to each batch of what the joined one pooled: copies, so that none keeps the others' memory."""
    begins = [0] * len(pooled)
    for batch in batches:
        ends = [begin + partials.count for begin, partials in zip(begins, batch.partials, strict=True)]
        yield tuple(rows[a:b].copy() for rows, a, b in zip(pooled, begins, ends, strict=True))
        begins = ends


class Cut:
    """A batch that is run part by part, in the order of its segments.

    Args:
        batch: all of it.
    """

    def __init__(self, batch: PackedBatch) -> None:
        self._batch = batch
        self._orders = [np.argsort(partials.starts, kind="stable") for partials in batch.partials]
        self._pooled: Pooled = ()
        self._segment = 0

    @property
    def tokens_done(self) -> int:
        """How many tokens the parts so far had."""
        return int(self._batch.cu_seqlens[self._segment])

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self._segment == self._batch.segments

    @property
    def pooled(self) -> Pooled:
        """What the parts so far pooled, in the batch's order."""
        return self._pooled

    def next_segment(self, tokens: int) -> int:
        """Where the next part ends: after about so many tokens, at least one segment, and no little rest."""
        offsets = self._batch.cu_seqlens
        if self._batch.tokens - self.tokens_done < 1.5 * tokens:
            return self._batch.segments
        end = int(np.searchsorted(offsets, offsets[self._segment] + tokens, side="right")) - 1
        return max(end, self._segment + 1)

    def end_of(self, tokens: int | None) -> int:
        """Where a part of so many tokens at most ends, but of one segment at least; None for all that is left."""
        offsets = self._batch.cu_seqlens
        if tokens is None:
            return self._batch.segments
        end = int(np.searchsorted(offsets, self.tokens_done + tokens, side="right")) - 1
        return max(end, self._segment + 1)

    def shifted(self, poll: Poll | None) -> Poll | None:
        """What is told of a part's tokens, told of all of the batch's."""
        done = self.tokens_done
        return None if poll is None else lambda tokens: poll(done + tokens)

    def part(self, end: int) -> PackedBatch:
        """The segments up to `end`."""
        batch, begin = self._batch, self._segment
        if end - begin == batch.segments:
            return batch
        first, last = int(batch.cu_seqlens[begin]), int(batch.cu_seqlens[end])
        return PackedBatch(
            ids=batch.ids[first:last],
            positions=batch.positions[first:last],
            cu_seqlens=batch.cu_seqlens[begin : end + 1] - first,
            partials=tuple(
                _moved(partials, rows, -first)
                for partials, rows in zip(batch.partials, self._rows(first, last), strict=True)
            ),
            task=batch.task,
        )

    def add(self, end: int, pooled: Pooled) -> None:
        """What the part up to `end` pooled."""
        batch, begin = self._batch, self._segment
        self._segment = end
        if end - begin == batch.segments:
            self._pooled = pooled
            return
        if not self._pooled:
            shapes = [(mine.count, part.shape[1]) for mine, part in zip(batch.partials, pooled, strict=True)]
            self._pooled = tuple(np.empty(shape, np.float32) for shape in shapes)
        rows = self._rows(int(batch.cu_seqlens[begin]), int(batch.cu_seqlens[end]))
        for whole, part, mine in zip(self._pooled, pooled, rows, strict=True):
            whole[mine] = part

    def _rows(self, first: int, last: int) -> list[Int64]:
        """For each pooling, the partials that lie in rows [first, last)."""
        found = []
        for partials, order in zip(self._batch.partials, self._orders, strict=True):
            begin, end = np.searchsorted(partials.starts, (first, last), sorter=order)
            found.append(order[begin:end])
        return found


def _joined(parts: Sequence[Partials], rows: Sequence[int]) -> Partials:
    """The partials of several batches that begin at these rows."""
    counts = [0, *accumulate(part.count for part in parts)]
    pairs = list(zip(parts, rows, strict=False))
    return Partials(
        starts=np.concatenate([part.starts + row for part, row in pairs]),
        ends=np.concatenate([part.ends + row for part, row in pairs]),
        first_weight=np.concatenate([part.first_weight for part in parts]),
        weight_step=np.concatenate([part.weight_step for part in parts]),
        cu_vectors=np.concatenate(
            [np.zeros(1, np.int64), *(part.cu_vectors[1:] + n for part, n in zip(parts, counts, strict=False))]
        ),
    )


def _moved(partials: Partials, chosen: Int64, rows: int) -> Partials:
    """Some of the partials, moved by so many rows, each a vector of its own."""
    return Partials(
        starts=partials.starts[chosen] + rows,
        ends=partials.ends[chosen] + rows,
        first_weight=partials.first_weight[chosen],
        weight_step=partials.weight_step[chosen],
        cu_vectors=np.arange(len(chosen) + 1, dtype=np.int64),
    )
