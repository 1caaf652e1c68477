"""Whether a model bears attention over bytes: decided by what sample texts pool to."""

from __future__ import annotations

import numpy as np

from .joining import Pooled

MEAN_COSINE, LEAST_COSINE = 0.9995, 0.998
"""How close vectors stay, on average and each: closer than to those of float32 weights."""


def close_enough(plain: Pooled, rounded: Pooled) -> bool:
    """Whether vectors with attention over bytes are about those without: one array [n, d] per pooling each."""
    for one, other in zip(plain, rounded, strict=True):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = np.einsum("nd,nd->n", one, other) / np.maximum(lengths, np.finfo(np.float32).tiny)
        # NaN passes no comparison.
        if len(cosines) and not (cosines.mean() >= MEAN_COSINE and cosines.min() >= LEAST_COSINE):
            return False
    return True
