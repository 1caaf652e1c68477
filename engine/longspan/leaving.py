"""Vectors that leave as soon as they are final: those of a long document long before its last window was seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .batch import Float32, Int64, Partials
from .encoding import finish
from .executors.joining import Cut
from .options import Options
from .pipeline import Pipeline
from .pooling.precision import Vectors
from .text.packing import PackedTexts

PART_TOKENS = 1 << 16
"""Tokens after which vectors leave: some seconds of work, enough for weights that a file is read for each time."""


def leaving(
    pipeline: Pipeline, texts: PackedTexts, partials: tuple[Partials, ...], options: Options
) -> Iterator[Vectors]:
    """The vectors of packed texts in their order, some at a time, each once the windows that it needs are done.

    Args:
        pipeline: the checkpoint.
        texts: the windows.
        partials: what the vectors are pooled from, for each pooling.
        options: how the call treats its texts.
    """
    cut = Cut(pipeline.batch(texts, partials))
    rows = np.maximum.reduce([_rows_needed(item) for item in partials])
    rows = np.maximum.accumulate(rows)  # none leaves before those ahead of it
    first = 0
    while True:
        end = cut.next_segment(PART_TOKENS)
        cut.add(end, pipeline.executor.run_body(cut.part(end)))
        last = int(np.searchsorted(rows, cut.tokens_done, side="right"))
        if last > first:
            yield finish(pipeline, *_vectors(cut.pooled, partials, first, last), options)
            first = last
        if cut.done:
            return


def _rows_needed(partials: Partials) -> Int64:
    """[N] how many of the first rows have to be done for each vector."""
    padded = np.append(partials.ends, 0)
    needed = np.maximum.reduceat(padded, np.minimum(partials.cu_vectors[:-1], partials.count))
    needed[np.diff(partials.cu_vectors) == 0] = 0
    return needed


def _vectors(
    pooled: Sequence[Float32], partials: Sequence[Partials], first: int, last: int
) -> tuple[tuple[Float32, ...], tuple[Partials, ...]]:
    """The vectors [first, last) alone: what they were pooled to, and from what."""
    chosen = []
    for item in partials:
        begin, end = int(item.cu_vectors[first]), int(item.cu_vectors[last])
        mine = slice(begin, end)
        chosen.append(
            Partials(
                item.starts[mine],
                item.ends[mine],
                item.first_weight[mine],
                item.weight_step[mine],
                item.cu_vectors[first : last + 1] - begin,
            )
        )
    bounds = ((item.cu_vectors[first], item.cu_vectors[last]) for item in partials)
    return tuple(rows[begin:end] for rows, (begin, end) in zip(pooled, bounds, strict=True)), tuple(chosen)
