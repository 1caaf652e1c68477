"""How far a mean difference could be chance: a bootstrap over the questions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVEL = 95  # percent of the resamples that an interval holds


def intervals(
    differences: NDArray[np.float64], groups: NDArray[np.int64], seed: int, resamples: int = 2000
) -> NDArray[np.float64]:
    """Percentile intervals of the mean difference of each measure: [measures, 2].

    Args:
        differences: [questions, measures], paired: the same question under two methods.
        groups: [questions]. Questions of one group are drawn together: those about one contract are
            not independent of each other.
        seed: of the draws.
        resamples: how many.
    """
    _, group, members = np.unique(groups, return_inverse=True, return_counts=True)
    count = len(members)
    sums = np.zeros((count, differences.shape[1]))
    np.add.at(sums, group, differences)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    means = (draws @ sums) / (draws @ members)[:, None]
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    return np.stack([low, high], axis=1)
