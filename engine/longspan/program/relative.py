"""Relative position biases: tables over distances, and slopes."""

from __future__ import annotations

import numpy as np

from ..batch import Int64
from .instructions import RelativeBias


def bias_buckets(bias: RelativeBias, buckets: int) -> Int64:
    """The bucket of each distance key - query from -max_distance to max_distance: [2 * max_distance + 1].

    Half of the buckets are for keys before the query, half for those after it (T5, arXiv 1910.10683); a one-sided bias
    gives all to those before. In each half the first half is exact, the rest grows logarithmically. Distances beyond
    the maximum fall into the last bucket, as those at the maximum do.
    """
    distances = np.arange(-bias.max_distance, bias.max_distance + 1)
    if bias.bidirectional:
        buckets //= 2
        first = np.where(distances > 0, buckets, 0)
        distances = np.abs(distances)
    else:
        first = np.zeros_like(distances)
        distances = np.maximum(-distances, 0)
    exact = buckets // 2
    # float32 in the steps of the models' own code: a logarithm near a boundary decides the bucket.
    grown = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        np.log(bias.max_distance / exact)
    )
    coarse = np.minimum(exact + (grown * np.float32(buckets - exact)).astype(np.int64), buckets - 1)
    return first + np.where(distances < exact, distances, coarse)


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """ALiBi's (arXiv 2108.12409): powers of 2 ** (-8 / H); between powers of two, also every second of the next's."""
    power = 1 << heads.bit_length() - 1
    slopes = tuple(2.0 ** (-8.0 * (i + 1) / power) for i in range(power))
    return slopes if power == heads else slopes + alibi_slopes(2 * power)[::2][: heads - power]
