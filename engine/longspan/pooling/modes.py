"""The poolings that checkpoints are trained with, in terms of `pool` and `combine`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..checkpoint.recipe import PoolingMode
from ..models.family import PoolKind


@dataclass(frozen=True, slots=True)
class Mode:
    """How one pooling reduces rows, combines partials and weighs them.

    Attributes:
        pool: what `pool` does with the rows of a partial.
        combine: what `combine` does with the partials of a vector.
        rows: which rows of a document count: all that are owned, or each window's first or last.
        by_position: whether the i-th counted token weighs i (from 1), or all weigh the same.
    """

    pool: PoolKind
    combine: Literal["mean", "mean_sqrt_len", "maximum"]
    rows: Literal["all", "first", "last"] = "all"
    by_position: bool = False


MODES: Mapping[PoolingMode, Mode] = {
    "cls": Mode("sum", "mean", rows="first"),
    "mean": Mode("sum", "mean"),
    "max": Mode("maximum", "maximum"),
    "mean_sqrt_len_tokens": Mode("sum", "mean_sqrt_len"),
    "weightedmean": Mode("sum", "mean", by_position=True),
    "lasttoken": Mode("sum", "mean", rows="last"),
}


def pool_kinds(pooling: Sequence[PoolingMode]) -> tuple[PoolKind, ...]:
    """What the body's `pool` instructions do, one for each pooling."""
    return tuple(MODES[name].pool for name in pooling)
