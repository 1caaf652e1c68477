"""Retrieval measures as trec_eval computes them: nDCG, recall and reciprocal rank at a cut-off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1; a row of zeros stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def rank(scores: NDArray[np.float32], ids: Sequence[str], depth: int) -> list[str]:
    """The best `depth` ids. Equal scores go by id, descending, which is trec_eval's rule.

    Everything that ties with the last place is considered before the cut, so the cut obeys the rule too.
    """
    depth = min(depth, len(ids))
    if depth == 0:
        return []
    threshold = np.partition(scores, len(scores) - depth)[len(scores) - depth]
    candidates = [(float(scores[i]), ids[i]) for i in np.flatnonzero(scores >= threshold).tolist()]
    candidates.sort(reverse=True)
    return [identifier for _, identifier in candidates[:depth]]


def ndcg(ranking: Sequence[str], gains: Mapping[str, int], depth: int) -> float:
    """Normalised discounted cumulative gain: linear gains, discount log2(place + 1)."""
    ideal = sorted((gain for gain in gains.values() if gain > 0), reverse=True)[:depth]
    found = [max(gains.get(identifier, 0), 0) for identifier in ranking[:depth]]
    best = sum(gain / math.log2(place + 1) for place, gain in enumerate(ideal, start=1))
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(found, start=1)) / best if best else 0.0


def recall(ranking: Sequence[str], gains: Mapping[str, int], depth: int) -> float:
    """The share of relevant documents among the first `depth`."""
    relevant = {identifier for identifier, gain in gains.items() if gain > 0}
    return len(relevant.intersection(ranking[:depth])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], gains: Mapping[str, int], depth: int) -> float:
    """One over the place of the first relevant document, or 0 if it is not among the first `depth`."""
    for place, identifier in enumerate(ranking[:depth], start=1):
        if gains.get(identifier, 0) > 0:
            return 1 / place
    return 0.0
